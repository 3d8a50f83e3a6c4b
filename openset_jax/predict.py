"""Classifies image files with a trained run and its saved decision rule: a class or "none" for each image.

python -m openset_jax.predict --workdir=runs/mine PHOTOS 'more/*.jpg' --out=predictions.csv

In Python:

    from openset_jax.predict import Predictor
    predict = Predictor("runs/mine")
    rows = list(predict(["photos"]))
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import glob
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.files import write_whole

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.data.pools import Pool
    from openset_jax.data.unreadable import Unreadable
    from openset_jax.openset.scored import Scored

Row = dict[str, str | float | None]  # the result for one image: a value for each name in COLUMNS
COLUMNS = ("id", "decision", "p_none", "best_class", "p_best", "score", "threshold", "error")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_string("out", None, "File to write, .csv or .jsonl: a row for each image.", required=True)
    flags.DEFINE_string(
        "priors",
        "",
        'Class frequencies of these images, as --config.decision.prior: "none=0.6"; or "em" or "bbse" to estimate them '
        "from the images under label shift. An estimate needs some hundreds of images; a warning is printed if the images "
        "contradict label shift.",
    )
    flags.DEFINE_string("costs", "", 'Costs of mistakes, as --config.decision.costs: "accept_none=5".')
    flags.DEFINE_float("threshold", None, "Replaces the saved threshold: images with score <= threshold are accepted.")
    flags.DEFINE_integer("batch_size", 256, "Batch size, rounded up to a multiple of the number of devices.", lower_bound=1)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    from tqdm import tqdm

    args, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out).expanduser()
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out: {str(out)!r} ends in neither .csv nor .jsonl")
    if out.exists() and not out.is_file():
        raise UserError(f"--out: {str(out)!r} is a folder or a device, not a file")
    cli.make_workdir(str(out.parent))
    files = find_images(arguments)
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in files):
        raise UserError(f"--out: {str(out)!r} is one of the files to classify; write to another file")
    counts, notes = collections.Counter[str](), list[str]()
    predict = Predictor(
        args.workdir, priors=args.priors, costs=args.costs, threshold=args.threshold, batch_size=args.batch_size,
        report=notes.append, progress=lambda count: bar.update(count),
    )  # fmt: skip
    with write_whole(out, newline="") as file, tqdm(total=len(files), unit=" images", smoothing=0.1) as bar:
        write = _writer(file, suffix)
        for row in predict(files):
            write(row)
            counts[str(row["decision"] or "error")] += 1
    print(*notes, sep="\n", end="\n" * bool(notes))
    print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
    print(f"{len(files):,} rows in {out}; accepted: score <= {predict.classifier.threshold.value:.6g}")


def find_images(paths: Sequence[str]) -> list[str]:
    """Lists image files, each once: the given files, the images in folders and their subfolders, the matches of globs.

    Raises:
      UserError: a path does not exist, a folder cannot be listed, or there is no image.
    """
    found: dict[str, None] = {}
    for path in map(str, paths):
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise UserError(f"{path!r}: there is no such file or folder, and no file matches it")
        for match in matches:
            inside = _images_below(match) if os.path.isdir(match) else [match]
            # skips pipes and devices, whose reading may never end
            found |= dict.fromkeys(p for p in inside if os.path.isfile(p) or os.path.islink(p))
    if not found:
        raise UserError(f"no images in {', '.join(map(repr, paths)) or 'no paths'}: give files, folders or globs")
    return list(found)


def _images_below(folder: str) -> list[str]:
    from openset_jax.data.folders import IMAGE_SUFFIXES

    def refuse(error):
        raise UserError(f"{error.filename!r} cannot be listed: {error.strerror}")

    below = (pathlib.Path(top, name) for top, _, names in os.walk(folder, onerror=refuse) for name in names)
    return [file for file in map(str, sorted(below)) if file.lower().endswith(IMAGE_SUFFIXES)]


def file_pool(files: Sequence[str]) -> Pool:
    """Returns a `Pool` of these files, in order, without known classes: all are unknowns of the test split."""
    from openset_jax.data import pools

    names, nothing = [os.fsencode(file) for file in files], np.zeros(len(files), np.int32)
    source = pools.Source(
        name="files", classes=("",), roles=None, label=nothing, split=np.full(len(files), pools.TEST, np.uint8),
        format="path", ids=lambda records: [files[r] for r in records], fetch=lambda records: [names[r] for r in records],
    )  # fmt: skip
    return pools.Pool(
        sources=(source,), groups=("",), roles=("unknown",), num_classes=0, source=nothing, record=np.arange(len(files)),
        group=nothing, split=source.split, key=np.arange(len(files), dtype=np.uint64),
    )  # fmt: skip


class Predictor:
    """Classifies image files with the network and the saved decision rule of a run.

    Args:
      priors: as `decision.prior` of its config; "" for the saved prior; "em" or "bbse" to estimate the class frequencies
        from the images of each call; then all images are read before the first row is yielded.
      costs: as `decision.costs` of its config; "" for the saved costs.
      threshold: replaces the saved one.
      batch_size: rounded up to a multiple of the number of devices.
      report: called with the estimated class frequencies, and a warning if they cannot be trusted.
      progress: called with the number of images of each batch that was read.

    Attributes:
      classifier: the saved one with the overrides. With priors="em" or "bbse", its prior is the estimate of the last call.

    Raises:
      UserError: the run has no checkpoint or no decision.json, or an override is invalid.
    """

    def __init__(
        self, workdir: str | pathlib.Path, *, priors: str = "", costs: str = "", threshold: float | None = None,
        batch_size: int = 256, report: Callable[[str], None] = print, progress: Callable[[int], None] = lambda count: None,
    ):  # fmt: skip
        from openset_jax.openset.decision import deployment
        from openset_jax.platforms import xla
        from openset_jax.training import checkpoints, devices, saved_decision
        from openset_jax.training.eval_program import make_eval_steps
        from openset_jax.training.image_input import streamed
        from openset_jax.training.restore import restore

        xla.cache_compilations()
        workdir = pathlib.Path(workdir).expanduser().resolve()
        checkpoints.open_checkpoints(workdir).close()  # first: its error tells the user to train, not to evaluate
        step, saved, _ = saved_decision.read(workdir)
        estimated = priors in deployment.ESTIMATES
        self.classifier = deployment.declare(saved, priors="" if estimated else priors, costs=costs, threshold=threshold)
        self._estimate_prior: Callable[[np.ndarray], tuple[np.ndarray, str]] | None = None
        if estimated:
            deployment.check_posterior(saved, f"--priors={priors}")
            logits, label = saved_decision.read_outputs(workdir, step)
            self._estimate_prior = functools.partial(deployment.estimate_prior, priors, saved, logits, label)
            self._estimate_prior(logits[:1])  # a trial that may raise before images are read
        network = restore(workdir, step=step)
        if network.classes != saved.classes:
            raise UserError(
                f"--workdir: {workdir / saved_decision.DECISION} belongs to another run: it has the classes "
                f"{', '.join(saved.classes)}, but the checkpoint has {', '.join(network.classes)}. Delete it and run "
                f"python -m openset_jax.evaluate --workdir={workdir}"
            )
        self._stored_size, self._variables = network.spec.images.stored_size, network.variables
        no_batches = lambda batches: iter(())  # `__call__` makes an input for its own files
        self._steps = make_eval_steps(network.spec.program.forward, network.model, streamed(no_batches))
        self._batch_size = devices.padded_batch_size(batch_size)
        self._report, self._progress = report, progress

    def __call__(self, paths: Sequence[str]) -> Iterator[Row]:
        """Classifies files, folders and globs; yields a row for each image.

        "id" is the path, "decision" a class or "none". Missing values are None; unreadable files have only "id" and "error".

        Raises:
          UserError: a path does not exist, there is no image, or the class frequencies cannot be estimated.
        """
        from openset_jax.data.unreadable import Unreadable

        files = find_images(paths)
        pool = file_pool(files)
        unreadable = Unreadable(pool, 1.0, report=lambda line: None)
        outputs = self._outputs(pool, unreadable)
        if self._estimate_prior:
            outputs = iter(read := list(outputs))
            prior, text = self._estimate_prior(np.concatenate([logits for *_, logits in read]))
            self.classifier = dataclasses.replace(self.classifier, prior=prior)
            self._report(text)
        for asked, rows, logits in outputs:
            no_labels = np.zeros(len(rows), int)
            scored, posterior = self.classifier.classify(logits, no_labels, no_labels)
            place = {row: i for i, row in enumerate(rows.tolist())}
            for row in asked:
                if row in place:
                    yield self._row(files[row], place[row], scored, posterior)
                else:
                    yield {**dict.fromkeys(COLUMNS), "id": files[row], "error": unreadable.rows[row]}

    def _outputs(self, pool: Pool, unreadable: Unreadable) -> Iterator[tuple[range, np.ndarray, np.ndarray]]:
        """Yields (requested rows, readable rows, logits of these) for each batch; adds the others to `unreadable`."""
        from openset_jax.training import input_choice
        from openset_jax.training.inference import Inference

        size = self._batch_size
        images = input_choice.make_image_input("stream", pool, stored_size=self._stored_size, unreadable=unreadable)
        inference = Inference(self._steps, pool, images, batch_size=size, unreadable=unreadable)
        found = inference.run("logits", self._variables, np.arange(len(pool)))
        for start, (rows, out) in zip(range(0, len(pool), size), found, strict=True):
            asked = range(start, min(start + size, len(pool)))
            self._progress(len(asked))
            yield asked, rows, out["logits"]

    def _row(self, file: str, i: int, scored: Scored, posterior: np.ndarray | None) -> Row:
        from openset_jax.openset.decision import thresholds

        names = [*self.classifier.classes, "none"]
        best = int(scored.known_class[i]) if posterior is None else int(posterior[i, :-1].argmax())
        assert scored.decision is not None
        return {
            "id": file,
            "decision": names[scored.decision[i]],
            "p_none": None if posterior is None else float(posterior[i, -1]),
            "best_class": names[best],
            "p_best": None if posterior is None else float(posterior[i, best]),
            "score": float(scored.score[i]),
            "threshold": thresholds.json_number(self.classifier.threshold.value),
            "error": None,
        }


def _writer(file: IO[str], suffix: str) -> Callable[[Row], Any]:
    if suffix == ".jsonl":
        return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    text = lambda value: "" if value is None else repr(value) if isinstance(value, float) else value
    return lambda row: writer.writerow([text(row[name]) for name in COLUMNS])


if __name__ == "__main__":
    cli.run(main, define_flags, takes_arguments=True)
