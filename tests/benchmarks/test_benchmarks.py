"""The benchmarks run, count correctly, and write complete results. Times are not tested."""

import json
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from small_run import RESIDENT, SMALL, run, small_spec

from benchmarks import batch_size, layers, step, timing
from benchmarks.compilations import Compilations
from openset_jax.training.run_cache import RunCache


def test_rounds_alternate_and_the_first_is_not_counted():
    order = []
    values = timing.alternate(
        2, {"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)}
    )
    assert "".join(order) == "baabba"  # warm-up in reverse order, then forward and in reverse
    assert [len(v) for v in values.values()] == [2, 2]


def benchmark(name, tmp_path, *flags, devices=1, **changes):
    """Runs a benchmark with `configs/digits.py`, made small; returns (its output, its JSON)."""
    fields = [f"--config.{name}={value}" for name, value in (SMALL | changes).items()]
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--config=configs/digits.py", *fields, f"--json={out}", *flags]
    done = run(command, devices=devices)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.mark.slow
def test_the_step_benchmark_writes_what_it_promises(tmp_path):
    _, result = benchmark("step", tmp_path, "--num_classes=5", "--matrix=256", "--rounds=3", "--steps=3", devices=2)
    assert {"images_per_second", "step_ms", "compile_s", "flops_per_image", "share_of_matrix_rate"} <= result.keys()
    assert result["step_ms"]["min"] <= result["step_ms"]["median"] <= result["step_ms"]["max"]
    assert len(result["step_ms"]["rounds"]) == 3
    assert result["images_per_second"] == pytest.approx(16 / (result["step_ms"]["median"] / 1000))
    assert result["memory"]["host_peak_bytes"] > 1e7
    bound = result["roofline"]
    assert bound["no_overlap_ms"] == pytest.approx(bound["arithmetic_ms"] + bound["memory_ms"])
    assert bound["share_with_overlap"] == pytest.approx(bound["overlap_ms"] / result["step_ms"]["median"])
    assert "ratio" not in result
    # read from the compiled program: every gradient once, and the metrics (loss, accuracy, six classes)
    assert result["all_reduce_bytes"] == 4 * 81_610 + 4 * (1 + 1 + 6)


TWO_A_CALL = {"steps_per_call": 2, "checkpoint.every": 4}


@pytest.mark.slow
def test_the_loop_is_held_against_the_slower_of_its_halves(tmp_path):
    said, result = benchmark("end_to_end", tmp_path, "--rounds=2", "--seconds=0.2", "--warmup=0.1", **RESIDENT, **TWO_A_CALL)
    slower = [min(pair) for pair in zip(result["step_alone"]["rounds"], result["input_alone"]["rounds"], strict=True)]
    ratios = [t / s for t, s in zip(result["together"]["rounds"], slower, strict=True)]
    assert result["ratio"]["rounds"] == pytest.approx(ratios)
    assert "is the limit" in said


@pytest.mark.slow
def test_classifying_photographs_is_held_against_the_slower_of_its_halves(tmp_path):
    (tmp_path / "photos/deep").mkdir(parents=True)
    for i, side in enumerate((20, 30, 40)):
        Image.fromarray(np.full((side, 30, 3), 60 * i, np.uint8)).save(tmp_path / f"photos/deep/{i}.jpg")
    flags = (f"--photos={tmp_path / 'photos'}", "--images=100", "--rounds=2")
    said, result = benchmark("predict", tmp_path, *flags)
    halves = zip(result["reading_alone"]["rounds"], result["forward_pass_alone"]["rounds"], strict=True)
    ratios = [t / min(pair) for t, pair in zip(result["predict"]["rounds"], halves, strict=True)]
    assert result["ratio"]["rounds"] == pytest.approx(ratios)
    assert all(more > ratio for more, ratio in zip(result["ratio_to_both_in_turn"]["rounds"], ratios, strict=True))
    assert result["images"] == 100 and "predict / both in turn" in said


@pytest.mark.slow
def test_the_memory_benchmark_plans_for_batches_and_samples_a_run(tmp_path):
    _, result = benchmark("memory", tmp_path, "--batch_sizes=8,64", "--steps=20", **RESIDENT)
    small, large = (result["planned"][size] for size in ("8", "64"))
    assert small["temporaries"] < large["temporaries"]
    assert large["peak"] >= large["temporaries"] + large["state and batch"] > 3 * 4 * 81_610  # parameters and two moments
    assert [sample["step"] for sample in result["run"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert all(sample["host"] > 1e7 for sample in result["run"])


@pytest.mark.slow
def test_the_startup_benchmark_splits_all_of_the_time_and_sees_tensorflow(tmp_path):
    _, result = benchmark("startup", tmp_path, "--rounds=1", **RESIDENT)
    assert result["first"]["all"] > result["first"]["compilation"] > 0
    stages = {stage: seconds["median"] for stage, seconds in result["seconds"].items()}
    assert stages.pop("all") == pytest.approx(sum(stages.values()))
    assert stages["imports"] > 0.1
    assert not result["tensorflow"]


@pytest.mark.slow
def test_the_step_benchmark_finds_the_best_batch_times_layers_and_writes_a_profile(tmp_path):
    trace = tmp_path / "trace"
    flags = (
        "--matrix=256",
        "--rounds=1",
        "--steps=1",
        "--batch_sizes=4,8",
        "--layers",
        "--seconds=200",
        f"--profile={trace}",
    )
    output, result = benchmark("step", tmp_path, *flags)
    assert list(result["batch_sizes"]) == ["4", "8"]
    best = max(result["batch_sizes"], key=result["batch_sizes"].get)
    assert result["config"]["batch_size"] == int(best)
    names = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8", "optimizer"]
    assert list(result["layers"]) == names
    assert result["left_out"] == {} and result["layer_compilations"]["seconds"] > 0
    assert all(isinstance(found["cold"], bool) for found in result["batch_compilations"].values())
    assert sum(v["flops"] for v in result["layers"].values()) == result["flops_per_image"] * int(best)
    assert list(trace.rglob("perfetto_trace.json.gz"))
    assert "perfetto" in output


def test_the_evaluation_benchmark_writes_what_it_promises(tmp_path):
    output, result = benchmark("evaluate", tmp_path, "--rounds=2", "--rows=500", "--num_classes=3", **{"eval.batch_size": 4})
    assert result["images_per_second"] == result["rates"]["openset_jax"]["median"]
    assert (result["metrics"]["rows"], result["metrics"]["outputs"]) == (500, 4)
    assert len(result["metrics"]["ms"]["rounds"]) == 2
    assert "metrics of 500 x 4 scores" in output


def test_what_does_not_fit_the_time_is_left_out_and_named():
    specs, over = [small_spec(batch_size=size) for size in (4, 8)], timing.Limit(1e-9)
    search = batch_size.search(specs, 5, over)
    assert search.rates == {} and list(search.left_out) == ["batch of 4", "batch of 8"]
    model, _, optimizer = RunCache().network(specs[0].program, 5)
    rates = {"matrix": 1e9, "copy": 1e9}
    timed = layers.time_layers(model, optimizer, image_size=16, batch_size=2, rates=rates, limit=over)
    assert timed.layers == {} and len(timed.left_out) == 12
    assert "layer conv1" in timed.left_out


def test_rounds_end_with_the_time_but_one_is_always_measured():
    values = timing.alternate(5, {"a": lambda: 1.0}, limit=timing.Limit(1e-9))
    assert values == {"a": [1.0]}
    assert list(timing.missing_rounds(5, values)) == ["4 of 5 rounds"]
    assert timing.missing_rounds(1, values) == {}


def test_a_program_from_the_cache_is_not_cold():
    constant = time.time()  # no program of an earlier test has it
    for cold in (True, False):
        lowered = jax.jit(lambda x: x * constant).lower(1.0)
        compilations = Compilations()
        lowered.compile()
        assert compilations.cold == cold


def test_the_rates_of_the_devices_are_taken_from_a_file_that_has_them(tmp_path):
    model, file = RunCache().network(small_spec().program, 5).model, tmp_path / "rates.json"
    assert step.known_rates(model, str(file)) == {}
    file.write_text(json.dumps({"platform": "cpu"}))
    assert step.known_rates(model, str(file)) == {}
    file.write_text(json.dumps({"matrix_rate_float32": 1, "copy_rate": 2}))
    assert step.known_rates(model, str(file)) == {"matrix_rate": 1, "copy_rate": 2}


def test_a_batch_size_that_is_no_number_is_one_line(tmp_path):
    done = run([sys.executable, "-m", "benchmarks.step", "--config=configs/digits.py", "--batch_sizes=4,many"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: --batch_sizes: 'many'")


def test_the_ratio_is_ours_over_the_peers():
    result = timing.beside_peer({timing.OURS: [10.0, 20.0, 30.0], timing.PEER: [5.0, 5.0, 10.0]})
    assert (result["peer_images_per_second"], result["ratio"]) == (5.0, 4.0)
    assert result["paired_ratio"]["rounds"] == [2.0, 4.0, 3.0]


def test_bad_input_is_exit_code_2_and_one_line(tmp_path):
    done = run([sys.executable, "-m", "benchmarks.pipeline", f"--photos={tmp_path / 'nothing'}"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_many_heads_are_timed_beside_one_and_beside_the_same_one_after_the_other(tmp_path):
    out = tmp_path / "heads.json"
    command = [sys.executable, "-m", "benchmarks.heads", "--arms=10", "--steps=20", "--rounds=1", f"--json={out}"]
    done = run(command, process=True)
    assert done.returncode == 0, done.stderr
    seconds = json.loads(out.read_text())["seconds"]
    assert list(seconds) == ["one arm", "10 arms at once", "10 arms, one after the other"]
    for (one,) in seconds.values():
        assert 0 < one["trained"] <= one["evaluated"] <= one["answered"]
    assert run([*command[:3], "--arms=15"], process=True).returncode == 2
