"""Stopping and going on changes nothing, bit by bit: by request, by SIGTERM, and by SIGKILL."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest
from small_run import ROOT, assert_same_run, command, environment, lines, run, small_config

from openset_jax.errors import Stopped
from openset_jax.train import train
from openset_jax.training import checkpoints


def stop_at(step):
    """Asked once before each step: says stop before that one."""
    asked = iter(range(10**6))
    return lambda: "the test" if next(asked) >= step else ""


@pytest.mark.parametrize("stops", [(1,), (2,), (4,), (3, 4, 4), (11,)])
def test_stopped_at_any_step_and_resumed_it_ends_the_same(tmp_path, uninterrupted, stops):
    # 2 is a logging step; 4 evaluates, and the evaluation comes when resumed; 3 has a checkpoint anyway
    for stop in stops:
        with pytest.raises(Stopped, match="at step"):
            train(small_config(), tmp_path, stop_at(stop))
    train(small_config(), tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}
    train(small_config(), tmp_path)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == before
    assert_same_run(tmp_path, uninterrupted)


def saved_steps(workdir):
    return [int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()]


def wait_for_checkpoint(workdir, process, after):
    deadline = time.monotonic() + 200
    while max(saved_steps(workdir), default=0) <= after:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(workdir, **changes):
    return subprocess.Popen(
        command("train", f"--workdir={workdir}", **changes),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sigterm_saves_and_exits_with_3_and_the_next_start_goes_on(tmp_path):
    changes = {"steps": 400, "eval.every": 150, "checkpoint.every": 390}
    process = start(tmp_path, **changes)
    while not (tmp_path / "metrics.jsonl").exists() or len(lines(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error
    assert "Stopped by SIGTERM at step" in error
    (saved,) = saved_steps(tmp_path)
    assert 0 < saved < 400
    done = run(command("train", f"--workdir={tmp_path}", **changes))
    assert done.returncode == 0, done.stderr
    assert f"Resuming at step {saved}." in done.stdout
    whole = tmp_path / "whole"
    assert run(command("train", f"--workdir={whole}", **changes)).returncode == 0
    assert_same_run(tmp_path, whole)


def test_sigkill_at_a_random_moment_after_a_save_loses_only_what_came_after_it(tmp_path):
    moments = random.Random(time.time_ns())  # the moment is not reproducible anyway
    changes = {"steps": 200, "eval.every": 40, "checkpoint.every": 30, "input": "stream"}
    killed, resumed = tmp_path / "killed", []
    for after in (0, 60):
        process = start(killed, **changes)
        wait_for_checkpoint(killed, process, after)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
        resumed.append(max(saved_steps(killed)))
    assert resumed[0] < resumed[1] < 200, "killed too late to show anything"
    done = run(command("train", f"--workdir={killed}", **changes))
    assert done.returncode == 0, done.stderr
    assert f"Resuming at step {resumed[1]}." in done.stdout
    whole = tmp_path / "whole"
    train(small_config(**changes), whole_folder(whole))
    assert_same_run(killed, whole)


def whole_folder(path):
    path.mkdir()
    return path


def test_early_stopping_remembers_across_a_stop(tmp_path):
    # learning_rate ~ 0: no evaluation is better than the first, so that patience runs out at the third
    changes = {
        "optimizer.learning_rate": 1e-12, "early_stopping.patience": 2, "eval.every": 2, "steps": 100,
        "optimizer.schedule": "constant",
    }  # fmt: skip
    whole, stopped = whole_folder(tmp_path / "whole"), whole_folder(tmp_path / "stopped")
    train(small_config(**changes), whole)
    assert lines(whole)[-1]["step"] == 6
    assert json.loads((whole / "metrics.json").read_text())["step"] == 2
    with pytest.raises(Stopped):
        train(small_config(**changes), stopped, stop_at(5))
    train(small_config(**changes), stopped)
    assert_same_run(whole, stopped)


def test_measured_margins_are_those_of_the_run_that_was_not_stopped(tmp_path):
    """They are measured at a fifth of the steps, step 2: where one start ends and the next begins."""
    config = small_config(**{"objective.name": "energy_margin", "checkpoint.every": 12})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for workdir in (whole, stopped):
        workdir.mkdir()
    train(config, whole)
    for stop, steps in ((2, 2), (1, 3)):
        with pytest.raises(Stopped, match=f"at step {steps}"):
            train(config, stopped, stop_at(stop))
    train(config, stopped)
    assert_same_run(stopped, whole)
    at_the_end = checkpoints.open_checkpoints(stopped)
    known, negative = at_the_end.meta(12)["progress"]["margins"]
    at_the_end.close()
    assert known != negative
    assert -5 < known < 0
