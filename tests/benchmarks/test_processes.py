"""Processes end at their limit, with all processes that they started, and when the process that started them ends."""

import os
import signal
import subprocess
import sys
import time

from pair import PAIR, gone, numbers
from small_run import ROOT

from benchmarks.processes import Processes


def python(code):
    return [sys.executable, "-c", code]


def test_a_process_ends_at_its_limit_and_so_does_what_it_started(tmp_path):
    log = tmp_path / "log"
    with Processes(tmp_path / "scratch", environment=os.environ) as processes:
        outcome = processes.run(python(PAIR), log, limit=1.5)
    assert outcome.code is None
    assert 1.5 <= outcome.seconds < 4
    assert all(map(gone, numbers(log)))


def test_exit_codes_output_and_environment(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Processes(scratch, environment=os.environ | {"GREETING": "hello"}) as processes:
        outcome = processes.run(python("import os; print(os.environ['GREETING']); raise SystemExit(4)"), tmp_path / "log")
        assert outcome.code == 4
        assert scratch.exists()
    assert (tmp_path / "log").read_text() == "hello\n"
    assert not scratch.exists()


def test_a_process_that_ends_by_itself_leaves_nothing_running(tmp_path):
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    with Processes(tmp_path / "scratch", environment=os.environ) as processes:
        assert processes.run(python(code), tmp_path / "log").code == 0
    assert all(map(gone, numbers(tmp_path / "log", 1)))


def test_a_process_is_stopped_when_it_is_asked_for(tmp_path):
    begin = time.monotonic()
    stop = lambda: "SIGTERM" if time.monotonic() > begin + 1 else ""
    with Processes(tmp_path / "scratch", environment=os.environ, stop_requested=stop) as processes:
        assert processes.run(python("import time; time.sleep(60)"), tmp_path / "log").code is None
    assert time.monotonic() - begin < 5


def starter(tmp_path, seconds):
    """Starts a process that runs `PAIR` in its own `Processes`."""
    code = f"""
import os, pathlib, sys
from benchmarks.processes import Processes
root = pathlib.Path({str(tmp_path)!r})
(root / "scratch").mkdir()
with Processes(root / "scratch", environment=os.environ, seconds={seconds}) as processes:
    processes.run([sys.executable, "-c", {PAIR!r}], root / "log")
"""
    return subprocess.Popen(python(code), cwd=ROOT)


def test_the_guard_ends_what_runs_and_cleans_up_after_sigkill(tmp_path):
    process = starter(tmp_path, None)
    running = numbers(tmp_path / "log")
    process.kill()
    process.wait()
    assert all(map(gone, running))
    end = time.monotonic() + 10
    while (tmp_path / "scratch").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (tmp_path / "scratch").exists()


def test_the_guard_ends_a_process_that_does_not_end_in_time(tmp_path):
    process = starter(tmp_path, 2)
    running = numbers(tmp_path / "log")
    assert process.wait(timeout=20) == -signal.SIGKILL
    assert all(map(gone, running))
