"""Every storage is the same kind of `Source`, and every way to name one wrongly says what to do about it."""

import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from openset_jax.data import packed, sources
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.pools import TEST, TRAIN, UNASSIGNED, VALIDATION
from openset_jax.errors import UserError


def error(name, **options):
    """The message of the UserError that opening this source raises."""
    with pytest.raises(UserError) as caught:
        sources.open_source(name, **options)
    return str(caught.value)


def everything(source):
    """{id: (role or None, class, split)} of all records."""
    roles = source.roles or (None,) * len(source.classes)
    ids = source.ids(np.arange(len(source.label)))
    assert len(set(ids)) == len(ids)
    return {
        id_: (roles[label], source.classes[label], split)
        for id_, label, split in zip(ids, source.label.tolist(), source.split.tolist(), strict=True)
    }


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return f"folder:{root}"


def check_columns(source):
    assert source.label.dtype == np.int32
    assert source.split.dtype == np.uint8
    assert len(source.label) == len(source.split)


# --- names of sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "mnist", "folder", "folder:", "packed:", "tfds:", "digits:big", "http://x.org/a"])
def test_an_unknown_kind_is_named_beside_the_known_ones(name):
    message = error(name)
    assert repr(name) in message
    assert "tfds:NAME, folder:PATH, packed:PATH, digits" in message


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_missing_folder_is_named(kind, tmp_path):
    assert f"there is no folder '{tmp_path}/absent'" in error(f"{kind}:{tmp_path}/absent")


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_file_is_not_a_folder(kind, tmp_path):
    (tmp_path / "file").touch()
    assert f"there is no folder '{tmp_path}/file'" in error(f"{kind}:{tmp_path}/file")


def test_two_splits_of_one_name_are_an_error(tmp_path):
    message = error(f"folder:{tmp_path}", train="all", test="all")
    assert "all, all are not different" in message


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_all_there_with_the_right_labels():
    from sklearn.datasets import load_digits

    source, expected = sources.open_source("digits"), load_digits()
    check_columns(source)
    assert source.classes == tuple("0123456789")
    assert source.roles is None
    assert source.form == "encoded"
    assert (source.split == UNASSIGNED).all()
    np.testing.assert_array_equal(source.label, expected.target)
    records = np.array([1796, 0, 1000])
    assert source.ids(records) == ["digits#1796", "digits#0", "digits#1000"]
    for content, image in zip(source.fetch(records), expected.images[records], strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(content)))
        assert decoded.dtype == np.uint8
        np.testing.assert_allclose(decoded, image * 255 / 16, atol=0.5)


def test_digits_ignore_names_of_splits():
    assert (sources.open_source("digits", train="x", validation="y", test="z").split == UNASSIGNED).all()


# --- folders by role --------------------------------------------------------------------------------------------------


def test_a_folder_by_role_files_every_image_under_its_role_and_class(tmp_path):
    name = touch(
        tmp_path, "known/cat/1.jpg", "known/dog/1.jpg", "negatives/car/1.png", "held_out_negatives/bus/1.jpeg",
        "unknown/bird/1.JPG",
    )  # fmt: skip
    source = sources.open_source(name)
    check_columns(source)
    assert everything(source) == {
        "known/cat/1.jpg": ("known", "cat", UNASSIGNED),
        "known/dog/1.jpg": ("known", "dog", UNASSIGNED),
        "negatives/car/1.png": ("negatives", "car", UNASSIGNED),
        "held_out_negatives/bus/1.jpeg": ("held_out_negatives", "bus", UNASSIGNED),
        "unknown/bird/1.JPG": ("unknown", "bird", UNASSIGNED),
    }
    assert source.form == "path"


def test_a_folders_subfolders_belong_to_their_class(tmp_path):
    name = touch(tmp_path, "known/cat/a/b/1.jpg", "known/cat/a/2.jpg", "known/cat/3.jpg")
    assert everything(sources.open_source(name)).keys() == {
        "known/cat/a/b/1.jpg", "known/cat/a/2.jpg", "known/cat/3.jpg",
    }  # fmt: skip


def test_roles_other_than_known_may_be_absent(tmp_path):
    source = sources.open_source(touch(tmp_path, "known/cat/1.jpg", "negatives/car/1.jpg"))
    assert source.roles == ("known", "negatives")


def test_one_class_name_may_stand_under_two_roles(tmp_path):
    source = sources.open_source(touch(tmp_path, "known/cat/1.jpg", "unknown/cat/1.jpg"))
    assert source.classes == ("cat", "cat")
    assert source.roles == ("known", "unknown")


def test_what_is_not_an_image_file_is_left_out(tmp_path):
    name = touch(
        tmp_path, "known/cat/1.jpg", "known/cat/notes.txt", "known/cat/jpg", "known/cat/2.gif", "known/cat/Thumbs.db",
        "known/loose.jpg", "readme.png", "other/cat/3.jpg",
    )  # fmt: skip
    assert everything(sources.open_source(name)).keys() == {"known/cat/1.jpg"}


def test_hidden_files_and_folders_in_a_class_are_left_out(tmp_path):
    name = touch(tmp_path, "known/cat/1.jpg", "known/cat/._1.jpg", "known/cat/.hidden/2.jpg")
    assert everything(sources.open_source(name)).keys() == {"known/cat/1.jpg"}


@pytest.mark.parametrize("layout", ["known", "train"])
def test_a_hidden_folder_is_not_a_class(tmp_path, layout):
    """Notebooks leave .ipynb_checkpoints behind, macOS and others their own."""
    name = touch(tmp_path, f"{layout}/cat/1.jpg", f"{layout}/.ipynb_checkpoints/1-checkpoint.jpg", "test/cat/2.jpg")
    assert set(sources.open_source(name).classes) == {"cat"}


def test_an_empty_folder_is_a_class_without_images(tmp_path):
    """So that the pool can say which class has none."""
    name = touch(tmp_path, "known/cat/1.jpg")
    (tmp_path / "known/dog").mkdir()
    source = sources.open_source(name)
    assert source.classes == ("cat", "dog")
    assert source.label.tolist() == [0]


def test_a_folder_of_links_is_followed(tmp_path):
    name = touch(tmp_path / "here", "known/cat/1.jpg")
    touch(tmp_path, "elsewhere/2.jpg")
    (tmp_path / "here/known/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here/known/cat/3.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    assert everything(sources.open_source(name)).keys() == {"known/cat/1.jpg", "known/cat/3.jpg", "known/dog/2.jpg"}


def test_fetch_gives_the_paths_of_the_records_asked_for(tmp_path):
    source = sources.open_source(touch(tmp_path, "known/cat/1.jpg", "known/cat/é 日本.jpg", "known/dog/1.jpg"))
    records = np.array([2, 0, 1])
    for id_, path in zip(source.ids(records), source.fetch(records), strict=True):
        assert isinstance(path, bytes)
        assert pathlib.Path(os.fsdecode(path)).read_bytes() == id_.encode()


def test_a_file_name_that_is_not_unicode_is_read_all_the_same(tmp_path):
    name = touch(tmp_path, "known/cat/1.jpg")
    with open(os.fsencode(tmp_path) + b"/known/cat/\xe9.jpg", "wb") as file:
        file.write(b"latin-1")
    source = sources.open_source(name)
    contents = {pathlib.Path(os.fsdecode(path)).read_bytes() for path in source.fetch(np.arange(2))}
    assert contents == {b"known/cat/1.jpg", b"latin-1"}


def test_ids_of_a_folder_survive_moving_it(tmp_path):
    here = everything(sources.open_source(touch(tmp_path / "here", "known/cat/1.jpg", "known/dog/2.jpg")))
    there = everything(sources.open_source(touch(tmp_path / "far/there", "known/dog/2.jpg", "known/cat/1.jpg")))
    assert here == there


def test_a_path_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "images", "known/cat/1.jpg")
    assert sources.open_source("folder:~/images").classes == ("cat",)


@pytest.mark.parametrize("layout", ["known", "train"])
def test_a_folder_without_images_says_where_they_should_be(tmp_path, layout):
    name = touch(tmp_path, f"{layout}/cat/1.txt", "test/cat/1.txt")
    message = error(name)
    assert "no .jpg, .jpeg, .png files" in message
    assert f"{tmp_path}/{layout}/CLASS/" in message


# --- folders by split -------------------------------------------------------------------------------------------------


def test_a_folder_by_split_keeps_its_splits(tmp_path):
    name = touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "test/dog/3.jpg", "extra/dog/4.jpg")
    source = sources.open_source(name, validation="val")
    check_columns(source)
    assert source.roles is None
    assert everything(source) == {
        "train/cat/1.jpg": (None, "cat", TRAIN),
        "train/dog/1.jpg": (None, "dog", TRAIN),
        "val/cat/2.jpg": (None, "cat", VALIDATION),
        "test/dog/3.jpg": (None, "dog", TEST),
    }


def test_a_folder_with_one_split_is_left_to_the_pool(tmp_path):
    name = touch(tmp_path, "images/cat/1.jpg", "images/dog/1.jpg")
    assert (sources.open_source(name, train="images", test="").split == UNASSIGNED).all()


def test_a_class_of_the_test_split_alone_is_a_class(tmp_path):
    source = sources.open_source(touch(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg", "test/new/3.jpg"))
    assert everything(source)["test/new/3.jpg"] == (None, "new", TEST)


@pytest.mark.parametrize("options", [{"train": "trian"}, {"validation": "dev"}, {"test": "tset"}])
def test_a_split_that_a_folder_does_not_have_is_named_beside_those_it_has(tmp_path, options):
    message = error(touch(tmp_path, "train/cat/1.jpg", "test/cat/2.jpg"), **options)
    assert f"no split {next(iter(options.values()))!r}" in message
    assert "it has test, train" in message


def test_no_split_at_all_is_an_error(tmp_path):
    assert "train" in error(touch(tmp_path, "train/cat/1.jpg"), train="", test="")


# --- packed arrays ----------------------------------------------------------------------------------------------------

GROUPS = [("known", "b"), ("known", "a"), ("negatives", "c"), ("unknown", "a")]  # known classes in label order
PACKED = {
    "ids": ["known/a/é.jpg", "negatives/c/1.jpg", "known/b/1.jpg", "known/a/2.jpg", "unknown/a/1.jpg"],
    "group": np.array([1, 2, 0, 1, 3]),
    "split": np.array([0, 1, 2, 0, 2], np.uint8),
}


def write_packed(root, *, size=6):
    images = np.random.default_rng(0).integers(0, 256, (len(PACKED["ids"]), size, size, 3), dtype=np.uint8)
    np.save(root / "images.npy", images)
    packed.write_index(root, stored_size=size, groups=GROUPS, **PACKED)
    return images


def test_packed_arrays_come_back_as_they_were_written(tmp_path):
    images = write_packed(tmp_path)
    source = sources.open_source(f"packed:{tmp_path}")
    check_columns(source)
    assert source.form == "pixels:6"
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
    with pytest.raises(OSError, match=r"images\.npy ends at image 4"):
        source.fetch(np.array([0, 3, 4]))


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
    "not an index": lambda root: (root / "index.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_packed_folder_that_is_not_whole_says_to_prepare_it(tmp_path, damage):
    write_packed(tmp_path)
    DAMAGES[damage](tmp_path)
    message = error(f"packed:{tmp_path}")
    assert f"packed:{tmp_path}" in message
    assert "prepare" in message


# --- TFDS: the real data ----------------------------------------------------------------------------------------------

SETS = {"tfds:mnist": "tfrecord", "tfds:fashion_mnist": "array_record"}


@pytest.fixture(scope="module")
def opened(tfds_dir):
    """Each real set, opened once."""
    return {name: sources.open_source(name, data_dir=tfds_dir) for name in SETS}


def sequentially(name, split, data_dir, count):
    """The first `count` (image, label) as TFDS itself reads them, one after another."""
    import tensorflow_datasets as tfds

    if SETS[name] == "array_record":
        records = tfds.data_source(name[5:], data_dir=data_dir, split=split, download=False)
        examples = [records[i] for i in range(count)]
    else:
        dataset = tfds.load(name[5:], data_dir=data_dir, split=split, download=False, shuffle_files=False)
        examples = dataset.take(count).as_numpy_iterator()
    return [(example["image"], int(example["label"])) for example in examples]


def decode(serialized, key="image"):
    """The image of a serialised tf.Example, without this package's code."""
    import tensorflow as tf

    example = tf.train.Example.FromString(serialized)
    return np.asarray(Image.open(io.BytesIO(example.features.feature[key].bytes_list.value[0])))


@pytest.mark.parametrize("name", SETS)
def test_a_tfds_set_has_all_its_records_with_their_classes_and_splits(opened, name):
    source = opened[name]
    check_columns(source)
    assert np.bincount(source.split).tolist()[TRAIN::2] == [60_000, 10_000]
    assert (source.split == VALIDATION).sum() == 0
    assert source.form == "example:image"
    assert source.roles is None
    assert len(source.classes) == 10
    assert {source.classes[0], source.classes[9]} == ({"0", "9"} if name == "tfds:mnist" else {"T-shirt/top", "Ankle boot"})
    per_class = np.bincount(source.label[source.split == TRAIN], minlength=10)
    assert per_class.sum() == 60_000
    if name == "tfds:mnist":
        assert per_class[:3].tolist() == [5923, 6742, 5958]  # as published
    else:
        assert set(per_class.tolist()) == {6000}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_random_access_reads_what_tfds_reads_in_sequence(opened, tfds_dir, name, split):
    source, count = opened[name], 200
    expected = sequentially(name, split, tfds_dir, count)
    records = np.flatnonzero(source.split == {"train": TRAIN, "test": TEST}[split])[:count]
    shuffled = np.random.default_rng(0).permutation(count)
    for i, content in zip(shuffled, source.fetch(records[shuffled]), strict=True):
        image, label = expected[i]
        assert source.label[records[i]] == label
        np.testing.assert_array_equal(decode(content), image[..., 0])


@pytest.mark.parametrize("name", SETS)
def test_one_fetch_may_mix_splits_and_repeat_records(opened, name):
    source = opened[name]
    records = np.array([69_999, 0, 59_999, 60_000, 0])
    together = source.fetch(records)
    assert together == [source.fetch(np.array([r]))[0] for r in records]
    assert len(set(together)) == 4


@pytest.mark.parametrize("name", SETS)
def test_tfds_ids_name_the_file_and_the_place_in_it_and_differ(opened, name):
    source = opened[name]
    ids = source.ids(np.arange(70_000))
    assert len(set(ids)) == 70_000
    assert ids[0] == f"{name[5:]}-train.{SETS[name]}-00000-of-00001#0"
    assert ids[-1] == f"{name[5:]}-test.{SETS[name]}-00000-of-00001#9999"


@pytest.mark.parametrize("name", SETS)
def test_a_slice_is_that_part_of_the_split_under_the_same_ids(opened, tfds_dir, name):
    whole = opened[name]
    part = sources.open_source(name, data_dir=tfds_dir, train="train[10%:20%]", validation="train[:50]", test="test[-20:]")
    assert np.bincount(part.split).tolist() == [6000, 50, 20]
    for code, first in ((TRAIN, 6000), (VALIDATION, 0), (TEST, 69_980)):
        records = np.flatnonzero(part.split == code)
        same = np.arange(first, first + len(records))
        assert part.ids(records) == whole.ids(same)
        np.testing.assert_array_equal(part.label[records], whole.label[same])
        assert part.fetch(records[-2:]) == whole.fetch(same[-2:])


def test_one_tfds_split_alone_is_left_to_the_pool(tfds_dir):
    source = sources.open_source("tfds:mnist", data_dir=tfds_dir, train="test", test="")
    assert len(source.label) == 10_000
    assert (source.split == UNASSIGNED).all()


def test_a_tfds_version_may_be_named(tfds_dir):
    source = sources.open_source("tfds:mnist:3.0.1", data_dir=tfds_dir, train="test[:7]", test="")
    assert len(source.label) == 7


def test_two_tfds_sets_share_no_id(opened):
    first, second = (set(source.ids(np.arange(0, 70_000, 7))) for source in opened.values())
    assert not first & second


def test_real_sets_make_a_pool(opened, tfds_dir):

    mnist, fashion = opened.values()
    pool = build_pool(
        {
            "known": [Selection(mnist, ("0", "1"), limit=500)],
            "negatives": [Selection(fashion, ("Bag",), limit=300)],
            "unknown": [Selection(fashion, ("Coat",))],
        }
    )
    assert pool.counts()["unknown"]["Coat"] == {"train": 0, "validation": 0, "test": 1000}
    assert sum(pool.counts()["negatives"]["Bag"].values()) == 300


# --- TFDS: errors -----------------------------------------------------------------------------------------------------


def test_a_tfds_set_that_does_not_exist_is_named(tmp_path):
    message = error("tfds:nosuchset", data_dir=str(tmp_path))
    assert "tfds:nosuchset" in message
    assert "no such data set" in message


def test_a_tfds_version_that_does_not_exist_is_an_error(tfds_dir):
    message = error("tfds:mnist:9.9.9", data_dir=tfds_dir)
    assert "9.9.9" in message
    assert "3.0.1" in message


def test_a_tfds_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    message = error("tfds:cifar10", data_dir=str(tmp_path))
    assert "not prepared in" in message
    assert "download_and_prepare()" in message
    assert str(tmp_path) in message
    assert "cifar10" in message


def test_a_tfds_folder_that_does_not_exist_is_named(tmp_path):
    assert f"'{tmp_path}/absent' is not a folder" in error("tfds:mnist", data_dir=f"{tmp_path}/absent")


@pytest.mark.parametrize("options", [{"train": "trian"}, {"validation": "dev[:10%]"}, {"test": "tset"}])
def test_a_split_that_a_tfds_set_does_not_have_is_named_beside_those_it_has(tfds_dir, options):
    message = error("tfds:mnist", data_dir=tfds_dir, **options)
    assert f"no split {next(iter(options.values()))!r}" in message
    assert "train, test" in message


@pytest.mark.parametrize("split", ["train[:x%]", "train[10", "train[:10%", "train[:200%]"])
def test_a_slice_that_cannot_be_read_is_named(tfds_dir, split):
    message = error("tfds:mnist", data_dir=tfds_dir, train=split)
    assert "tfds:mnist" in message
    assert split in message


@pytest.mark.parametrize("options", [{"train": "train[:0]", "test": ""}, {"train": "", "test": ""}])
def test_a_tfds_set_of_which_nothing_is_taken_is_an_error(tfds_dir, options):
    assert "tfds:mnist" in error("tfds:mnist", data_dir=tfds_dir, **options)


def test_a_tfrecord_file_that_is_cut_off_says_so(tfds_dir, tmp_path):
    import shutil

    copy = tmp_path / "mnist/3.0.1"
    shutil.copytree(pathlib.Path(tfds_dir) / "mnist/3.0.1", copy)
    shard = next(copy.glob("mnist-test.tfrecord*"))
    os.chmod(shard, 0o644)
    os.truncate(shard, 1_000_000)
    message = error("tfds:mnist", data_dir=str(tmp_path), train="test", test="")
    assert shard.name in message
    assert "cut off" in message


def test_an_array_record_file_that_is_cut_off_says_so(tfds_dir, tmp_path):
    import shutil

    copy = tmp_path / "fashion_mnist/3.0.1"
    shutil.copytree(pathlib.Path(tfds_dir) / "fashion_mnist/3.0.1", copy)
    shard = next(copy.glob("fashion_mnist-test.array_record*"))
    os.chmod(shard, 0o644)
    os.truncate(shard, 1_000_000)
    message = error("tfds:fashion_mnist", data_dir=str(tmp_path), train="test", test="")
    assert shard.name in message


@pytest.mark.parametrize("name", SETS)
def test_a_missing_shard_is_named(tfds_dir, tmp_path, name):
    import shutil

    shutil.copytree(pathlib.Path(tfds_dir) / name[5:], tmp_path / name[5:])
    shard = next((tmp_path / name[5:]).glob("*/*-test*"))
    shard.unlink()
    message = error(name, data_dir=str(tmp_path))
    assert shard.name in message
