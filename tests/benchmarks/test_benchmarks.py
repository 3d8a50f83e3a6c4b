"""The benchmarks run, count right, and write what they promise; nothing here is timed."""

import json
import sys

import pytest
from small_run import SMALL, run

from benchmarks import common
from benchmarks.roofline import flops_per_image
from openset_jax.model.alexnet import make_alexnet


def alexnet(**changes):
    defaults = {"name": "alexnet", "norm": "", "stem": "imagenet", "width": 1.0, "dropout": 0.5, "dtype": "float32",
                "axis_name": None}  # fmt: skip
    return make_alexnet(11, **defaults | changes)


def test_a_training_image_of_the_full_network_costs_4_12_gflop():
    assert flops_per_image(alexnet(), 224) == pytest.approx(4.120e9, rel=1e-3)


def test_flops_of_a_small_network_counted_by_hand():
    # 16x16 -> pool 7 -> pool 3 -> pool 1; 4, 12, 24, 16, 16 channels; fully connected 256, 256, 11
    conv1 = 16 * 16 * 25 * 3 * 4
    rest = 7 * 7 * 25 * 4 * 12 + 3 * 3 * 9 * (12 * 24 + 24 * 16 + 16 * 16) + 16 * 256 + 256 * 256 + 256 * 11
    assert flops_per_image(alexnet(stem="small", width=0.0625), 16) == 2 * (3 * rest + 2 * conv1)


def test_rounds_alternate_and_the_first_is_not_counted():
    order = []
    values = common.alternate(
        2, {"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)}
    )
    assert "".join(order) == "baabba"  # warm-up backwards, then one way and the other
    assert [len(v) for v in values.values()] == [2, 2]


@pytest.mark.parametrize("extra", [[], ["--steps=3"]])
def test_the_step_benchmark_writes_what_it_promises(tmp_path, extra):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    out = tmp_path / "step.json"
    done = run(
        [sys.executable, "-m", "benchmarks.step", "--config=configs/digits.py", *fields, "--num_classes=5", "--matrix=256",
         f"--json={out}", *extra]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"images_per_second", "step_ms", "compile_s", "flops_per_image", "share_of_matrix_rate"} <= result.keys()
    assert result["step_ms"]["min"] <= result["step_ms"]["median"] <= result["step_ms"]["max"]
    assert result["images_per_second"] == pytest.approx(16 / (result["step_ms"]["median"] / 1000))


def test_bad_input_is_exit_code_2_and_one_line(tmp_path):
    done = run([sys.executable, "-m", "benchmarks.pipeline", f"--photos={tmp_path / 'nothing'}"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
