"""Runs on disks that are full, or that lose power."""

import json
import random
import shutil
import subprocess
import time

import pytest
from small_run import ROOT, SAVES_OFTEN, assert_same_run, command, environment, run, small_config, train

CUTS = 3
pytestmark = pytest.mark.slow


def mount(*arguments):
    return shutil.which("mount") and subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)


@pytest.fixture
def mounted(tmp_path):
    """A folder, and a function that mounts something there; skips where mounting is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount_here(*arguments):
        done = mount(*arguments, folder)
        if not done or done.returncode:
            pytest.skip(f"mounting is not allowed here: {done and done.stderr}")

    yield folder, mount_here
    subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(mounted, uninterrupted):
    disk, mount_here = mounted
    mount_here("-t", "tmpfs", "-o", "size=1600k", "none")
    done = run(command("train", f"--workdir={disk}", **SAVES_OFTEN), process=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: the disk is full ([Errno 28] No space left on device: '{disk}/checkpoints'); free"
    )
    assert done.stderr.count("\n") == 1
    mount("-o", "remount,size=60m", disk)
    train(small_config(**SAVES_OFTEN), disk)
    assert_same_run(disk, uninterrupted)


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_after_a_power_cut_the_run_goes_on(mounted, tmp_path, capsys):
    disk, mount_here = mounted
    image, changes = tmp_path / "disk", {"steps": 400, "eval.every": 40, "checkpoint.every": 20}
    moments = random.Random(time.time_ns())  # the moment of a cut is not reproducible anyway
    for cut in range(CUTS):
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        mount_here("-o", "loop", image)
        process = subprocess.Popen(
            command("train", f"--workdir={disk / 'run'}", **changes),
            cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not list(disk.glob("run/checkpoints/[4-9]0")):  # a cut during the first save may lose that save
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1))
        mount("-o", "remount,abort", disk)
        _, error = process.communicate(timeout=120)
        assert process.returncode == 2, error
        assert error.startswith(("error: the file system is read-only", "error: the disk failed"))
        assert error.count("\n") == 1
        subprocess.run(["umount", disk], check=True)
        subprocess.run(["fsck.ext4", "-fy", image], capture_output=True, check=False)
        mount_here("-o", "loop", image)
        train(small_config(**changes), disk / "run")
        assert "Resuming at step " in capsys.readouterr().out
        steps = [json.loads(line)["step"] for line in (disk / "run/metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(2, 401, 2)), f"cut {cut}"
        subprocess.run(["umount", disk], check=True)
