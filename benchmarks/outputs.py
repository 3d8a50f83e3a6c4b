"""The JSON file that a benchmark writes its result to: its flag --json."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from openset_jax.errors import UserError
from openset_jax.files import write_whole


def json_file(path: str) -> pathlib.Path | None:
    """The file of --json; None for "". To be called before measuring.

    Raises:
      UserError: the file cannot be written.
    """
    if not path:
        return None
    file = pathlib.Path(path).expanduser()
    if not file.parent.is_dir() or file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"--json: {path!r} cannot be written")
    return file


def write_json(file: pathlib.Path | None, result: Mapping[str, Any]) -> None:
    """Writes the result, if there is a file. A benchmark may call this several times, as the result grows."""
    if file is not None:
        with write_whole(file) as out:
            out.write(json.dumps(result, indent=2) + "\n")
