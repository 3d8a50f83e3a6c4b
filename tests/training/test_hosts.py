"""Runs of several processes: joining them, stopping together, resuming, and the results of one process."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
from small_run import ROOT, command, environment, free_port, lines, run

from openset_jax.errors import UserError
from openset_jax.training import hosts


def test_a_coordinator_needs_the_number_of_this_process():
    with pytest.raises(UserError, match="--process_id"):
        hosts.connect("localhost:1234")


@pytest.mark.parametrize(("coordinator", "error"), [("auto", ValueError("no cluster")), ("1234", IndexError("no port"))])
def test_a_coordinator_that_cannot_be_is_one_line(coordinator, error, monkeypatch):
    def initialize(*_):
        raise error

    monkeypatch.setattr(hosts.jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=f"--coordinator={coordinator}: neither HOST:PORT .*{error}"):
        hosts.connect(coordinator, 0, 2)


def start_processes(workdir, **changes):
    """The train command as two processes with two devices each."""
    port = free_port()
    return [
        subprocess.Popen(
            command("train", f"--workdir={workdir}", f"--coordinator=localhost:{port}", "--num_processes=2",
                    f"--process_id={i}", **changes),
            cwd=ROOT, env=environment(2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.mark.slow
def test_two_processes_stop_together_resume_and_equal_one_process(tmp_path, uninterrupted):
    # SIGTERM to one of them: both save the same step and exit with 3
    slow = {"steps": 4000, "log_every": 5, "eval.every": 4000, "checkpoint.every": 4000}
    stopped = start_processes(tmp_path / "stopped", **slow)
    while not (tmp_path / "stopped/metrics.jsonl").exists() or not lines(tmp_path / "stopped"):
        assert all(process.poll() is None for process in stopped), finish(stopped)
        time.sleep(0.05)
    stopped[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(stopped)
    assert codes == [3, 3], outputs
    assert any((tmp_path / "stopped/checkpoints").iterdir())

    for input, fields in (("stream", {"input": "stream"}), ("resident", {})):
        codes, outputs = finish(start_processes(tmp_path / input, **fields))
        assert codes == [0, 0], outputs
        assert "seen negatives" in outputs[0]
        assert "seen negatives" not in outputs[1]
        one, two = lines(uninterrupted), lines(tmp_path / input)
        assert [row["step"] for row in one] == [row["step"] for row in two]
        np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-3, err_msg=input)
        counts = [
            json.loads((folder / "metrics.json").read_text())["counts"] for folder in (uninterrupted, tmp_path / input)
        ]
        assert counts[0] == counts[1]
    # another number of processes resumes it
    done = run(command("train", f"--workdir={tmp_path / 'resident'}", steps=14))
    assert done.returncode == 0, done.stderr
    assert "Resuming at step 12." in done.stdout
