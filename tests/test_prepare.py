"""Packed arrays: the same images, so the same run."""

import shutil

import numpy as np
import pytest
from PIL import Image
from small_run import lines, saved_arrays, small_config

from openset_jax import config as configs
from openset_jax.errors import UserError
from openset_jax.prepare import prepare
from openset_jax.train import train


def test_training_from_packed_arrays_is_training_from_the_source(tmp_path):
    packed, streamed, from_packed = (tmp_path / name for name in ("packed", "streamed", "from_packed"))
    for folder in (packed, streamed, from_packed):
        folder.mkdir()
    result = prepare(small_config(), packed)
    pool = configs.open_pool(small_config())
    assert result == {"images": len(pool), "unreadable": 0, "leaks": 0}
    assert configs.open_pool(small_config(**{"data.packed": str(packed)})).fingerprint() == pool.fingerprint()
    train(small_config(steps=5), streamed)
    train(small_config(**{"steps": 5, "data.packed": str(packed)}), from_packed)
    one, other = saved_arrays(streamed), saved_arrays(from_packed)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert lines(streamed) == lines(from_packed)
    assert (streamed / "metrics.json").read_bytes() == (from_packed / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="packed at 16x16, but data.stored_size is 20"):
        train(small_config(**{"steps": 5, "data.packed": str(packed), "data.stored_size": 20}), tmp_path / "other")


@pytest.fixture
def photos(tmp_path):
    """A folder by role with a broken file, and one image both known and negative."""
    rng = np.random.default_rng(0)
    for group in ("known/cat", "known/dog", "negatives/car"):
        (tmp_path / "photos" / group).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / group / f"{i}.png")
    shutil.copy(tmp_path / "photos/known/cat/3.png", tmp_path / "photos/negatives/car/copy.png")
    (tmp_path / "photos/known/dog/broken.jpg").write_bytes(b"\xff\xd8\xff this is no image")
    return tmp_path / "photos"


def folder_config(root, **changes):
    from configs import folder

    config = folder.get_config()
    config.update_from_flattened_dict(
        {"data.root": str(root), "data.stored_size": 16, "data.image_size": 16, "model.stem": "small"} | changes
    )
    return config


def test_the_audit_names_what_is_broken_and_what_leaks(tmp_path, photos, capsys):
    out = tmp_path / "packed"
    out.mkdir()
    assert prepare(folder_config(photos), out) == {"images": 121, "unreadable": 1, "leaks": 1}
    said = capsys.readouterr().out
    assert "known/dog/broken.jpg" in said
    assert "negatives/car/copy.png" in said
    assert "is the same image as 'known/cat/3.png'" in said
    images = np.load(out / "images.npy", mmap_mode="r")
    assert images.shape == (121, 16, 16, 3)
    assert len(configs.open_pool(folder_config(photos, **{"data.packed": str(out)}))) == 121
    with pytest.raises(UserError, match="has packed arrays already"):
        prepare(folder_config(photos), out)


def test_too_many_broken_files_end_it_and_leave_nothing_that_looks_finished(tmp_path, photos):
    out = tmp_path / "packed"
    out.mkdir()
    with pytest.raises(UserError, match="max_bad_fraction"):
        prepare(folder_config(photos, **{"data.max_bad_fraction": 0.001}), out)
    with pytest.raises(UserError, match="has finished"):
        configs.open_pool(folder_config(photos, **{"data.packed": str(out)}))
