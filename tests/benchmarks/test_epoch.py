"""The epoch of 140,000 images: its pool, its images, and its result."""

import json
import sys

import numpy as np
import pytest
from small_run import SMALL, run

from benchmarks import epoch
from openset_jax.errors import UserError


def test_the_pool_of_the_founding_problem():
    pool = epoch.founding_pool(epoch.FOUNDING_IMAGES)
    assert [len(members) for members in pool.training_rows()] == [7_000] * 10 + [70_000]


def test_images_are_random_bytes_and_differ():
    images = np.asarray(epoch.random_images(50, 6))
    assert (images.dtype, images.shape) == (np.uint8, (50, 6, 6, 3))
    assert len(np.unique(images.reshape(50, -1), axis=0)) == 50
    assert 110 < images.mean() < 145 and images.min() < 10 and images.max() > 245


def test_images_that_do_not_fit_are_refused_with_the_numbers():
    with pytest.raises(
        UserError, match=r"--images: 1,000,000,000 of 256x256 are 196,608.00 GB, and this machine has .* would fit"
    ):
        epoch.random_images(10**9, 256)


@pytest.mark.slow
def test_the_epoch_benchmark_writes_what_it_promises(tmp_path):
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    out = tmp_path / "result.json"
    command = ["benchmarks.epoch", "--config=configs/digits.py", *fields, "--images=100", "--rounds=2", f"--json={out}"]
    done = run([sys.executable, "-m", *command])
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert (result["images"], result["size"]) == (100, 16)
    rates = result["rates"]["openset_jax"]
    assert [100 / rate for rate in rates["rounds"]] == pytest.approx(result["epoch_s"]["rounds"])
    assert result["ratio"]["rounds"][0] == pytest.approx(rates["rounds"][0] / result["rates"]["step alone"]["rounds"][0])
    assert isinstance(result["cold"], bool) and result["compile_s"] > 0
    assert "epoch, s" in done.stdout
