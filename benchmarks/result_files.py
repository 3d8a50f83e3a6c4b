"""The files that `benchmarks.suite` writes: results.json, results.md, throughput.png and logs.tar.gz."""

import io
import json
import pathlib
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results as texts
from openset_jax.files import write_whole

FILES = ("results.json", "results.md", "throughput.png", "logs.tar.gz")
_MOST_BYTES = 8 << 20  # larger files are not archived


class ResultFiles:
    """The files of one suite. Those of an earlier suite are removed.

    Args:
      out: folder of the files.
      scratch: folder of the suite's processes.
      archived: folders in `scratch` that go into logs.tar.gz.
    """

    def __init__(self, out: pathlib.Path, scratch: pathlib.Path, archived: Sequence[str]):
        self._out, self._scratch, self._archived, self._drawn = out, scratch, archived, 0
        for name in FILES:
            (out / name).unlink(missing_ok=True)

    def write(self, everything: Mapping[str, Any]) -> None:
        """Writes all files, each of them whole.

        Args:
          everything: the content of results.json.
        """
        contents = [
            json.dumps(everything, indent=2).encode() + b"\n",
            texts.section(everything).encode(),
            self._figure(everything),
            self._archive(),
        ]
        for name, content in zip(FILES, contents, strict=True):
            if content:
                with write_whole(self._out / name, "wb") as file:
                    file.write(content)

    def _figure(self, everything: Mapping[str, Any]) -> bytes:
        """The content of the figure; b"" if there are no new rows."""
        rows = [row for row in everything["table"] if row.get("figure", True)]
        if len(rows) == self._drawn:
            return b""
        from benchmarks import figure  # starts Matplotlib, which --help does not need

        path, machine, self._drawn = self._scratch / "throughput.png", everything["machine"], len(rows)
        figure.draw(path, rows, f"{texts.device(machine)}, {machine['cores']} cores, {machine['date']}")
        return path.read_bytes()

    def _archive(self) -> bytes:
        small = lambda entry: entry if not entry.isfile() or entry.size <= _MOST_BYTES else None
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            for name in self._archived:
                if (self._scratch / name).exists():
                    archive.add(self._scratch / name, arcname=name, filter=small)
        return content.getvalue()
