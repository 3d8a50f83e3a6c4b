"""The formulas of scaling, compared with calculations by hand."""

import json
import sys

import pytest
from small_run import run

from benchmarks import roofline, scaling
from openset_jax.model import networks


def test_the_parameters_are_those_of_the_network():
    model = networks.make(
        11, name="alexnet", norm="", stem="imagenet", width=1.0, dropout=0.5, dtype="float32", axis_name=None
    )
    kernels = {layer.name: layer.kernel for layer in roofline.layers(model, 224) if layer.kernel}
    assert (kernels["fc6"][0] + 1) * 4096 + (kernels["fc7"][0] + 1) * 4096 == scaling.SHARDED
    assert scaling.SHARDED + scaling.REPLICATED == 57_048_907


def test_all_reduce_within_a_host_and_between_hosts():
    assert scaling.all_reduce_ms(1e9, 1, ethernet=False) == 0
    assert scaling.all_reduce_ms(450e6, 8, ethernet=False) == pytest.approx(2 * 7 / 8)
    assert scaling.all_reduce_ms(450e6, 8, ethernet=True) == pytest.approx(2 * 7 / 8)  # one host
    # two hosts: NVLink as before, and 2 * 1/2 * 450 MB through 12.5 GB/s
    assert scaling.all_reduce_ms(450e6, 16, ethernet=True) == pytest.approx(2 * 7 / 8 + 36)


def test_a_step_with_and_without_overlap():
    assert scaling.step_ms(9, 4, overlap=False) == 13
    assert scaling.step_ms(9, 4, overlap=True) == 9  # 4 < two thirds of 9
    assert scaling.step_ms(9, 10, overlap=True) == 13  # 3 of the forward pass, then 10


def test_a_smaller_batch_costs_less_but_for_the_fixed_part():
    device = scaling.Device(step_ms=10.0, batch_size=100, fixed_ms=2.0)
    assert (device.ms(100), device.ms(50), device.ms(0)) == (10.0, 6.0, 2.0)


def test_one_device_does_what_was_given_and_more_never_do_more_than_their_share():
    rows = scaling.scaling(scaling.Device(17.0, 1024), lambda n: 1024)
    assert len(rows) == 2 * 2 * len(scaling.DEVICES)
    for row in rows:
        if row["devices"] == 1:
            assert row["images_per_second"] == row["with_overlap"] == pytest.approx(1024 / 0.017)
        assert row["efficiency"] <= row["efficiency_with_overlap"] <= 1 + 1e-9


def test_break_even_of_one_weird_trick():
    # n b images exchange as many bytes as the gradients of fc6 and fc7 have: 218.1 MB / (13,312 x 2 bytes)
    assert scaling.break_even(4) == pytest.approx(8193, abs=1)
    images = scaling.break_even(4) / 8
    sent = 2 * 7 * images * scaling.EXCHANGED * 2
    assert sent == pytest.approx(2 * 7 / 8 * 4 * scaling.SHARDED)


def test_one_weird_trick_pays_for_small_batches_only():
    device = scaling.Device(17.0, 1024, 0.5)
    pays = [scaling.trick(device, batch, 8)["pays"] for batch in scaling.BATCH_SIZES]
    assert pays == sorted(pays, reverse=True)
    assert pays[0] and not pays[-1]


def test_the_command_writes_its_tables(tmp_path):
    out = tmp_path / "scaling.json"
    done = run([sys.executable, "-m", "benchmarks.scaling", "--step_ms=17", f"--json={out}"])
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"step_ms", "weak", "strong", "one_weird_trick"} <= result.keys()
    assert "Calculated from a step of 17 ms" in done.stdout
    done = run([sys.executable, "-m", "benchmarks.scaling", "--step_ms=0.4"])
    assert (done.returncode, done.stderr[:18]) == (2, "error: --fixed_ms:")
