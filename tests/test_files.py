"""Files are written completely or not at all, whatever interrupts the writing."""

import pytest

from openset_jax.files import write_whole


def test_a_file_takes_its_place_when_it_is_finished(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with write_whole(path) as file:
        file.write("after \udcff")
        assert path.read_text() == "before"
    assert path.read_bytes() == b"after \xff"
    with pytest.raises(KeyError), write_whole(path, "wb") as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"after \xff"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, GeneratorExit])
def test_what_ends_the_writing_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "rows.csv"
    with write_whole(path) as file:
        file.write("old")
    with pytest.raises(error), write_whole(path) as file:
        file.write("half of the n")
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]
    assert path.read_text() == "old"


def test_file_names_that_are_no_text_keep_their_bytes(tmp_path):
    with write_whole(tmp_path / "rows.csv") as file:
        file.write("caf\udce9.jpg")
    assert (tmp_path / "rows.csv").read_bytes() == b"caf\xe9.jpg"
