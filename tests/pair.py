"""A process that starts another one, and whether processes have ended."""

import pathlib
import time

# starts another process, and says the numbers of both
PAIR = """
import os, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), other.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process ends in so many seconds; one that nobody waits for counts as ended."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def numbers(log: pathlib.Path, count: int = 2, within: float = 20.0) -> list[int]:
    """The numbers of processes in a file, once they are there."""
    end = time.monotonic() + within
    while len(found := (log.read_text() if log.exists() else "").split()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return list(map(int, found))
