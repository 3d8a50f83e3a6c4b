"""Folders of images: every file under its role or split and its class, and errors that say what to do."""

import os
import pathlib

import numpy as np
import pytest
from opening import check_columns, error, everything, touch

from openset_jax.data import sources
from openset_jax.data.pool_builder import Selection, build_pool, check_negatives
from openset_jax.data.pools import TEST, TRAIN, UNASSIGNED, VALIDATION
from openset_jax.errors import UserError

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
    assert source.format == "path"


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


def test_what_is_not_an_image_file_is_left_out_and_counted(tmp_path):
    name = touch(
        tmp_path, "known/cat/1.jpg", "known/cat/notes.txt", "known/cat/jpg", "known/cat/2.gif", "known/cat/sub/more.txt",
        "known/loose.jpg", "readme.png", "other/cat/3.jpg",
    )  # fmt: skip
    source = sources.open_source(name)
    assert everything(source).keys() == {"known/cat/1.jpg", "known/cat/2.gif"}
    assert (
        f"3 files in '{tmp_path}/known/cat' left out: 2 .txt (no image), 1 without a usual suffix (no image)" in source.notes
    )


def test_images_in_the_wrong_place_are_named_beside_the_nearest_role(tmp_path):
    name = touch(
        tmp_path, "known/cat/1.jpg", "known/1.jpg", "known/2.png", "known/3.txt", "cover.png", "unknowns/dog/1.webp",
        "unknowns/dog/.2.jpg", "unknowns/dog/sub/3.jpg", "Negatives/1.jpg", "others/1.jpg", "documents/a.txt", ".git/1.jpg",
    )  # fmt: skip
    (tmp_path / "negatives").mkdir()
    (tmp_path / "negatives/car").symlink_to("../others")  # used, so not in the wrong place
    none = "this folder is none of known, negatives, held_out_negatives, unknown"
    assert sources.open_source(name).notes == (
        f"Warning: not used: 1 image in '{tmp_path}'; move images to ROLE/CLASS/",
        f"Warning: not used: 2 images in '{tmp_path}/known'; move images to known/CLASS/",
        f"Warning: not used: 1 image in '{tmp_path}/Negatives'; {none}; is it meant as negatives/?",
        f"Warning: not used: 2 images in '{tmp_path}/unknowns'; {none}; is it meant as unknown/?",
    )


def test_images_beside_the_classes_of_a_split_are_named(tmp_path):
    name = touch(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "test/2.jpg", "cover.png", "extra/cat/3.jpg")
    (note,) = sources.open_source(name).notes
    assert note == f"Warning: not used: 1 image in '{tmp_path}/test'; move images to test/CLASS/"


def test_a_missing_role_names_the_folder_that_may_be_meant(tmp_path):
    message = error(touch(tmp_path, "Known/cat/1.jpg", "unknown/dog/1.jpg"))
    assert message.endswith(f"must include {tmp_path}/known/CLASS/; is Known/ meant as known/?")
    name = touch(tmp_path, *(f"known/{cls}/{i}.jpg" for cls in ("cat", "dog") for i in range(30)), "Negatives/1.jpg")
    pool = build_pool({"known": [Selection(sources.open_source(name))]})
    with pytest.raises(UserError, match=r"Add negatives, or use .*not used: 1 image in .*; is it meant as negatives/\?\)$"):
        check_negatives(pool)


def test_a_class_without_images_says_why(tmp_path):
    name = touch(tmp_path, *(f"known/cat/{i}.jpg" for i in range(30)), "known/dog/1.txt")
    with pytest.raises(
        UserError,
        match=r"'dog' has no images that this role uses; .* \(1 file in .*/known/dog' left out: 1 \.txt \(no image\)",
    ):
        build_pool({"known": [Selection(sources.open_source(name))]})


@pytest.mark.parametrize(
    ("link", "target", "same"),
    [
        ("known/cat/more", "../../negatives", "negatives"),
        ("known/cat/more", "../../negatives/car", "negatives/car"),
        ("known/cat/up", "..", "known"),
        ("known/cat/root", "../..", ""),
        ("known/kitten", "cat", "known/cat"),
        ("unknown", "negatives", "negatives/car"),
    ],
)
def test_a_folder_in_two_classes_is_an_error(tmp_path, link, target, same):
    name = touch(tmp_path, "known/cat/1.jpg", "known/dog/1.jpg", "negatives/car/1.jpg")
    (tmp_path / link).symlink_to(target)
    assert f"'{(tmp_path / same)}' are the same folder, because of a link" in error(name)


def test_a_link_between_splits_is_an_error(tmp_path):
    name = touch(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg")
    (tmp_path / "test").symlink_to("val")
    assert "val/cat' and '" in error(name, validation="val") or "test/cat' and '" in error(name, validation="val")


def test_hidden_files_and_folders_in_a_class_are_left_out(tmp_path):
    name = touch(tmp_path, "known/cat/1.jpg", "known/cat/._1.jpg", "known/cat/.hidden/2.jpg")
    assert everything(sources.open_source(name)).keys() == {"known/cat/1.jpg"}


@pytest.mark.parametrize("layout", ["known", "train"])
def test_a_hidden_folder_is_not_a_class(tmp_path, layout):
    """Notebooks leave .ipynb_checkpoints behind; macOS and other systems leave folders of their own."""
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
    assert "no image files" in message
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


def test_a_root_one_level_too_deep_names_the_folder_above(tmp_path):
    touch(tmp_path, "known/cat/1.jpg", "packed/index.json")
    with pytest.raises(UserError, match=rf"; give the folder above, {tmp_path}$"):
        sources.open_source(f"folder:{tmp_path}/known", train="train")
    with pytest.raises(UserError, match=rf"; for packed arrays, use --config.data.packed={tmp_path}/packed$"):
        sources.open_source(f"folder:{tmp_path}/packed", train="train")
