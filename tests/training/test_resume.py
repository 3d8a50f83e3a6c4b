"""A run that is stopped (by request, SIGTERM or SIGKILL) and resumed equals an uninterrupted one, bit by bit."""

import json
import random
import shutil
import signal
import subprocess
import time

import pytest
from small_run import ROOT, SAVES_OFTEN, assert_same_run, command, environment, lines, run, small_config, train

from openset_jax.errors import Stopped, UserError
from openset_jax.training import checkpoints
from openset_jax.training.restore import restore


def stop_at(step):
    """A `stop_requested`, which is called once before each step, that requests a stop before this step."""
    asked = iter(range(10**6))
    return lambda: "the test" if next(asked) >= step else ""


@pytest.mark.parametrize("stops", [(1, 2, 4, 11), (3, 7, 11)])
def test_stopped_at_any_step_and_resumed_it_ends_the_same(tmp_path, uninterrupted, stops):
    # 2 is a logging step; at 4 the evaluation is postponed until the run is resumed; at 3 a checkpoint is due anyway
    config, start = small_config(**SAVES_OFTEN), 0
    for stop in stops:
        with pytest.raises(Stopped, match=f"at step {stop} is saved"):
            train(config, tmp_path, stop_at(stop - start))
        start = stop
    train(config, tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")}
    train(small_config(**SAVES_OFTEN), tmp_path)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("*")} == before
    assert_same_run(tmp_path, uninterrupted)


def test_a_signal_after_the_last_step_ends_the_evaluation(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(Stopped, match=r"Stopped by SIGTERM\. Training is done and saved; run the same command again"):
        train(small_config(**SAVES_OFTEN), tmp_path, lambda: "SIGTERM")
    assert not (tmp_path / "metrics.json").exists()


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(tmp_path, uninterrupted, capsys):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before, last = sorted(saved_steps(tmp_path))
    (tmp_path / f"checkpoints/{last}/meta/metadata").write_bytes(b"")
    assert restore(tmp_path).step == before
    assert f"step {last} in" in (warning := capsys.readouterr().out)
    assert f"Using that of step {before}." in warning
    (tmp_path / f"checkpoints/{last}/model/_METADATA").write_bytes(b"")
    with pytest.raises(UserError, match=f"step {last} in .* is damaged .* run python -m openset_jax.evaluate"):
        restore(tmp_path, step=last)
    train(small_config(**SAVES_OFTEN), tmp_path)
    said = capsys.readouterr().out
    assert warning in said
    assert f"Resuming at step {before}." in said
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


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_3_and_the_next_start_goes_on(tmp_path, capsys):
    changes = {"steps": 300, "eval.every": 150, "checkpoint.every": 290}
    process = start(tmp_path, **changes)
    while not (tmp_path / "metrics.jsonl").exists() or len(lines(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3, error
    assert "Stopped by SIGTERM. The state at step" in error
    (saved,) = saved_steps(tmp_path)
    assert 0 < saved < 300
    train(small_config(**changes), tmp_path)
    assert f"Resuming at step {saved}." in capsys.readouterr().out
    train(small_config(**changes), whole_folder(tmp_path / "whole"))
    assert_same_run(tmp_path, tmp_path / "whole")


@pytest.mark.slow
def test_sigkill_at_a_random_moment_after_a_save_loses_only_the_steps_after_it(tmp_path):
    moments = random.Random(time.time_ns())  # the moment of a kill is not reproducible anyway
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


def test_early_stopping_counts_across_a_stop(tmp_path):
    # learning_rate ~ 0: no evaluation is better than the first, and patience runs out at the third
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


def test_a_stopped_run_measures_the_margins_of_an_uninterrupted_one(tmp_path):
    """Margins are measured at a fifth of the steps, step 2, where the first start ends and the second begins."""
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
    plateaus = [row["plateau_loss"] for row in lines(whole)]
    assert plateaus[0] < plateaus[1] == plateaus[-1], "the first line is of the steps before the margins"
    at_the_end = checkpoints.open_checkpoints(stopped)
    known, negative = at_the_end.record(12)["progress"]["margins"]
    at_the_end.close()
    assert known != negative
    assert -5 < known < 0


def test_results_without_a_checkpoint_are_those_of_another_network(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has a decision.json, but no checkpoint"):
        train(small_config(**SAVES_OFTEN), tmp_path)
    assert (tmp_path / "decision.json").exists()
