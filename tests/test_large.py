"""Full size: images and vectors larger than the memory of a process, and the full network at 224 on photographs."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import vectors
from small_run import ROOT, environment, lines, run

from openset_jax.data import packed

DATA = ROOT / "../shared/data"

STREAM = """
import resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    bytearray(limit)
except MemoryError:
    print("limited")
import pathlib
from openset_jax import config as configs
from openset_jax.data import batches, streaming
from openset_jax.data.unreadable import Unreadable
from openset_jax.training import run_cache, run_setup
from tests_config import get_config
(spec,) = configs.resolve(get_config(sys.argv[1]), pathlib.Path("/nowhere"))
run = run_setup.make_run(spec, run_cache.RunCache())
pool, rows, sampler = run.pool, run.rows_by_class, run.sampler
plan = batches.training(pool, rows, sampler, start=10**6, stop=10**6 + 30, unreadable=Unreadable(pool))
stream = streaming.stream(pool, plan, unreadable=Unreadable(pool))
bytes_read = sum(batch["example"].nbytes for batch in stream)
print(len(pool), bytes_read)
"""

CONFIG = """
from configs import default
def get_config(root):
    config = default.get_config()
    config.data.packed = root
    config.batch_size = 64
    return config
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and sparse files")
@pytest.mark.slow
def test_a_pool_larger_than_the_memory_limit_streams(tmp_path):
    count, size = 120_000, 256  # 23.6 GB of pixels, in a sparse file that takes no room
    with (tmp_path / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * size * size * 3)
    group = np.arange(count) % 3
    packed.write_index(
        tmp_path,
        stored_size=size,
        groups=[("known", "a"), ("known", "b"), ("negatives", "c")],
        ids=[f"made/{i}" for i in range(count)],
        group=group,
        split=np.arange(count) // 3 % 10 // 8 + (np.arange(count) // 3 % 10 == 9),
    )
    (tmp_path / "tests_config.py").write_text(CONFIG)
    limit = 12 << 30
    assert (tmp_path / "images.npy").stat().st_size > 1.8 * limit
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path), str(limit)],
        cwd=ROOT, env=environment() | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[0] == "limited"
    assert said[-2:] == [str(count), str(30 * 64 * size * size * 3)]


VECTORS = """
import pathlib, sys, threading
import jax.numpy as jnp
import vectors
from openset_jax.predict import Predictor
from openset_jax.train import train

def anonymous():  # bytes of memory, without the page cache
    lines = dict(line.split(":") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

def watch():
    while not done.wait(0.02):
        seen.append(anonymous())

jnp.zeros(9).sum().block_until_ready()
seen, done, root = [anonymous()], threading.Event(), pathlib.Path(sys.argv[1])
threading.Thread(target=watch).start()
try:
    short = {"input": "stream", "eval.compare_scores": False, "eval.batch_size": 256, "batch_size": 256}
    train(vectors.config(root, **short), root / "run")
    answers = sum(row["error"] is None for row in Predictor(root / "run")(root))
finally:
    done.set()
print(answers, max(seen) - seen[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and sparse files")
@pytest.mark.slow
def test_vectors_larger_than_the_memory_in_use_train_and_are_predicted(tmp_path):
    count, size = 120_000, 4096  # 983 MB of vectors, in a sparse file that takes no room
    with (tmp_path / "features.npy").open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (count, size)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * size * 2)
    roles = list(vectors.ROLES.items())
    rows = (f"{i},{','.join(roles[i % len(roles)])}" for i in range(count))
    (tmp_path / "index.csv").write_text("\n".join(["id,class,role", *rows]))
    done = subprocess.run(
        [sys.executable, "-c", VECTORS, str(tmp_path)], cwd=ROOT,
        env=environment() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, most = map(int, done.stdout.split()[-2:])
    assert answers == count
    assert most < count * size, "half of the bytes of the vectors"


# The command, in a process that kills itself after step 3, when the checkpoint of step 2 is complete.
DIES = """
import os, signal
from openset_jax import cli, train
from openset_jax.training import run_log
from openset_jax.training.checkpoints import Checkpoints

save, saving = Checkpoints.save, []

def remember(self, *args, **kwargs):
    saving.append(self)
    save(self, *args, **kwargs)

class Log(run_log.RunLog):
    def line(self, step, values):
        super().line(step, values)
        if step == 3:
            saving[-1].wait()
            os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save, run_log.RunLog = remember, Log
cli.run(train.main, train.define_flags)
"""


@pytest.mark.slow
def test_the_full_network_trains_is_killed_and_resumes_at_224_on_photographs(tmp_path, photos):
    # enough images for every split of every class
    small = tmp_path / "photos"
    for group in sorted(photos.glob("*/*")):
        keep = small / group.relative_to(photos)
        keep.mkdir(parents=True)
        for file in sorted(group.iterdir())[:40]:
            shutil.copy(file, keep)

    def command(workdir, how=("-m", "openset_jax.train")):
        fields = {"data.root": small, "steps": 4, "batch_size": 8, "log_every": 1, "checkpoint.every": 2, "eval.every": 4,
                  "eval.batch_size": 32, "optimizer.warmup_steps": 2, "data.unknown.limit": 10,
                  "data.validation_fraction": 0.2, "eval.compare_scores": False}  # fmt: skip
        fields = [f"--config.{k}={v}" for k, v in fields.items()]
        return [sys.executable, *how, "--config=configs/folder.py", f"--workdir={workdir}", *fields]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = run(command(killed, how=("-c", DIES)), timeout=400)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["step"] for row in lines(killed)] == [1, 2, 3], "step 3 is done again"
    assert not (killed / "metrics.json").exists()
    resumed = run(command(killed), timeout=400, process=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming at step 2." in resumed.stdout
    assert "57,032,519" in resumed.stdout  # parameters of the network with seven outputs
    assert run(command(whole), timeout=400, process=True).returncode == 0
    assert lines(killed) == lines(whole)
    assert json.loads((killed / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())
    assert (killed / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
