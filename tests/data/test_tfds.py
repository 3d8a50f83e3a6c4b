"""TFDS sets: the records of real sets, and errors that say what to do."""

import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from opening import check_columns, error
from PIL import Image

from openset_jax.data import sources
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.pools import TEST, TRAIN, UNASSIGNED, VALIDATION
from openset_jax.errors import UserError

# --- the real data ----------------------------------------------------------------------------------------------------

SETS = {"tfds:mnist": "tfrecord", "tfds:fashion_mnist": "array_record"}


@pytest.fixture(scope="module")
def opened(tfds_dir):
    """The source of each real set, opened once."""
    return {name: sources.open_source(name, data_dir=tfds_dir) for name in SETS}


def sequentially(name, split, data_dir, count):
    """Returns the first `count` pairs (image, label), read in sequence by TFDS."""
    import tensorflow_datasets as tfds

    if SETS[name] == "array_record":
        records = tfds.data_source(name[5:], data_dir=data_dir, split=split, download=False)
        examples = [records[i] for i in range(count)]
    else:
        dataset = tfds.load(name[5:], data_dir=data_dir, split=split, download=False, shuffle_files=False)
        examples = dataset.take(count).as_numpy_iterator()
    return [(example["image"], int(example["label"])) for example in examples]


def decode(serialized, key="image"):
    """Decodes the image of a serialised tf.Example, without the code under test."""
    import tensorflow as tf

    example = tf.train.Example.FromString(serialized)
    return np.asarray(Image.open(io.BytesIO(example.features.feature[key].bytes_list.value[0])))


@pytest.mark.parametrize("name", SETS)
def test_a_tfds_set_has_all_its_records_with_their_classes_and_splits(opened, name):
    source = opened[name]
    check_columns(source)
    assert np.bincount(source.split).tolist()[TRAIN::2] == [60_000, 10_000]
    assert (source.split == VALIDATION).sum() == 0
    assert source.format == "example:image"
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


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_tfds_set_that_does_not_exist_is_named(tmp_path):
    message = error("tfds:nosuchset", data_dir=str(tmp_path))
    assert "tfds:nosuchset" in message
    assert "TFDS cannot open this data set" in message


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


@pytest.mark.parametrize("record", [b"\xff\xfe no example", b""])
def test_a_damaged_record_is_an_error_that_names_its_file(record):
    tfds = pytest.importorskip("openset_jax.data.tfds")
    with pytest.raises(UserError, match="mnist-00: a record is damaged, or has no label 'label'"):
        tfds._parse_labels("mnist-00", [record], "label")


def error_of_a_cut_file(tfds_dir, folder, name, kind):
    """(name of the file that is cut, the error message)."""
    copy = folder / name / "3.0.1"
    shutil.copytree(pathlib.Path(tfds_dir) / name / "3.0.1", copy)
    shard = next(copy.glob(f"{name}-test.{kind}*"))
    os.chmod(shard, 0o644)
    os.truncate(shard, 1_000_000)
    return shard.name, error(f"tfds:{name}", data_dir=str(folder), train="test", test="")


def test_a_tfrecord_file_that_is_cut_off_says_so(tfds_dir, tmp_path):
    file, message = error_of_a_cut_file(tfds_dir, tmp_path, "mnist", "tfrecord")
    assert file in message
    assert "cut off" in message


def test_an_array_record_file_that_is_cut_off_says_so(tfds_dir, tmp_path):
    file, message = error_of_a_cut_file(tfds_dir, tmp_path, "fashion_mnist", "array_record")
    assert file in message


@pytest.mark.parametrize("name", SETS)
def test_a_missing_shard_is_named(tfds_dir, tmp_path, name):
    shutil.copytree(pathlib.Path(tfds_dir) / name[5:], tmp_path / name[5:])
    shard = next((tmp_path / name[5:]).glob("*/*-test*"))
    shard.unlink()
    message = error(name, data_dir=str(tmp_path))
    assert shard.name in message
