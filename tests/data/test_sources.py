"""Opening a source by name: every kind, and errors that say what to do."""

import numpy as np
import pytest
from opening import check_columns, error
from sklearn.datasets import load_digits

from openset_jax.data import pools, sources
from openset_jax.data.pools import UNASSIGNED

# --- names of sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "mnist", "folder", "folder:", "packed:", "tfds:", "digits:big", "http://x.org/a"])
def test_an_unknown_kind_is_named_beside_the_known_ones(name):
    message = error(name)
    assert repr(name) in message
    assert "tfds:NAME, folder:PATH, packed:PATH, features:PATH, digits" in message


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_missing_folder_is_named(kind, tmp_path):
    assert f"there is no folder '{tmp_path}/absent'" in error(f"{kind}:{tmp_path}/absent")


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_file_is_not_a_folder(kind, tmp_path):
    (tmp_path / "file").touch()
    assert f"there is no folder '{tmp_path}/file'" in error(f"{kind}:{tmp_path}/file")


def test_two_splits_of_one_name_are_an_error(tmp_path):
    message = error(f"folder:{tmp_path}", train="all", test="all")
    assert "must be different splits, not all, all" in message


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_all_there_with_the_right_labels():
    source, expected = sources.open_source("digits", stored_size=8), load_digits()
    check_columns(source)
    assert source.classes == tuple("0123456789")
    assert source.roles is None
    assert source.array == pools.image_type(8)
    assert (source.split == UNASSIGNED).all()
    np.testing.assert_array_equal(source.label, expected.target)
    records = np.array([1796, 0, 1000])
    assert source.ids(records) == ["digits#1796", "digits#0", "digits#1000"]
    images = source.fetch(records)
    assert (images.dtype, images.shape) == (np.uint8, (3, 8, 8, 3))
    np.testing.assert_allclose(images, expected.images[records][..., None].repeat(3, -1) * 255 / 16, atol=0.5)


def test_digits_ignore_names_of_splits():
    assert (sources.open_source("digits", train="x", validation="y", test="z").split == UNASSIGNED).all()
