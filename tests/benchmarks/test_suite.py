"""The suite runs the jobs that can run, names the others, continues after failures, and writes its files."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from pair import gone, numbers
from small_run import ROOT, SMALL, run

from benchmarks import clock, figure, job_rows, jobs, processes, result_files, results, suite, synthetic, timing
from openset_jax.data import pools, sources
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.errors import UserError


def setting(**changes):
    values = {"platform": "cpu", "config": ("--config=configs/folder.py",), "scratch": pathlib.Path("/scratch"),
              "photos": "photos", "peer_python": "python"}  # fmt: skip
    return jobs.Setting(**values | changes)


def names(found, *, left_out=False):
    return [job.name for job in found if bool(job.left_out) == left_out]


@pytest.mark.parametrize(("platform", "order"), [("cpu", jobs.CPU_ORDER), ("gpu", jobs.ACCELERATOR_ORDER)])
def test_everything_runs_in_order_where_everything_is_there(platform, order):
    found = jobs.jobs(setting(platform=platform))
    assert names(found) == list(order)
    assert len({jobs.file_name(job.name) for job in found}) == len(found)
    assert all(
        "--peer_python=python" in job.command for job in found if job.name.startswith(("step", "forward", "streaming"))
    )
    assert sum(job.share for job in found) == jobs.TOTAL_SHARE
    assert [(job.share, job.least) for job in found] == list(order.values())


def test_the_first_jobs_are_the_same_on_all_platforms():
    first = [
        [(job.name, job.share, job.least) for job in jobs.jobs(setting(platform=p))[: jobs.OPENING]] for p in ("", "gpu")
    ]
    assert first[0] == first[1]


def test_the_order_of_an_accelerator_is_that_of_importance():
    first = (jobs.CORRECTNESS, jobs.RATES, jobs.STEP, jobs.PACKED, jobs.TRAINING, jobs.BEST_BATCH, jobs.EPOCH, jobs.LAYERS)
    assert tuple(jobs.ACCELERATOR_ORDER)[: len(first)] == first


def test_streaming_is_left_out_without_tensorflow_and_photographs_without_a_folder():
    without = jobs.jobs(setting(tensorflow=False))
    photos = {jobs.STREAMING, jobs.CLASSIFYING}
    assert set(names(without, left_out=True)) == photos | {jobs.STREAMED_LOOP}
    assert all("TensorFlow" in job.left_out for job in without if job.left_out)
    assert set(names(jobs.jobs(setting(photos="")), left_out=True)) == photos


def test_without_pytorch_nobody_asks_for_it():
    assert not any("--peer" in argument for job in jobs.jobs(setting(peer_python="")) for argument in job.command)


def test_chosen_jobs_bring_what_they_need_and_no_job_that_is_left_out_does():
    assert names(jobs.chosen(jobs.jobs(setting()), "memory")) == [jobs.PACKED, jobs.MEMORY]
    without = jobs.jobs(setting(tensorflow=False))
    assert [job.name for job in jobs.chosen(without, "streaming packed")] == [jobs.STREAMED_LOOP]


def test_packed_images_are_done_when_their_index_is_there(tmp_path):
    packed = next(job for job in jobs.jobs(setting(photos="", scratch=tmp_path)) if job.name == jobs.PACKED)
    with pytest.raises(OSError, match="index.json"):
        packed.read(tmp_path / jobs.file_name(packed.name))
    synthetic.write_packed(tmp_path / "packed", images=40, size=8)
    assert packed.read(tmp_path / jobs.file_name(packed.name)) == {"images": 40}


def test_fewer_packed_images_where_there_is_a_limit():
    packed = lambda **changes: next(job for job in jobs.jobs(setting(photos="", **changes)) if job.name == jobs.PACKED)
    assert "--images=140000" in packed(platform="gpu").command
    assert "--images=8192" in packed(platform="gpu", timed=True).command
    assert "--images=7" in packed(platform="gpu", timed=True, images=7).command


@pytest.mark.parametrize(("platform", "dtype", "batch"), [("cpu", [], "64"), ("gpu", [], "1024")])
def test_defaults_suit_the_platform_and_fields_that_are_given_come_last(platform, dtype, batch):
    found = jobs.jobs(setting(platform=platform, config=("--config=mine.py", "--config.batch_size=7")))
    command = next(job for job in found if job.name == jobs.STEP).command
    assert [a.partition("=")[2] for a in command if a.startswith("--config.model.dtype")] == dtype
    assert [a.partition("=")[2] for a in command if a.startswith("--config.batch_size")] == [batch, "7"]
    assert (jobs.BEST_BATCH in names(found)) == (platform == "gpu")


@pytest.mark.parametrize(
    ("input_alone", "together", "which"), [(500, 98, "step"), (50, 49, "input"), (500, 70, "host"), (50, 30, "host")]
)
def test_what_holds_the_loop_back(input_alone, together, which):
    rates = {"input_alone": input_alone, "step_alone": 100, "together": together}
    assert job_rows.limit({name: {"median": rate} for name, rate in rates.items()}) == which


def test_a_runs_rates_are_those_between_its_first_line_and_its_last(tmp_path):
    lines = [{"step": i, "images_per_second": rate} for i, rate in enumerate((1.0, 10.0, 30.0, 20.0, 99.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = job_rows.read_run(tmp_path)
    assert result["rates"][timing.OURS]["rounds"] == [10.0, 30.0, 20.0]
    rows = job_rows.of_rates_beside("step", "bare step")(result, {"step": {"rates": {timing.OURS: timing.summary([40.0])}}})
    assert (rows[0]["ours"]["median"], rows[0]["other"]["median"], rows[0]["other_name"]) == (20.0, 40.0, "bare step")


def test_a_run_without_a_window_after_compilation_has_no_rate(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(2 * '{"step": 1, "images_per_second": 1.0}\n')
    with pytest.raises(ValueError, match="no window"):
        job_rows.read_run(tmp_path)


def test_words_of_the_config_begin_with_its_file():
    words = ("--out=x", "--config.batch_size=16", "--config=mine.py")
    assert jobs.config_words(words) == ("--config=mine.py", "--config.batch_size=16")
    assert jobs.config_words(["--config.seed=1"]) == ("--config=configs/folder.py", "--config.seed=1")
    with pytest.raises(UserError, match="write --config=VALUE"):
        jobs.config_words(["--config", "mine.py"])


def test_synthetic_packed_images_are_a_pool(tmp_path):
    synthetic.write_packed(tmp_path, images=400, size=8)
    source = sources.open_source(f"packed:{tmp_path}")
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES}, stored_size=source.array.shape[0])
    assert pool.num_classes == synthetic.CLASSES
    rows = pool.training_rows()
    assert sum(map(len, rows)) == 400 * 8 // 10
    assert len(rows[-1]) == 400 * 8 // 10 // 2
    before = (tmp_path / "images.npy").stat().st_mtime_ns
    synthetic.write_packed(tmp_path, images=400, size=8)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == before
    assert np.load(tmp_path / "images.npy", mmap_mode="r").shape == (400, 8, 8, 3)


def test_images_that_do_not_fit_the_disk_are_not_begun(tmp_path):
    with pytest.raises(UserError, match="--images"):
        synthetic.write_packed(tmp_path, images=10**12, size=256)
    assert not (tmp_path / "images.npy").exists()


def test_the_figure_is_drawn_with_and_without_somebody_beside(tmp_path):
    rates = timing.summary([90.0, 100.0, 130.0])
    rows = [job_rows.row("step: small", rates, timing.summary([5.0, 6.0]), "PyTorch"), job_rows.row("loader", rates)]
    figure.draw(tmp_path / "figure.png", rows, "a machine")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


RESULT = "import json, sys; json.dump({result}, open(sys.argv[1].removeprefix('--json='), 'w'))"
RATES = RESULT.replace("{result}", "{'machine': {'devices': ['cpu']}, 'platform': 'cpu', 'count': 1}")


def fake(name, code, **more):
    """A job that runs this code, whose argv[1] is --json=FILE; the "rate" of its result becomes its row."""
    rows = lambda result, _: [job_rows.row("", timing.summary([result["rate"]]))]
    return jobs.Job(name, ["-c", code], rows, **{"share": 1.0} | more)


def run_fakes(monkeypatch, tmp_path, found, minutes=0.0):
    """Runs a suite of these jobs, after one that finds the platform; returns (whether it passed, its results.json)."""
    opening = [
        jobs.Job("none", [], job_rows.no_rows, left_out="a test"),
        jobs.Job(jobs.RATES, ["-c", RATES], job_rows.no_rows, least=3),
    ]
    monkeypatch.setattr(jobs, "jobs", lambda setting: [*opening, *found])
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    (scratch / "logs").mkdir(parents=True)
    out.mkdir(exist_ok=True)
    with processes.Processes(scratch, environment=suite.environment(scratch)) as running:
        ran = suite.Suite(setting(platform="", scratch=scratch), clock.Clock(minutes), running, out)
        ran.run_all("", "")
    assert not scratch.exists()
    result = json.loads((out / "results.json").read_text())
    assert (out / "results.md").read_text() == results.section(result)
    assert {path.name for path in out.iterdir()} <= set(result_files.FILES)
    return ran.passed, result


def rate(number):
    return RESULT.replace("{result}", repr({"rate": number}))


@pytest.mark.slow
def test_a_job_over_its_limit_is_left_out_and_named_and_the_rest_goes_on(monkeypatch, tmp_path):
    partial = rate(7.0) + "; import time; time.sleep(60)"
    slow = [fake("slow", "import time; time.sleep(60)", share=2), fake("half", partial, share=2)]
    found = [fake("first", rate(5.0)), *slow, fake("large", rate(1.0), least=1_000), fake("last", rate(9.0))]
    passed, result = run_fakes(monkeypatch, tmp_path, found, minutes=(9 + clock.END_SECONDS) / 60)
    assert passed and result["complete"]
    assert [line["name"] for line in result["table"]] == ["first", "half", "last"]
    left_out = result["left_out"]
    assert left_out["slow"].startswith("not done after ") and left_out["slow"].endswith(" s")
    assert left_out["half"].endswith("s; a part of it was measured")
    assert left_out["large"].startswith("it needs 1000 s, and ")
    assert [job["name"] for job in result["jobs"]] == [jobs.RATES, "first", "slow", "half", "last"]
    assert all(job["seconds"] < job["limit"] + 3 for job in result["jobs"])


def test_a_job_that_fails_is_reported_with_its_last_line_and_what_needs_it_is_left_out(monkeypatch, tmp_path):
    found = [
        fake("bad", "print('one'); print('the reason'); raise SystemExit(4)"),
        fake("silent", "pass"),
        fake("after", rate(3.0), needs="bad"),
        fake("last", rate(2.0)),
    ]
    passed, result = run_fakes(monkeypatch, tmp_path, found)
    assert not passed
    assert list(result["failed"]) == ["bad", "silent"]
    assert "exit code 4: the reason" in result["failed"]["bad"]
    assert result["left_out"]["after"] == "it needs bad"
    assert [line["name"] for line in result["table"]] == ["last"]
    with tarfile.open(tmp_path / "out/logs.tar.gz") as logs:
        assert logs.extractfile("logs/bad.log").read() == b"one\nthe reason\n"


def test_a_check_that_fails_is_shown_and_fails_the_suite(monkeypatch, tmp_path):
    checks = [{"name": "a", "passed": True, "detail": "", "seconds": 1.0},
              {"name": "b", "passed": False, "detail": "2 is not 3", "seconds": 1.0}]  # fmt: skip
    result = {"checks": checks, "left_out": {"c": "no time"}, "passed": False}
    code = RESULT.replace("{result}", repr(result)) + "; raise SystemExit(1)"
    job = jobs.Job(jobs.CORRECTNESS, ["-c", code], job_rows.no_rows, may_fail=True)
    passed, result = run_fakes(monkeypatch, tmp_path, [job])
    assert not passed and not result["failed"]
    assert result["left_out"]["correctness: c"] == "no time"
    text = (tmp_path / "out/results.md").read_text()
    assert "Correctness: 1 of 2 checks passed; 1 not done." in text and "- **FAILED**: b: 2 is not 3" in text


@pytest.mark.parametrize(
    ("ending", "failed"), [("raise SystemExit(1)", True), pytest.param("time.sleep(60)", False, marks=pytest.mark.slow)]
)
def test_checks_that_do_not_end_have_not_failed_but_a_crash_has(monkeypatch, tmp_path, ending, failed):
    code = RESULT.replace("{result}", repr({"checks": [], "left_out": {}, "passed": False})) + f"; import time; {ending}"
    job = jobs.Job(jobs.CORRECTNESS, ["-c", code], job_rows.no_rows, may_fail=True, share=1)
    passed, result = run_fakes(monkeypatch, tmp_path, [job], minutes=(5 + clock.END_SECONDS) / 60)
    assert passed != failed
    assert list(result["failed"] if failed else result["left_out"])[-1] == jobs.CORRECTNESS


def test_the_results_are_written_after_every_job(monkeypatch, tmp_path):
    out, seen = tmp_path / "out/results.json", tmp_path / "seen.json"
    look = f"import shutil; shutil.copy({str(out)!r}, {str(seen)!r}); " + rate(2.0)
    run_fakes(monkeypatch, tmp_path, [fake("first", rate(1.0)), fake("second", look), fake("third", rate(3.0))])
    result = json.loads(seen.read_text())
    assert [line["name"] for line in result["table"]] == ["first"]
    assert result["pending"] == ["second", "third"] and not result["complete"]
    assert "Still to come: second, third." in results.section(result)


def test_old_results_are_removed(monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/throughput.png").write_text("old")
    run_fakes(monkeypatch, tmp_path, [])
    assert not (tmp_path / "out/throughput.png").exists()


KILLED = """
from pair import PAIR
from benchmarks import job_rows, jobs, suite
from openset_jax import cli

def fakes(setting):
    fake = lambda name, code, **more: jobs.Job(name, ["-c", code], job_rows.no_rows, **more)
    slow = f"import sys; sys.stdout = open({PIDS!r}, 'w')" + PAIR
    opening = [fake("none", "", left_out="a test"), fake(jobs.RATES, RATES, least=5)]
    return [*opening, fake("slow", slow, share=1), fake("last", "")]

jobs.jobs = fakes
cli.run(suite.main, suite.define_flags)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_suite_that_is_killed_leaves_its_results_and_no_process(tmp_path, number):
    script, pids, out, scratch = tmp_path / "suite_of_fakes.py", tmp_path / "pids", tmp_path / "out", tmp_path / "tmp"
    scratch.mkdir()
    script.write_text(f"PIDS, RATES = {str(pids)!r}, {RATES!r}\n" + KILLED)
    env = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen([sys.executable, str(script), f"--out={out}", "--minutes=1"], cwd=ROOT, env=env)
    started = numbers(pids)
    process.send_signal(number)
    assert process.wait(timeout=20) == (3 if number == signal.SIGTERM else -number)
    assert all(map(gone, started))
    end = time.monotonic() + 10
    while list(scratch.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)
    result = json.loads((out / "results.json").read_text())
    assert not result["complete"] and [job["name"] for job in result["jobs"]][:1] == [jobs.RATES]
    assert (out / "results.md").read_text() == results.section(result)
    assert {path.name for path in out.iterdir()} <= set(result_files.FILES)
    if number == signal.SIGTERM:
        assert result["left_out"]["slow"].startswith("stopped by SIGTERM after ")
        assert result["left_out"]["last"] == "stopped by SIGTERM"
    else:
        assert result["pending"] == ["slow", "last"]


@pytest.mark.slow
def test_the_suite_writes_its_files_and_goes_on_after_a_failure(tmp_path):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    fields += ["--config.optimizer.schedule=no_such"]  # an error for the training loop; drawing does not read it
    done = run(
        [sys.executable, "-m", "benchmarks.suite", f"--out={tmp_path}", "--config=configs/digits.py", *fields, "--quick",
         "--only=ing", "--images=400"]
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert [line["name"].partition(":")[0] for line in result["table"]] == [jobs.DRAWING]
    streamed = {jobs.STREAMED_LOOP} if importlib.util.find_spec("tensorflow") is None else set()
    assert result["left_out"].keys() == {jobs.STREAMING, jobs.CLASSIFYING} | streamed
    assert set(result["failed"]) == {jobs.STREAMED_LOOP, jobs.RESIDENT_LOOP} - streamed
    assert all("no_such" in why for why in result["failed"].values())
    assert (result["roofline"]["platform"], result["machine"]["devices"]) == ("cpu", ["cpu"])
    text = (tmp_path / "results.md").read_text()
    assert "| drawing batches" in text and f"Left out: {jobs.STREAMING}; " in text
    assert "| drawing batches" not in done.stdout and "drawing batches" in done.stdout


@pytest.mark.slow
def test_a_suite_with_a_limit_ends_in_time(tmp_path):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    start = time.monotonic()
    command = [
        "benchmarks.suite",
        f"--out={tmp_path}",
        "--minutes=0.3",
        "--config=configs/digits.py",
        *fields,
        "--only=drawing",
    ]
    done = run([sys.executable, "-m", *command])
    assert time.monotonic() - start < 0.3 * 60 + 15
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["complete"] and result["minutes"] == 0.3
    assert [job["name"] for job in result["jobs"]] == [jobs.DRAWING]
    assert {path.name for path in tmp_path.iterdir()} <= set(result_files.FILES)
