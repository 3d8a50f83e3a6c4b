"""The variants of the step: comparisons, verdicts, and results that survive a kill."""

import collections
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from small_run import ROOT, SMALL, environment, run, small_spec

from benchmarks import forms, timing, variant_list, variant_table, variants
from benchmarks.variant_list import Variant
from openset_jax.data import augment
from openset_jax.model.layers import Ops
from openset_jax.platforms import crop

ROW = {
    "name": "pooling: by slices",
    "images_per_second": timing.summary([90.0, 110.0]),
    "plain": timing.summary([100.0, 100.0]),
    "ratio": timing.summary([0.9, 1.1]),
    "compile_s": 1.0,
    "loss_difference": 1e-6,
    "right": True,
    "later": None,
    "verdict": "no difference",
    "never": "",
}


def by_pixel(program):
    given = {"image_size": program.forward.images.image_size, "pad": program.pad, "flip": program.flip}
    return functools.partial(augment.augment, **given, crop=crop.crop_by_pixel)


def command(out, *flags):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    return [sys.executable, "-m", "benchmarks.variants", f"--out={out}", "--config=configs/digits.py", *fields, *flags]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((1.02, 1.03, 1.04), "faster"), ((0.99, 1.03, 1.04), "no difference"), ((1.001, 1.002, 1.003), "no difference"),
     ((0.9, 0.95, 0.97), "slower"), ((0.9, 0.95, 1.01), "no difference")],
)  # fmt: skip
def test_a_verdict_needs_all_rounds_and_one_percent(ratios, expected):
    assert variants.verdict(timing.summary(ratios)) == expected


def test_a_wrong_variant_and_one_that_is_never_adopted_are_said_to_be_so():
    assert variant_table.cells(ROW)[-1] == "no difference"
    assert variant_table.cells(ROW | {"right": False})[-1] == "WRONG, no difference"
    never = ROW | {"verdict": "faster", "never": "changes the result", "later": -0.013}
    assert variant_table.cells(never)[-1] == "faster; loss after more steps -1.3%; not adopted: changes the result"


def program_of(stem):
    size = {"small": 16, "imagenet": 64}[stem]
    return small_spec(**{"model.stem": stem, "data.stored_size": size, "data.image_size": size}).program


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_names_are_unique_and_the_forms_in_use_are_not_listed(platform):
    in_use = variant_list.IN_USE[platform]
    by_stem = {stem: program_of(stem) for stem in ("small", "imagenet")}
    names = {stem: [v.name for v in variant_list.candidates(program, platform)] for stem, program in by_stem.items()}
    assert all(len(set(found)) == len(found) for found in names.values())
    assert set(in_use) < {name for found in names.values() for name in found}
    for stem, program in by_stem.items():
        found = variant_list.variants(program, platform)
        assert [v.name for v in found] == [name for name in names[stem] if name not in in_use]
        assert any(v.options for v in found) == (platform != "tpu")


@pytest.mark.parametrize(("platform", "lowered_for"), [("cpu", "cpu"), ("gpu", "cuda"), ("tpu", "tpu")])
def test_the_forms_in_use_are_those_that_are_lowered(platform, lowered_for):
    def operations(function, *shapes):
        given = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        text = jax.jit(function).trace(*given).lower(lowering_platforms=(lowered_for,)).as_text()
        found = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
        for name in ("case", "return", "constant", "broadcast_in_dim"):  # choosing by platform adds some
            found.pop(name, None)
        return found

    by_stem = [variant_list.candidates(program_of(stem), platform) for stem in ("small", "imagenet")]
    found = {v.name: v for candidates in by_stem for v in candidates if v.name in variant_list.IN_USE[platform]}
    assert len(found) == len(variant_list.IN_USE[platform])
    for variant in found.values():
        if pool := variant.forms.get("max_pool"):
            image, gradient = ((2, 13, 13, 4), jnp.float32), lambda pool: jax.grad(lambda x: (pool(x) ** 2).sum())
            assert operations(gradient(pool), image) == operations(gradient(Ops().max_pool), image), variant.name
        elif convolve := variant.forms.get("convolve"):
            small = variant.name.endswith("columns")
            side, stride = (5, 1) if small else (11, 4)
            given = ((2, 64, 64, 3), jnp.float32), ((side, side, 3, 8), jnp.float32)
            ours, other = (lambda x, k, f=f, s=stride: f(x, k, s, 2) for f in (convolve, Ops().convolve))
            assert operations(ours, *given) == operations(other, *given), variant.name
        else:
            given = ((4, 20, 20, 3), jnp.uint8), ((2,), jnp.uint32), ((4,), jnp.int32)
            options = {"image_size": 16, "pad": 2, "flip": False}
            both = (variant.step["augment"].keywords["crop"], crop.crop)
            ours, other = (functools.partial(augment.augment, **options, crop=form) for form in both)
            assert operations(ours, *given) == operations(other, *given), variant.name


def test_what_breaks_the_equality_of_devices_or_changes_the_result_is_never_adopted():
    found = variant_list.variants(small_spec().program, "gpu")
    assert all(v.never for v in found if v.prng or v.compare_after or "optimizer.grad_clip" in v.fields)


def test_together_has_all_replacements():
    some = [
        Variant("a", "a", forms={"relu": 1}, options={"x": 1}),
        Variant("b", "b", forms={"max_pool": 2}, step={"augment": 3}, same_numbers=False),
    ]
    both = variant_list.together(some)
    assert (both.forms, both.options, both.step) == ({"relu": 1, "max_pool": 2}, {"x": 1}, {"augment": 3})
    assert not both.same_numbers
    assert both.name == "together: a, b"


@pytest.mark.slow
def test_the_command_measures_beside_the_plain_step_and_writes_its_files(tmp_path):
    done = run(command(tmp_path, "--only=ReLU", "--rounds=2"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "variants.json").read_text())
    plain, row = result["rows"][:2]
    assert (plain["name"], row["name"]) == ("plain", "ReLU: gradient by its output")
    ratios = [a / b for a, b in zip(row["images_per_second"]["rounds"], row["plain"]["rounds"], strict=True)]
    assert row["ratio"]["rounds"] == pytest.approx(ratios)
    assert row["right"] and row["loss_difference"] < 1e-5
    assert not result["left_out"]
    text = (tmp_path / "variants.md").read_text()
    assert text == variant_table.markdown(result)
    assert "| ReLU: gradient by its output |" in text


@pytest.mark.slow
def test_a_variant_that_does_not_compile_is_left_out_with_the_reason_and_the_others_go_on(tmp_path):
    spec = small_spec()
    some = [Variant("bad", "a", options={"xla_no_such_option": True}), Variant("relu", "b", {"relu": forms.relu_by_output})]
    table = variant_table.Table(tmp_path, spec.record, {}, [v.name for v in some])
    variants.measure(table, some, spec, rounds=1, end=math.inf)
    result = json.loads((tmp_path / "variants.json").read_text())
    assert [row["name"] for row in result["rows"]][:2] == ["plain", "relu"]
    assert "xla_no_such_option" in result["left_out"]["bad"]


@pytest.mark.slow
def test_a_variant_with_other_losses_is_not_right_and_not_among_the_winners(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "verdict", lambda ratio: "faster")
    spec = small_spec()
    some = [
        Variant("wrong", "a", {"relu": lambda x: jax.nn.relu(x) + 0.1}),
        Variant("relu", "b", {"relu": forms.relu_by_output}),
        Variant("crops", "c", step={"augment": by_pixel(spec.program)}),
        Variant("never", "d", never="changes the result"),
    ]
    table = variant_table.Table(tmp_path, spec.record, {}, [v.name for v in some])
    variants.measure(table, some, spec, rounds=1, end=math.inf)
    assert [row["right"] for row in table.rows[1:]] == [False, True, True, True, True]
    assert table.rows[-1]["name"] == "together: relu, crops"


def test_a_variant_that_fails_when_it_runs_is_left_out(tmp_path, monkeypatch):
    def fail(variant, *_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(variants, "compare", fail)
    spec = small_spec()
    table = variant_table.Table(tmp_path, spec.record, {}, ["relu"])
    variants.measure(table, [Variant("relu", "b", {"relu": forms.relu_by_output})], spec, rounds=1, end=math.inf)
    result = json.loads((tmp_path / "variants.json").read_text())
    assert result["left_out"] == {"relu": "RuntimeError: RESOURCE_EXHAUSTED: out of memory"}


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_kill_in_the_middle_leaves_the_rows_so_far(tmp_path, kill):
    process = subprocess.Popen(
        command(tmp_path, "--only=pooling"), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with process.stdout:
        for line in process.stdout:
            if line.startswith("pooling"):
                break
        process.send_signal(kill)
        assert process.wait(timeout=60) != 0
    result = json.loads((tmp_path / "variants.json").read_text())
    assert [row["name"] for row in result["rows"]][:2] == ["plain", "pooling: by parity"]
    assert set(result["left_out"].values()) == {"the time was up"}
    assert (tmp_path / "variants.md").read_text() == variant_table.markdown(result)
    assert sorted(os.listdir(tmp_path)) == ["variants.json", "variants.md"]


def test_the_time_limit_ends_the_command_and_names_what_is_left_out(tmp_path):
    begun = time.monotonic()
    done = run(command(tmp_path, "--minutes=0.05"))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 0.05 * 60 + 15 + 15  # and the start of Python and JAX
    result = json.loads((tmp_path / "variants.json").read_text())
    assert "crops: one by one" in result["left_out"]
