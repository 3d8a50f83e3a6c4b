"""Classifies image files or vectors with a trained run and its saved decision rule: a class or "none" for each image.

python -m openset_jax.predict --workdir=runs/mine PHOTOS 'more/*.jpg' --out=predictions.csv

In Python:

    from openset_jax.predict import Predictor
    predict = Predictor("runs/mine")
    rows = list(predict(["photos"]))  # or one image: a path, a Pillow image, uint8 [H, W, 3] or bytes
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import IO, Any

from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.predictor import COLUMNS, Predictor, Row
from openset_jax.text import abridged, show


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_string("out", None, "File to write, .csv or .jsonl: a row for each image.", required=True)
    flags.DEFINE_string(
        "priors",
        "",
        'Class frequencies of these images, as --config.decision.prior: "none=0.6"; or "em" or "bbse" to estimate them '
        "from the images under label shift. An estimate needs at least 100 images, and is printed with its standard errors, "
        "and with a warning if the images contradict label shift.",
    )
    flags.DEFINE_string("costs", "", 'Costs of mistakes, as --config.decision.costs: "accept_none=5".')
    flags.DEFINE_float("threshold", None, "Replaces the saved threshold: images with score <= threshold are accepted.")
    flags.DEFINE_integer("batch_size", 256, "Batch size, rounded up to a multiple of the number of devices.", lower_bound=1)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    from tqdm import tqdm

    from openset_jax.data import given_vectors
    from openset_jax.data.image_files import find_images

    args, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out).expanduser()
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out: {str(out)!r} ends in neither .csv nor .jsonl")
    if out.exists() and not out.is_file():
        raise UserError(f"--out: {str(out)!r} is a folder or a device, not a file")
    cli.make_workdir(str(out.parent))
    vectors = bool(arguments) and all(map(given_vectors.is_file_of_vectors, arguments))
    files = arguments if vectors else find_images(arguments)
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in files):
        raise UserError(f"--out: {str(out)!r} is one of the files to classify; write to another file")
    counts, notes = collections.Counter[Any](), list[str]()
    predict = Predictor(
        args.workdir, priors=args.priors, costs=args.costs, threshold=args.threshold, batch_size=args.batch_size,
        report=notes.append, progress=lambda count: bar.update(count),
    )  # fmt: skip
    given = given_vectors.open_files(files) if vectors else files
    count, noun = (len(given.ids), "vectors") if isinstance(given, given_vectors.GivenVectors) else (len(files), "images")
    rows = predict(given)  # raises errors before the progress bar is there
    with write_whole(out, newline="") as file, tqdm(total=count, unit=f" {noun}", smoothing=0.1) as bar:
        write = row_writer(file, suffix)
        for row in rows:
            write(row)
            counts[row["decision"]] += 1
    for line in [*notes, counts_line(counts)]:
        show(line)
    show(f"{count:,} rows in {out}; accepted: score <= {predict.classifier.threshold.value:.6g}")


def counts_line(counts: Mapping[str | None, int]) -> str:
    """Returns the number of images of each decision: the most frequent classes first, "none" and errors (None) last.

    Of very many classes the line has the most frequent ones.
    """
    classes = sorted(counts.keys() - {"none", None}, key=lambda name: (-counts[name], name))
    shown = [f"{name} {counts[name]:,}" for name in [*classes, *{"none"} & counts.keys()]]
    return ", ".join(filter(None, [abridged(shown), f"error {counts[None]:,}" if None in counts else ""]))


def row_writer(file: IO[str], suffix: str) -> Callable[[Row], Any]:
    """Returns a function that writes a row of `Predictor`, for a file ending in .csv or .jsonl."""
    from openset_jax.report import csv_rows

    if suffix == ".jsonl":  # a byte of a file name that is not UTF-8 becomes a JSON escape, which Python reads as this byte
        utf8 = lambda text: text.encode("utf-8", "backslashreplace").decode("utf-8")
        return lambda row: file.write(utf8(json.dumps(row, ensure_ascii=False)) + "\n")
    write = csv_rows.row_writer(file)
    write(COLUMNS)
    return lambda row: write([csv_rows.path_cell(str(row["id"])), *(row[name] for name in COLUMNS[1:])])


if __name__ == "__main__":
    cli.run(main, define_flags, takes_arguments=True)
