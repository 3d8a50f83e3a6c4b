"""Packed arrays: read as they were written; a damaged folder is named."""

import json
import os

import numpy as np
import pytest
from opening import check_columns, error, everything

from openset_jax.data import packed, pools, sources
from openset_jax.data.pools import TEST, TRAIN, VALIDATION

GROUPS = [("known", "b"), ("known", "a"), ("negatives", "c"), ("unknown", "a")]  # known classes in label order
PACKED = {
    "ids": ["known/a/é.jpg", "negatives/c/1.jpg", "known/b/1.jpg", "known/a/2.jpg", "unknown/a/1.jpg"],
    "group": np.array([1, 2, 0, 1, 3]),
    "split": np.array([0, 1, 2, 0, 2], np.uint8),
}


def write_packed(root, *, size=6, **found):
    images = np.random.default_rng(0).integers(0, 256, (len(PACKED["ids"]), size, size, 3), dtype=np.uint8)
    np.save(root / "images.npy", images)
    packed.write_index(root, stored_size=size, groups=GROUPS, **PACKED, **found)
    return images


def test_packed_arrays_come_back_as_they_were_written(tmp_path):
    images = write_packed(tmp_path)
    source = sources.open_source(f"packed:{tmp_path}")
    check_columns(source)
    assert source.array == pools.image_type(6)
    assert source.classes == ("b", "a", "c", "a"), "in the order of the pool that was packed"
    assert everything(source) == {
        "known/a/é.jpg": ("known", "a", TRAIN),
        "negatives/c/1.jpg": ("negatives", "c", VALIDATION),
        "known/b/1.jpg": ("known", "b", TEST),
        "known/a/2.jpg": ("known", "a", TRAIN),
        "unknown/a/1.jpg": ("unknown", "a", TEST),
    }
    records = np.array([4, 0, 2, 0])
    assert source.ids(records) == [PACKED["ids"][r] for r in records]
    for chosen in (records, np.arange(5), np.array([1, 2, 3, 0, 1, 4]), np.array([3]), np.array([], int)):
        np.testing.assert_array_equal(source.fetch(chosen), images[chosen])


def test_packed_arrays_that_became_shorter_say_so(tmp_path):
    write_packed(tmp_path)
    source = sources.open_source(f"packed:{tmp_path}")
    os.truncate(tmp_path / "images.npy", (tmp_path / "images.npy").stat().st_size - 1)
    with pytest.raises(OSError, match=r"images\.npy ends at example 4"):
        source.fetch(np.array([0, 3, 4]))


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs /dev/fd")
def test_packed_arrays_are_closed_when_nothing_uses_them(tmp_path):
    write_packed(tmp_path)
    before = len(os.listdir("/dev/fd"))
    fetch = sources.open_source(f"packed:{tmp_path}").fetch
    for _ in range(5):
        sources.open_source(f"packed:{tmp_path}")
    assert len(os.listdir("/dev/fd")) == before + 1
    assert len(fetch(np.arange(2))) == 2, "the file is open as long as its images can be read"
    del fetch
    assert len(os.listdir("/dev/fd")) == before


def test_what_the_audit_found_is_a_note_of_the_packed_arrays(tmp_path):
    write_packed(tmp_path)
    assert sources.open_source(f"packed:{tmp_path}").notes == ()
    write_packed(tmp_path, leaks=3, contradictions=1_000)
    (note,) = sources.open_source(f"packed:{tmp_path}").notes
    assert note.startswith("Warning: openset_jax.prepare found 3 leaks, 1,000 contradictions in these packed arrays: ")


def test_packed_arrays_know_their_splits_whatever_the_config_calls_them(tmp_path):
    write_packed(tmp_path)
    source = sources.open_source(f"packed:{tmp_path}", train="x", validation="y", test="z")
    assert source.split.tolist() == PACKED["split"].tolist()


def test_the_packed_index_is_complete_or_absent(tmp_path):
    write_packed(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"images.npy", "index.json"}


def damage_index(root, change):
    index = json.loads((root / "index.json").read_text())
    change(index)
    (root / "index.json").write_text(json.dumps(index))


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


DAMAGES = {
    "no index": lambda root: (root / "index.json").unlink(),
    "no images": lambda root: (root / "images.npy").unlink(),
    "index cut off": lambda root: truncate(root / "index.json", 100),
    "index empty": lambda root: truncate(root / "index.json", 0),
    "images cut off": lambda root: truncate(root / "images.npy", 400),
    "images empty": lambda root: truncate(root / "images.npy", 0),
    "images of another type": lambda root: np.save(root / "images.npy", np.zeros((5, 6, 6, 3), np.float32)),
    "images of another number": lambda root: np.save(root / "images.npy", np.zeros((4, 6, 6, 3), np.uint8)),
    "images of another shape": lambda root: np.save(root / "images.npy", np.zeros((5, 6, 6), np.uint8)),
    "images of another size": lambda root: np.save(root / "images.npy", np.zeros((5, 7, 7, 3), np.uint8)),
    "a column missing": lambda root: damage_index(root, lambda index: index.pop("split")),
    "a column short": lambda root: damage_index(root, lambda index: index["group"].pop()),
    "a group that is not there": lambda root: damage_index(root, lambda index: index["group"].__setitem__(2, 4)),
    "a negative group": lambda root: damage_index(root, lambda index: index["group"].__setitem__(2, -1)),
    "a group of half": lambda root: damage_index(root, lambda index: index["group"].__setitem__(2, 0.5)),
    "a split that is not there": lambda root: damage_index(root, lambda index: index["split"].__setitem__(2, 3)),
    "an id that is no text": lambda root: damage_index(root, lambda index: index["id"].__setitem__(2, None)),
    "a role that is none": lambda root: damage_index(root, lambda index: index["groups"].__setitem__(0, ["knowns", "b"])),
    "another version": lambda root: damage_index(root, lambda index: index.update(version=2)),
    "a number of leaks that is text": lambda root: damage_index(root, lambda index: index.update(leaks="3")),
    "a request that is a number": lambda root: damage_index(root, lambda index: index.update(prepared_as=5)),
    "images by columns": lambda root: np.save(root / "images.npy", np.zeros((5, 6, 6, 3), np.uint8, order="F")),
    "nested too deeply": lambda root: (root / "index.json").write_text("[" * 100_000),
    "not an index": lambda root: (root / "index.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_packed_folder_that_is_not_whole_says_to_prepare_it(tmp_path, damage):
    write_packed(tmp_path)
    DAMAGES[damage](tmp_path)
    message = error(f"packed:{tmp_path}")
    assert f"packed:{tmp_path}" in message
    assert "prepare" in message
