"""figure.png: drawn for any set of arms, small, and the same for the same arms."""

import numpy as np
import pytest
from PIL import Image
from study import made_up_arms as made_up

from openset_jax.report.figures import OKABE_ITO
from openset_jax.study.charts import figure
from openset_jax.study.stats.analysis import Analysis

HOSTILE = ("$x^{", "\udce9\x00", "a\nb\tc", "名前", "<b>" + "long " * 60)


def picture(path):
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def colours_of(path):
    pixels = picture(path).reshape(-1, 3).astype(int)
    return lambda colour: (np.abs(pixels - np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])).max(1) < 12).sum()


@pytest.mark.parametrize(
    "name", [n if n in ("12 policies", "one seed") else pytest.param(n, marks=pytest.mark.slow) for n in made_up.CASES]
)
def test_it_is_small_and_has_the_colours_of_its_lines(name, tmp_path):
    path = tmp_path / "figure.png"
    figure.write_figure(made_up.CASES[name](), path)
    assert path.stat().st_size < 140_000 and [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    height, width, _ = picture(path).shape
    assert width == 1500 and 500 <= height <= 2_200
    count = colours_of(path)
    assert count(OKABE_ITO[0]) > 50
    for colour in OKABE_ITO[:-1] if name == "12 policies" else ():
        assert count(colour) > 300, colour


@pytest.mark.slow
def test_equal_arms_make_equal_bytes(tmp_path):
    for name in ("one.png", "other.png"):
        figure.write_figure(made_up.CASES["usual"](), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "one.png").read_bytes()


def test_names_are_only_text(tmp_path):
    arms = made_up.sweep(policies=[{"sampling__policy": name} for name in HOSTILE])
    arms += [made_up.treatment(model__stem=name) for name in HOSTILE]
    figure.write_figure(made_up.analysis(arms, seeds=1), tmp_path / "figure.png")
    assert picture(tmp_path / "figure.png").shape[1] == 1500


def test_without_arms_it_says_so(tmp_path):
    figure.write_figure(Analysis([]), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_long_names_that_begin_alike_are_told_apart():
    names = [
        f"imbalance=step:mu={mu},rho={rho}, policy={policy}sample"
        for mu in (0.2, 0.5) for rho in (10, 1000) for policy in ("over", "under")
    ]  # fmt: skip
    shown = [figure._ends(name) for name in names]
    assert len(set(shown)) == len(names)
    assert max(map(len, shown)) == figure._LONGEST
    assert figure._ends("short") == "short"
