"""The walk over folders: by content, without hidden, special and repeated entries; what is left out has a reason."""

import io
import os
import stat

import pytest
from opening import touch
from PIL import Image

from openset_jax.data import image_files
from openset_jax.data.image_files import Walk, count_images, file_type, find_images, identity, shorten, subfolders
from openset_jax.data.image_format import READABLE
from openset_jax.errors import UserError

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, kind)
    return file.getvalue()


def test_files_are_judged_by_their_content_unless_their_suffix_says_it(tmp_path):
    touch(tmp_path, "a/1.JPG", "a/2.webp", "a/3.jfif", "a/4.tif", "a/5.txt", "a/6.heic", "a/b/7", "a/b/8.bin", "a/b/9.json~")
    (tmp_path / "a/6.heic").write_bytes(HEIC)
    (tmp_path / "a/b/7").write_bytes(encoded("png"))
    (tmp_path / "a/b/8.bin").write_bytes(encoded("jpeg"))
    walk = Walk(str(tmp_path), ["a"])
    assert walk.images == {"a": ["a/1.JPG", "a/2.webp", "a/3.jfif", "a/4.tif", "a/b/7", "a/b/8.bin"]}
    (note,) = walk.notes()
    assert note.startswith(f"3 files in '{tmp_path}/a' left out: ")
    assert set(note.partition("out: ")[2].split(", ")) == {
        "1 .txt (no image)", "1 .heic (this Pillow cannot read HEIC)", "1 without a usual suffix (no image)",
    }  # fmt: skip


def test_a_format_that_this_pillow_cannot_read_is_no_suffix_of_an_image():
    assert (".webp" in image_files.IMAGE_SUFFIXES) == ("webp" in READABLE)
    assert ".heic" not in image_files.IMAGE_SUFFIXES


def test_hidden_files_and_folders_are_skipped(tmp_path):
    touch(tmp_path, "1.jpg", "._1.jpg", ".ipynb_checkpoints/1.jpg", "sub/.2.jpg")
    walk = Walk(str(tmp_path), [""])
    assert walk.images == {"": ["1.jpg"]}
    assert walk.notes() == []


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_only_regular_files_are_opened_and_others_are_named(tmp_path):
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    os.mkfifo(tmp_path / "a/pipe")
    (tmp_path / "a/x.jpg").symlink_to("/dev/zero")
    (tmp_path / "a/link.jpg").symlink_to("pipe.jpg")
    walk = Walk(str(tmp_path), ["a"])
    assert walk.images == {"a": ["a/1.jpg"]}
    (note,) = walk.notes()
    assert note.startswith(f"4 files in '{tmp_path}/a' left out: ")
    assert note.count("(no regular file)") == 4
    assert "1 'pipe.jpg' (no regular file)" in note
    assert "1 'x.jpg' (no regular file)" in note


def test_links_that_lead_nowhere_are_left_to_the_decoder_if_they_are_called_images(tmp_path):
    for name, target in (("1.jpg", "nothing.jpg"), ("self.png", "self.png"), ("notes", "nothing"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    walk = Walk(str(tmp_path), [""])
    assert walk.images == {"": ["1.jpg", "self.png"]}
    assert "1 'loop' (a link that leads nowhere)" in walk.notes()[0]


def test_links_are_followed(tmp_path):
    touch(tmp_path, "here/1.jpg", "elsewhere/sub/2.jpg", "file.jpg")
    (tmp_path / "here/link").symlink_to("../elsewhere")
    (tmp_path / "here/3.jpg").symlink_to("../file.jpg")
    assert Walk(str(tmp_path), ["here"]).images == {"here": ["here/1.jpg", "here/3.jpg", "here/link/sub/2.jpg"]}


def test_a_folder_that_is_reached_twice_counts_once_where_no_link_leads_to_it(tmp_path):
    touch(tmp_path, "a/z/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "a/b").symlink_to("z")
    (tmp_path / "a/loop").symlink_to(".")
    (tmp_path / "a/z/up").symlink_to("..")
    (tmp_path / "a/link2").symlink_to("../elsewhere")
    (tmp_path / "a/link1").symlink_to("../elsewhere")
    walk = Walk(str(tmp_path), ["a"])
    assert walk.images == {"a": ["a/link1/2.jpg", "a/z/1.jpg"]}
    same = lambda link, first: f"'{tmp_path}/a/{link}' left out: it is the same folder as '{tmp_path}/{first}'"
    assert walk.notes() == [same("b", "a/z"), same("link2", "a/link1"), same("loop", "a"), same("z/up", "a")]


def test_a_folder_that_is_reached_from_two_folders_is_an_error_that_names_both(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/sub/2.jpg")
    (tmp_path / "a/more").symlink_to("../b/sub")
    with pytest.raises(UserError, match=r"/a/more' and '.*/b/sub' are the same folder, because of a link"):
        Walk(str(tmp_path), ["a", "b"])
    assert len(Walk(str(tmp_path), ["a"]).images["a"]) == 2


def test_a_link_to_a_folder_that_holds_the_classes_is_an_error(tmp_path):
    touch(tmp_path, "top/a/1.jpg")
    (tmp_path / "top/a/up").symlink_to("../..")
    with pytest.raises(UserError, match="top/a/up' and '.*' are the same folder"):
        Walk(str(tmp_path), ["top/a"], ["", "top"])


def test_many_notes_are_shortened(tmp_path):
    touch(tmp_path, *(f"{i:03}/{j}.{suffix}" for i in range(15) for j, suffix in enumerate("abcdefgh")))
    lines = shorten(Walk(str(tmp_path), [f"{i:03}" for i in range(15)]).notes())
    assert len(lines) == 11
    assert lines[0].endswith("(no image), ...")
    assert lines[-1] == "... and 5 more lines of this kind"
    assert shorten(["a"] * 11) == ("a",) * 11


def test_a_file_that_cannot_be_opened_has_its_reason(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.dat")

    def denied(path, *arguments, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(image_files, "open", denied, raising=False)
    assert Walk(str(tmp_path), ["a"]).notes()[0].endswith("left out: 1 .dat (Permission denied)")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nowhere' cannot be listed: No such file or directory"):
        Walk(str(tmp_path), ["nowhere"])


def test_what_lies_in_a_folder(tmp_path):
    touch(tmp_path, "b/1.jpg", "a/1.jpg", "1.jpg", "2.txt", ".3.jpg", ".c/1.jpg")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    assert subfolders(str(tmp_path)) == (["a", "b", "link"], 1)
    assert count_images(str(tmp_path), {identity(str(tmp_path / "b"))}) == 2
    assert file_type(str(tmp_path / "link")) == stat.S_IFDIR
    assert file_type(str(tmp_path / "loop")) == 0


def test_paths_may_be_files_folders_and_globs_and_count_once(tmp_path):
    photos = tmp_path / "photos"
    touch(photos, "b/2.png", "a/1.png", "4.png", "a/3.png")
    everything = find_images([photos])
    assert everything == sorted(everything)
    assert find_images([everything[3], photos, str(photos / "**/*.png")])[:2] == [everything[3], everything[0]]
    assert len(find_images([everything[3], photos, str(photos / "**/*.png")])) == len(everything)
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([photos / "nothing.jpg"])
    with pytest.raises(UserError, match="no images"):
        find_images([])


def test_a_file_is_listed_once_whatever_path_leads_to_it(tmp_path):
    (tmp_path / "x").mkdir()
    image = tmp_path / "a.png"
    image.touch()
    (tmp_path / "link").symlink_to(".")
    assert find_images([image, tmp_path / "x/../a.png", tmp_path / "link/a.png", tmp_path]) == [str(image)]


def test_a_folder_is_searched_as_training_does(tmp_path, capsys):
    (tmp_path / "photos/.hidden").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "photos/linked").symlink_to("../elsewhere")
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere/noname", "webp")
    for name in ("._a.png", ".hidden/b.png", "c.jpe", "notes.txt"):
        (tmp_path / "photos" / name).touch()
    found = find_images([tmp_path / "photos", tmp_path / "photos/notes.txt"])
    assert [file[len(str(tmp_path)) :] for file in found] == ["/photos/c.jpe", "/photos/linked/noname", "/photos/notes.txt"]
    assert capsys.readouterr().out == f"1 file in '{tmp_path}/photos' left out: 1 .txt (no image)\n"


def test_links_that_lead_nowhere_have_a_row_and_pipes_and_loops_are_left_alone(tmp_path):
    for name, target in (("loop", "."), ("broken.jpg", "nothing.jpg"), ("self.png", "self.png")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    said: list[str] = []
    assert find_images([tmp_path], said.append) == [str(tmp_path / "broken.jpg"), str(tmp_path / "self.png")]
    assert len(said) == 2 and "1 'pipe.jpg' (no regular file)" in said[1]
    assert find_images([tmp_path / "p*.jpg", tmp_path / "broken.jpg"], said.append) == [str(tmp_path / "broken.jpg")]
    assert said[2] == f"'{tmp_path}/pipe.jpg' left out: no regular file"


def test_a_folder_without_permission_is_an_error(tmp_path, monkeypatch):
    def denied(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="cannot be listed: Permission denied"):
        find_images([tmp_path])


def test_folders_of_systems_are_skipped_and_repeated_paths_are_named(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/a/1.jpg")
    said: list[str] = []
    image = str(tmp_path / "a/1.jpg")
    assert find_images([tmp_path], said.append) == [image] and not said
    assert find_images([image, tmp_path, image], said.append) == [image]
    assert said == ["2 paths to a file that is listed already left out"]
