"""Signals and closed outputs of commands that nobody watches."""

import signal
import subprocess
import sys
import time

import pytest
from small_run import ROOT

from openset_jax import unattended

# waits for ever in C, where Python runs no handler: a mutex that is locked twice
STUCK = """
import ctypes
from openset_jax import unattended
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with unattended.{watching}():
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""

# prints until its reader is gone, and then a little more
TALKS = """
import pathlib, sys, time
from openset_jax import cli
def main():
    for i in range(300):
        print("line", i, flush=True)
        print("error", i, file=sys.stderr, flush=True)
        time.sleep(0.001)
    pathlib.Path(sys.argv[1]).write_text("done")
cli._parse = lambda *_: []
cli.run(main, lambda: None)
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("watching", "number", "says"),
    [
        ("stop_on_signal", signal.SIGINT, "saving, then stopping; press Ctrl-C again to end at once, unsaved"),
        ("stop_on_signal", signal.SIGTERM, "saving, then stopping; press Ctrl-C again to end at once, unsaved"),
        ("interruptible", signal.SIGINT, "stopping; press Ctrl-C again to end at once"),
    ],
)
def test_the_second_signal_ends_a_process_that_is_stuck_outside_python_and_the_first_says_so(watching, number, says):
    with start(STUCK.format(watching=watching)) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline() == f"{number.name}: {says}\n"
        process.send_signal(number)
        try:
            assert process.wait(timeout=20) in (128 + number, -number)  # the latter if it was not stuck yet
        finally:
            process.kill()


@pytest.fixture
def heard():
    """SIGHUP as it is without `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_commands_without_state_are_interrupted_by_each_of_the_signals(heard, number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), unattended.interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_closed_terminal_asks_to_stop_like_sigterm_however_often_it_signals(heard, capfd):
    before = signal.getsignal(signal.SIGHUP)
    with unattended.stop_on_signal() as stop_requested:
        assert stop_requested() == ""
        for number in (signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
            assert stop_requested() == "SIGHUP"
    assert signal.getsignal(signal.SIGHUP) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert capfd.readouterr().err.count("SIGHUP: saving, then stopping") == 1


def test_nohup_keeps_a_closed_terminal_from_stopping_anything():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unattended.stop_on_signal() as stop_requested:
            signal.raise_signal(signal.SIGHUP)
            assert stop_requested() == ""
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_a_command_whose_output_is_closed_goes_on_to_its_end(tmp_path, closed):
    with start(TALKS, str(tmp_path / "file")) as process:
        streams = {"stdout": process.stdout, "stderr": process.stderr}
        for name, stream in streams.items():
            assert stream.readline().endswith(" 0\n")
            if closed in (name, "both"):
                stream.close()
        for stream in streams.values():
            assert stream.closed or stream.read().endswith(" 299\n")
        assert process.wait(timeout=20) == 0
    assert (tmp_path / "file").read_text() == "done"


def test_a_command_without_outputs_writes_none_of_its_text_into_its_files(tmp_path):
    """Without a standard output, the first file that a process opens gets its number."""
    command = f'exec "{sys.executable}" -c "$0" "$1" >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, TALKS, str(tmp_path / "file")], cwd=ROOT, check=False, timeout=20)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "done"


def test_the_first_interrupt_of_a_command_that_does_not_save_ends_it(capfd):
    with pytest.raises(KeyboardInterrupt), unattended.interruptible():
        signal.raise_signal(signal.SIGINT)
        time.sleep(10)
    assert "SIGINT: stopping; press Ctrl-C again" in capfd.readouterr().err
