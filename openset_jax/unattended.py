"""Long commands that nobody watches: signals ask them to save and stop; a closed terminal or pipe does not end them."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class _Output(io.FileIO):
    """A file descriptor that leads to nowhere from the moment at which it cannot be written to."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:  # a closed pipe (`train | head`), a terminal that is gone, a full disk
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def outlive_output() -> None:
    """Replaces stdout and stderr by streams whose errors do not end this process; further output goes to nowhere."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start (`train >&-`): the next file must not get this number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        elif stream is getattr(sys, f"__{name}__"):  # otherwise somebody collects the output
            stream.flush()
            raw = _Output(number, "w", closefd=False)
            buffer: Any = raw if stream.write_through else io.BufferedWriter(raw)
            options = {
                option: getattr(stream, option) for option in ("encoding", "errors", "line_buffering", "write_through")
            }
            setattr(sys, name, io.TextIOWrapper(buffer, **options))


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], str]]:
    """Turns the first SIGTERM, SIGINT or SIGHUP into a request to stop, so that the run can save.

    A second SIGTERM or SIGINT ends the process at once; a second SIGHUP does not, because a closed terminal may send two. A
    SIGHUP that is ignored stays so (`nohup`).

    Yields a function that returns the name of the signal, or "" before there is one.
    """
    came: list[str] = []
    numbers = _numbers()
    note = lambda number, _=None: came.append(signal.Signals(number).name)  # by whichever thread is first
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        with _watching(numbers, note, "saving, then stopping; press Ctrl-C again to end at once, unsaved"):
            yield lambda: came[0] if came else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP; a second SIGINT or SIGTERM ends the process."""
    numbers = _numbers()
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        with _watching(numbers, lambda number: None, "stopping; press Ctrl-C again to end at once"):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _numbers() -> set[signal.Signals]:
    """The signals to handle: SIGHUP only if `nohup` does not ignore it."""
    hangup = set() if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else {signal.SIGHUP}
    return {signal.SIGTERM, signal.SIGINT, *hangup}


@contextlib.contextmanager
def _watching(numbers: set[signal.Signals], first: Callable[[int], Any], text: str) -> Iterator[None]:
    """Calls `first` and prints the text at the first of these signals; ends the process at the second, unless it is SIGHUP.

    A thread does so, because Python runs handlers in the main thread only, which may be inside TensorFlow or a compiler.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch():
        asked = False
        while arrived := os.read(reader, 1):
            if (number := arrived[0]) not in numbers or (asked and number == signal.SIGHUP):
                continue
            if asked:
                os._exit(128 + number)
            asked = True
            first(number)
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed
                print(f"{signal.Signals(number).name}: {text}", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the watcher
        watcher.join()
        os.close(reader)
