"""The suite runs what can run, says what cannot, goes on after failures, and writes its files."""

import json
import pathlib
import sys

import numpy as np
import pytest
from small_run import SMALL, run

from benchmarks import common, figure, jobs, suite, synthetic
from openset_jax.data import pools, sources
from openset_jax.data.selections import Selection, build_pool
from openset_jax.errors import UserError


def setting(**changes):
    values = {"platform": "cpu", "config": ("--config=configs/folder.py",), "out": pathlib.Path("/out"), "photos": "photos",
              "packed": "/out/packed", "peer_python": "python"}  # fmt: skip
    return jobs.Setting(**values | changes)


def names(found, *, left_out=False):
    return [job.name for job in found if bool(job.left_out) == left_out]


def test_everything_runs_where_everything_is_there():
    found = jobs.jobs(setting())
    assert not names(found, left_out=True)
    assert len({job.file for job in found}) == len(found)
    assert all(
        "--peer_python=python" in job.command for job in found if job.name.startswith(("step", "forward", "streaming"))
    )


def test_streaming_is_left_out_without_tensorflow_and_photographs_without_a_folder():
    without = jobs.jobs(setting(tensorflow=False))
    photos = ["streaming photographs", "classifying photographs"]
    assert names(without, left_out=True) == [*photos, "training loop, streaming packed images"]
    assert all("TensorFlow" in job.left_out for job in without if job.left_out)
    assert names(jobs.jobs(setting(photos="")), left_out=True) == photos


def test_without_pytorch_nobody_asks_for_it():
    assert not any("--peer" in argument for job in jobs.jobs(setting(peer_python="")) for argument in job.command)


@pytest.mark.parametrize(("platform", "dtype", "batch"), [("cpu", [], "64"), ("gpu", ["bfloat16"], "1024")])
def test_defaults_suit_the_platform_and_fields_that_are_given_come_last(platform, dtype, batch):
    command = jobs.jobs(setting(platform=platform, config=("--config=mine.py", "--config.batch_size=7")))[0].command
    assert [a.partition("=")[2] for a in command if a.startswith("--config.model.dtype")] == dtype
    assert [a.partition("=")[2] for a in command if a.startswith("--config.batch_size")] == [batch, "7"]
    assert ("step at the best batch" in names(jobs.jobs(setting(platform=platform)))) == (platform == "gpu")


@pytest.mark.parametrize(
    ("input_alone", "together", "which"), [(500, 98, "step"), (50, 49, "input"), (500, 70, "host"), (50, 30, "host")]
)
def test_what_holds_the_loop_back(input_alone, together, which):
    rates = {"input_alone": input_alone, "step_alone": 100, "together": together}
    assert jobs.limit({name: {"median": rate} for name, rate in rates.items()}) == which


def test_a_runs_rates_are_those_between_its_first_line_and_its_last(tmp_path):
    lines = [{"step": i, "images_per_second": rate} for i, rate in enumerate((1.0, 10.0, 30.0, 20.0, 99.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = jobs.read_run(tmp_path)
    assert result["rates"][common.OURS]["rounds"] == [10.0, 30.0, 20.0]
    rows = jobs.against("step", "bare step")(result, {"step": {"rates": {common.OURS: common.summary([40.0])}}})
    assert (rows[0]["ours"]["median"], rows[0]["other"]["median"], rows[0]["other_name"]) == (20.0, 40.0, "bare step")


def test_synthetic_packed_images_are_a_pool(tmp_path):
    synthetic.write_packed(tmp_path, images=400, size=8)
    source = sources.open_source(f"packed:{tmp_path}")
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES})
    assert pool.num_classes == synthetic.CLASSES
    members = pool.training_members()
    assert sum(map(len, members)) == 400 * 8 // 10
    assert len(members[-1]) == 400 * 8 // 10 // 2
    before = (tmp_path / "images.npy").stat().st_mtime_ns
    synthetic.write_packed(tmp_path, images=400, size=8)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == before
    assert np.load(tmp_path / "images.npy", mmap_mode="r").shape == (400, 8, 8, 3)


def test_images_that_do_not_fit_the_disk_are_not_begun(tmp_path):
    with pytest.raises(UserError, match="--images"):
        synthetic.write_packed(tmp_path, images=10**12, size=256)
    assert not (tmp_path / "images.npy").exists()


def test_a_process_that_fails_is_reported_with_its_last_line(tmp_path):
    result, failure = suite.run(["-c", "print('one'); print('the reason'); raise SystemExit(4)"], tmp_path / "job")
    assert result == {}
    assert "exit code 4" in failure and "the reason" in failure
    assert (tmp_path / "job.log").read_text().startswith("one")


def test_the_figure_is_drawn_with_and_without_somebody_beside(tmp_path):
    rates = common.summary([90.0, 100.0, 130.0])
    rows = [jobs.row("step: small", rates, common.summary([5.0, 6.0]), "PyTorch"), jobs.row("loader", rates)]
    figure.draw(tmp_path / "figure.png", rows, "a machine")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_suite_writes_its_files_and_goes_on_after_a_failure(tmp_path):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    fields += ["--config.optimizer.schedule=no_such"]  # which the training loop cannot run with; drawing does not need it
    done = run(
        [sys.executable, "-m", "benchmarks.suite", f"--out={tmp_path}", "--config=configs/digits.py", *fields, "--quick",
         "--only=ing", "--images=400", "--size=16"]
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert [line["name"].partition(":")[0] for line in result["table"]] == ["drawing batches"]
    photos = {"streaming photographs", "classifying photographs"}
    assert result["left_out"].keys() == photos | ({common.PEER} if result["peer"] is None else set())
    assert list(result["failed"]) == ["training loop, streaming packed images", "training loop, resident images"]
    assert all("no_such" in why for why in result["failed"].values())
    assert {"matrix_rate_float32", "matrix_rate_bfloat16", "copy_rate"} <= result["roofline"].keys()
    text = (tmp_path / "results.md").read_text()
    assert "| drawing batches" in text and "Left out: streaming photographs: no --photos" in text
    assert "| drawing batches" not in done.stdout and "drawing batches" in done.stdout
