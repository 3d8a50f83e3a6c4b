"""Files that are there whole or not at all."""

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
