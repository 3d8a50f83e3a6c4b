"""The content of the page, without a browser; `test_page_in_browser.py` tests its scripts."""

import base64
import json
import re

import numpy as np
import pytest
from pages import HOSTILE, data_of, without_scripts
from report import made_up

from openset_jax.openset.decision.thresholds import Threshold
from openset_jax.report import page, page_data
from openset_jax.report.mistakes import Mistake


def render(arguments, **changes):
    arguments = arguments | changes
    return page.render(arguments.pop("result"), arguments.pop("scored"), **arguments)


@pytest.fixture(scope="module")
def arguments():
    return made_up.arguments()


@pytest.fixture(scope="module")
def html(arguments):
    return render(arguments)


def test_numbers_are_those_of_metrics_json(arguments, html):
    point = arguments["result"]["operating_point"]
    shown = dict(re.findall(r'data-saved="(.*?)" data-value="(.*?)"', html))
    assert float(shown["known_recall"]) == point["known_recall"]["value"]
    assert float(shown["rejected.unseen_unknowns"]) == point["rejected"]["unseen_unknowns"]["value"]
    assert float(shown["expected_cost.seen_negatives"]) == point["expected_cost"]["seen_negatives"]["value"]
    assert data_of(html)["confusion"] == arguments["result"]["confusion"]["counts"]


def test_arrays_are_embedded_exactly(arguments, html):
    data, scored = data_of(html), arguments["scored"]
    read = lambda name, dtype: np.frombuffer(base64.b64decode(data[name]), dtype)
    np.testing.assert_array_equal(read("score", "<f8"), scored.score)
    np.testing.assert_array_equal(read("posterior", "<f8"), arguments["fitted_posterior"].ravel())
    np.testing.assert_array_equal(read("truth", "<i4"), page_data.confusion_rows(scored, made_up.KINDS, 4))


def test_it_is_one_file_that_loads_nothing(html):
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=(?!\"data:)", without_scripts(html))
    assert "url(" not in without_scripts(html) and "@import" not in without_scripts(html)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_equal_arguments_make_equal_pages(arguments, html):
    assert render(arguments) == html


def test_names_and_ids_are_escaped():
    kinds = {"seen_negatives": [HOSTILE[0]], "unseen_unknowns": [HOSTILE[3]]}
    arguments = made_up.arguments(classes=HOSTILE, kinds=kinds)
    mistake = Mistake(np.zeros((4, 4, 3), np.uint8), HOSTILE[2], HOSTILE[0], HOSTILE[1], 0.5, None)
    arguments["result"]["scores"] |= {HOSTILE[0]: None}
    arguments["result"]["scores_left_out"] = {HOSTILE[1]: HOSTILE[2]}
    html = render(arguments, mistakes={HOSTILE[0]: [mistake]})
    assert html.encode("utf-8")
    assert "alert(1)</script>" not in html and "<script>alert" not in html
    assert '" onload=' not in without_scripts(html) and "1)" in without_scripts(html)
    assert html.count("</script>") == 4
    assert data_of(html)["classes"][:3] == list(HOSTILE[:3])
    assert "\u2028" not in html[html.index('id="data"') : html.index("</script>", html.index('id="data"'))]
    drawn = json.dumps(data_of(html)["figures"])
    assert "alert" not in drawn and "caf" not in drawn  # Plotly reads tags in text


@pytest.mark.parametrize("absent", ["unseen_unknowns", "seen_negatives", "both", "known"])
def test_kinds_without_images_are_left_out_and_are_no_error(absent):
    kinds = {kind: [] if absent in (kind, "both") else groups for kind, groups in made_up.KINDS.items()}
    arguments = made_up.arguments(kinds=kinds)
    if absent == "known":
        arguments["scored"] = arguments["scored"][arguments["scored"].label < 0]
    html, data = render(arguments), data_of(render(arguments))
    assert "no test images of" in html or absent == "known"
    assert ("roc" in data["figures"]) == (absent in made_up.KINDS)
    assert data["kinds"] == list(made_up.KINDS)


def test_nothing_but_none(arguments):
    """Every number that may be missing is."""

    def emptied(value):
        if isinstance(value, dict):
            return None if set(value) == {"value", "low", "high"} else {k: emptied(v) for k, v in value.items()}
        return value

    result = arguments["result"]
    result = result | {name: emptied(result[name]) for name in ("open_set", "scores")}
    saved = result["operating_point"]
    result["operating_point"] = emptied(saved) | {"threshold": saved["threshold"]}
    result["calibration"] = {kind: {"before": None, "after": None} for kind in made_up.KINDS}
    assert "no test images of known classes" in render(arguments, result=result)
    del result["scores"], result["scores_left_out"]
    assert "own (in use)" in render(arguments, result=result)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_thresholds_and_scores(value):
    arguments = made_up.arguments(threshold=Threshold(value, -np.inf, np.inf, 1, 1, None))
    arguments["scored"].score[:5] = np.inf
    assert data_of(render(arguments))["threshold"] == str(value)


def test_probabilities_are_optional():
    data = data_of(render(made_up.arguments(silent=True)))
    assert data["posterior"] is None and "calibration" not in data["figures"]


def test_scores_are_sorted_with_the_best_on_unknowns_first(arguments):
    cell = lambda value: {"auroc": {"value": value, "low": 0, "high": 1}}
    scores = {
        "own": {"seen_negatives": cell(0.9), "unseen_unknowns": cell(0.6)},
        "energy": {"seen_negatives": cell(0.5), "unseen_unknowns": cell(0.7)},
        "msp": {"seen_negatives": cell(0.99), "unseen_unknowns": None},
    }
    html = render(arguments, result=arguments["result"] | {"scores": scores, "scores_left_out": {"react": "no features"}})
    table = html[html.index('<table id="scores">') :]
    places = [table.index(f'scope="row">{name}') for name in ("energy", "own (in use)", "msp", "react")]
    assert places == sorted(places) and "left out: no features" in table


def test_too_many_images_are_sampled_and_the_page_says_so(arguments, monkeypatch):
    monkeypatch.setattr(page_data, "MOST", 100 * 7)
    html = render(arguments)
    total = len(arguments["scored"].label)
    assert data_of(html)["images"] == 100
    assert f"use 100 of {total} test images, drawn at random" in html
    assert data_of(html)["confusion"] == arguments["result"]["confusion"]["counts"]


def test_a_sample_has_every_truth_in_its_share():
    truth = np.repeat([0, 1, 2, -1], [1_000, 500, 100, 50])
    rows = page_data.sample(truth, 160)
    assert len(rows) == len(set(rows)) == 160 and (np.diff(rows) > 0).all()
    assert np.abs(np.bincount(truth[rows]) - [100, 50, 10]).max() <= 1
    np.testing.assert_array_equal(page_data.sample(truth, 10_000), np.arange(1_600))
    many = np.repeat(np.arange(50), 40)
    assert set(many[page_data.sample(many, 20)]) == set(range(50)), "a cost needs an image of each"


def test_one_known_class_has_no_right_class_and_no_second_curve():
    html = render(made_up.arguments(num_classes=1))
    rows = re.findall(r'data-saved="([^"]*)"', html)
    assert rows[:2] == ["known_recall", "rejected.seen_negatives"]
    assert {"roc", "cost", "calibration"} <= data_of(html)["figures"].keys() and "oscr" not in data_of(html)["figures"]
    assert 'id="oscr"' not in html and "another known class" not in html
    assert "<label hidden>confuse two classes" in html
