"""The checks of correctness pass correct programs, fail wrong ones, end in time, and leave no process running."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import ROOT, environment

from benchmarks import correctness, correctness_runs, packed_digits, timing
from benchmarks import correctness_limits as limits
from benchmarks import correctness_steps as steps
from benchmarks.children import Children, NotDone, ProcessFailed
from benchmarks.correctness import Job, Report
from benchmarks.correctness_runs import Finding
from configs import digits
from openset_jax import config as configs
from openset_jax.data import pool_builder
from openset_jax.errors import UserError
from openset_jax.platforms import convolution, max_pool
from openset_jax.spec import NetworkSpec

NETWORK = "small stem"


def take_steps(mode, **forms):
    """The result of `take_steps` for a small network with other `Ops`."""
    make = NetworkSpec.make

    def make_with_forms(self, *args, **options):
        model = make(self, *args, **options)
        return model.clone(ops=dataclasses.replace(model.ops, **forms))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkSpec, "make", make_with_forms)
        return steps.take_steps(steps.make_spec(NETWORK, mode), mode)


@pytest.fixture(scope="module")
def reference():
    return take_steps(limits.HIGHEST)


@pytest.fixture(scope="module")
def rounded():
    return take_steps(limits.BFLOAT16)


@jax.custom_vjp
def pool_with_shared_gradient(x):
    """Max-pooling whose gradient is that of average pooling."""
    return max_pool.max_pool(x)


def _shared(shape, gradient):
    average = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "VALID") / 9
    return jax.vjp(average, jnp.zeros(shape, gradient.dtype))[1](gradient)


pool_with_shared_gradient.defvjp(lambda x: (max_pool.max_pool(x), x), lambda x, gradient: _shared(x.shape, gradient))


def convolve_without_last_row(x, kernel, stride, padding, groups=1):
    return convolution.convolve(x, kernel.at[-1].set(0), stride, padding, groups)


def convolve_plainly(x, kernel, stride, padding, groups=1):
    return convolution.convolve_plainly(x, kernel, stride, padding, groups)


@pytest.mark.slow
def test_another_correct_program_is_within_the_tightest_limit(reference, rounded):
    found = take_steps(limits.HIGHEST, convolve=convolve_plainly, max_pool=max_pool.max_pool_by_windows)
    passed, detail = limits.compare(found, reference, rounded, limits.LIMITS[limits.HIGHEST])
    assert passed, detail
    assert "16 parameters" in detail and "(limit 0.0001)" in detail
    assert not np.array_equal(found["conv1/kernel"], reference["conv1/kernel"])  # it is another program
    assert limits.compare(rounded, reference, rounded, limits.LIMITS[limits.BFLOAT16])[0]
    assert not limits.compare(rounded, reference, rounded, limits.LIMITS[limits.HIGHEST])[0]  # in place of float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forms", "where"),
    [({"max_pool": pool_with_shared_gradient}, "conv"), ({"convolve": convolve_without_last_row}, "")],
    ids=["gradient of pooling", "convolution"],
)
def test_an_error_is_beyond_the_limits_of_all_precisions(reference, rounded, forms, where):
    found = take_steps(limits.HIGHEST, **forms)
    for mode, limit in limits.LIMITS.items():
        passed, detail = limits.compare(found, reference, rounded, limit)
        assert not passed, (mode, detail)
        assert f"16 parameters: {where}" in detail


def made_up(**changes):
    rng = np.random.default_rng(0)
    gradients = {"a/kernel": rng.normal(size=(5, 3, 4)), "a/bias": rng.normal(size=(5, 4))}
    return {"losses": rng.uniform(1, 2, (5, 10))} | gradients | changes


LIMIT = limits.Limit(gradient=1e-3, rounding=0.0, loss=1e-3)


def test_one_batch_of_five_may_differ_and_three_may_not():
    for name in ("losses", "a/bias"):
        one, three = (made_up()[name].copy() for _ in range(2))
        one[0] *= 2
        three[:3] *= 2
        assert limits.compare(made_up(**{name: one}), made_up(), made_up(), LIMIT)[0], name
        assert not limits.compare(made_up(**{name: three}), made_up(), made_up(), LIMIT)[0], name


def test_numbers_that_are_not_finite_and_missing_parameters_are_errors():
    nan = {"a/bias": np.full((5, 4), np.nan)}
    for found, rounded in ((made_up(**nan), made_up()), (made_up(), made_up(**nan))):
        passed, detail = limits.compare(found, made_up(), rounded, LIMIT._replace(rounding=1.0))
        assert not passed
        assert "a/bias" in detail
    assert not limits.compare(made_up(losses=np.full((5, 10), np.nan)), made_up(), made_up(), LIMIT)[0]
    assert limits.compare(made_up(**{"b/bias": np.ones((5, 2))}), made_up(), made_up(), LIMIT) == (
        False, "the parameters differ: b/bias",
    )  # fmt: skip


class Pretended:
    """A stand-in for `Children`: writes given results of the steps of both sides, and raises `problem`."""

    def __init__(self, scratch, results, problem=None):
        self.scratch, self._results, self._problem = scratch, results, problem

    def folder(self, name):
        (self.scratch / name).mkdir()
        return self.scratch / name

    def together(self, commands):
        for (side, mode), result in self._results.items():
            folder = self.scratch / "steps" / side
            if isinstance(result, str):
                (folder / f"{mode}.error").write_text(result)
            else:
                np.savez(folder / f"{mode}.npz", **result, seconds=1.5)
        if self._problem:
            raise self._problem


CPU_RESULTS = {("cpu", mode): made_up() for mode in (limits.HIGHEST, limits.BFLOAT16)}


def test_a_precision_whose_step_raises_fails_and_the_others_are_compared(tmp_path):
    results = CPU_RESULTS | {("device", mode): made_up() for mode in limits.MODES}
    results["device", limits.DEFAULT] = "ValueError: no such algorithm"
    found = list(correctness.steps(NETWORK, Pretended(tmp_path, results)))
    assert [finding.passed for finding in found] == [True, False, True]
    assert found[0].seconds == 1.5
    assert found[1].detail == "device, float32 by default: ValueError: no such algorithm"


def test_what_was_done_before_the_time_was_up_is_compared(tmp_path):
    results = CPU_RESULTS | {("device", limits.HIGHEST): made_up()}
    children = Pretended(tmp_path, results, NotDone("the time was up"))
    report = Report(tmp_path / "out.json", {}, ["one", "two", "three"])
    Job(["one", "two", "three"], lambda children: correctness.steps(NETWORK, children)).run(children, report)
    result = json.loads((tmp_path / "out.json").read_text())
    assert [check["name"] for check in result["checks"]] == ["one"]
    assert result["left_out"] == {"two": "the time was up", "three": "the time was up"}


def test_the_result_is_written_after_each_check_and_a_check_that_raises_has_failed(tmp_path):
    out, seen = tmp_path / "out.json", []
    report = Report(out, {"cpu": "a CPU"}, ["one", "two", "three", "four"])
    read = lambda: seen.append(json.loads(out.read_text())) or seen[-1]

    def find(children):
        left_out = dict.fromkeys(["one", "two", "three", "four"], correctness.UNFINISHED)
        assert read() == {"passed": False, "checks": [], "left_out": left_out, "machine": {"cpu": "a CPU"}}
        yield Finding(True, "as it should be")
        assert read()["passed"]
        assert [(c["name"], c["passed"], c["detail"]) for c in seen[-1]["checks"]] == [("one", True, "as it should be")]
        raise ValueError("the reason")

    Job(["one", "two", "three"], find).run(None, report)
    Job(["four"], lambda children: iter([Finding(True, "fine", 3.0)])).run(None, report)
    report.end(["a GPU"])
    result = read()
    assert not result["passed"]
    assert report.failed == ["two"]
    assert [check["name"] for check in result["checks"]] == ["one", "two", "four"]
    assert result["checks"][1]["detail"] == "ValueError: the reason"
    assert result["checks"][2]["seconds"] == 3.0
    assert result["left_out"] == {"three": "it needs 'two', which failed"}
    assert result["machine"] == {"cpu": "a CPU", "devices": ["a GPU"]}


def test_failed_tests_are_named():
    class Failing:
        def run(self, name, command, **variables):
            output = "..F\nFAILED tests/a.py::test_b - assert 1 == 2\n1 failed, 2 passed in 3 s\n"
            raise ProcessFailed("tests: exit code 1: 1 failed", output)

    (finding,) = correctness.tests(Failing())
    assert finding == Finding(False, "tests: exit code 1: 1 failed; FAILED tests/a.py::test_b")


@pytest.fixture
def children(tmp_path):
    return Children(tmp_path, timing.Limit(0))


def test_processes_run_at_the_same_time_and_their_failures_are_reported(children):
    wait = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    files = [str(children.scratch / name) for name in "ab"]
    order = {"one": files, "two": files[::-1]}  # each waits for the other
    children.together({name: ([sys.executable, "-c", wait, *files], {}) for name, files in order.items()})
    fail = "import os; print(os.environ['WHY']); raise SystemExit(4)"
    with pytest.raises(ProcessFailed, match="broken: exit code 4: the reason"):
        children.run("broken", [sys.executable, "-c", fail], WHY="the reason")
    stopped = Children(children.folder("stopped"), timing.Limit(0), lambda: "SIGTERM")
    with pytest.raises(NotDone, match="stopped by SIGTERM"):
        stopped.run("late", [sys.executable, "-c", ""])


def running(text):
    """The command lines of running processes that contain a text."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if text in line and "benchmarks/processes.py" not in line]


def command(tmp_path, *flags):
    """Starts `python -m benchmarks.correctness`, with its scratch folder in tmp_path/scratch."""
    (tmp_path / "scratch").mkdir()
    arguments = [sys.executable, "-m", "benchmarks.correctness", f"--json={tmp_path / 'out.json'}", *flags]
    env = environment() | {"TMPDIR": str(tmp_path / "scratch")}
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def assert_nothing_left(tmp_path):
    assert not running(str(tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.slow
def test_the_command_ends_in_time_and_says_what_it_left_out(tmp_path):
    start = time.monotonic()
    process = command(tmp_path, "--seconds=12", "--only=digits", f"--keep={tmp_path / 'kept'}")
    said, _ = process.communicate(timeout=120)
    assert time.monotonic() - start < 13
    assert process.returncode == 0, said
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["checks"] == []
    assert not result["passed"]
    assert len(result["left_out"]) == 3
    assert all("was not done after" in why or "s were left before" in why for why in result["left_out"].values()), result
    assert result["machine"]["cpu"]
    assert "0 passed, 0 failed, 3 left out" in said
    assert list((tmp_path / "kept/logs").glob("packing*.log"))
    assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_a_signal_ends_all_processes(tmp_path):
    process = command(tmp_path, "--seconds=100", "--only=ten steps, small stem")
    while not running(f"{tmp_path / 'scratch'}") and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "Stopped by SIGTERM" in said
    assert set(json.loads((tmp_path / "out.json").read_text())["left_out"].values()) == {"stopped by SIGTERM"}
    assert_nothing_left(tmp_path)


def open_pool(config):
    (spec,) = configs.resolve(config, pathlib.Path("/nowhere"))
    return pool_builder.open_pool(spec.data, stored_size=spec.images.stored_size, seed=spec.seed)


def test_packed_digits_are_those_of_the_config_and_of_no_other(tmp_path):
    packed_digits.write_digits(tmp_path)
    config = digits.get_config()
    embedded = open_pool(config)
    config.data.packed = str(tmp_path)
    pool = open_pool(config)
    assert pool.counts() == embedded.counts()
    rows = np.arange(len(pool))
    assert pool.ids(rows) == embedded.ids(rows)
    images = pool.sources[0].fetch(pool.record)
    assert images.shape == (1797, 28, 28, 3)
    assert images.min() == 0 and images.max() > 240
    config.data.negatives.classes = ("5",)
    with pytest.raises(UserError, match="data.negatives.classes"):
        open_pool(config)


def metrics(accuracy, seen, unseen=0.9):
    value = lambda v: {"auroc": {"value": v}}
    return {"known": {"accuracy": {"value": accuracy}},
            "open_set": {"seen_negatives": value(seen), "unseen_unknowns": value(unseen)}}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "accuracy", "seen", "passed"),
    [("Resuming at step 50.\n", 0.95, 0.99, True), ("Resuming at step 50.\n", 0.85, 0.99, False),
     ("Resuming at step 50.\n", 0.95, 0.9, False), ("Resuming at step 300.\n", 0.95, 0.99, False), ("", 0.95, 0.99, False)],
)  # fmt: skip
def test_a_resumed_run_went_on_and_learned(said, accuracy, seen, passed):
    finding = correctness_runs.judge_run(f"first\n{said}last", metrics(accuracy, seen))
    assert finding.passed == passed
    assert ("resumes" if not said else "(at least 0.9)") in finding.detail


def write_run(folder, p_none, decisions="0", accuracy=0.95, rate=1.0, loss=0.5):
    folder.mkdir()
    rows = [f"{i},{decision},{p}" for i, (decision, p) in enumerate(zip(decisions, p_none, strict=True))]
    (folder / "scores.csv").write_text("\n".join(["id,decision,p_none", *rows]) + "\n")
    (folder / "metrics.json").write_text(json.dumps(metrics(accuracy, 0.99)))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 10, "loss": loss, "images_per_second": rate}) + "\n")
    return folder


def test_evaluations_agree_within_their_limits(tmp_path):
    p_none, decisions = np.full(200, 0.5), "0" * 200
    one = write_run(tmp_path / "one", p_none, decisions)
    others = {
        "one decision": (True, {"p_none": p_none + 0.01, "decisions": "1" + decisions[1:]}),
        "three decisions": (False, {"p_none": p_none, "decisions": "111" + decisions[3:]}),
        "p_none": (False, {"p_none": p_none + 0.05, "decisions": decisions}),
        "accuracy": (False, {"p_none": p_none, "decisions": decisions, "accuracy": 0.93}),
        "images": (False, {"p_none": p_none[1:], "decisions": decisions[1:]}),
    }
    for name, (passed, run) in others.items():
        finding = correctness_runs.compare_evaluations(one, write_run(tmp_path / name, **run))
        assert finding.passed == passed, (name, finding.detail)


def test_files_of_equal_runs_are_equal_but_for_the_images_per_second(tmp_path):
    one = write_run(tmp_path / "one", [0.5])
    assert correctness_runs.compare_files(one, write_run(tmp_path / "faster", [0.5], rate=2.0)).passed
    finding = correctness_runs.compare_files(one, write_run(tmp_path / "other", [0.5000001], loss=0.51))
    assert not finding.passed
    assert finding.detail == "different: scores.csv, metrics.jsonl; first at step 10: losses 0.5 and 0.51"


def test_a_run_is_killed_once_it_has_a_checkpoint(tmp_path):
    write = f"import pathlib, time; f = pathlib.Path({str(tmp_path)!r}, 'checkpoints/50'); f.mkdir(parents=True)\n"
    write += "(f / '_CHECKPOINT_METADATA').touch(); time.sleep(60)"
    start = time.monotonic()
    assert correctness_runs.kill_after_checkpoint(tmp_path, [sys.executable, "-c", write]) == 0
    assert time.monotonic() - start < 30
    for code in (0, 3):
        command = [sys.executable, "-c", f"raise SystemExit({code})"]
        assert correctness_runs.kill_after_checkpoint(tmp_path / "none", command) == (code or 1)
