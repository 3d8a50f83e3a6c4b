"""Images of your own -> a class or "none" for each, by the decision that was saved with a run.

python -m openset_jax.predict --workdir=runs/mine PHOTOS 'more/*.jpg' --out=predictions.csv

From Python:

    from openset_jax.predict import Predictor
    predict = Predictor("runs/mine")
    rows = list(predict(["photos"]))
"""

import collections
import csv
import dataclasses
import glob
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.files import write_whole

COLUMNS = ("id", "decision", "p_none", "best_class", "p_best", "score", "threshold", "error")


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_string("out", None, "File to write, .csv or .jsonl: a row for each image.", required=True)
    flags.DEFINE_string(
        "priors",
        "",
        'How often classes come here, as --config.decision.prior: "none=0.6"; or "em" or "bbse", which estimate it from the '
        "images given, as a mix of the kinds of images in the validation split: needs some hundreds of images, and warns "
        "where they are of other kinds.",
    )
    flags.DEFINE_string("costs", "", 'What mistakes cost here, as --config.decision.costs: "accept_none=5".')
    flags.DEFINE_float("threshold", None, "Accept scores up to this, instead of the saved threshold.")
    flags.DEFINE_integer("batch_size", 256, "Images at once.", lower_bound=1)


def main(arguments: list[str]) -> None:
    from tqdm import tqdm

    args, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out).expanduser()
    if out.suffix not in (".csv", ".jsonl"):
        raise UserError(f"--out: {str(out)!r} ends in neither .csv nor .jsonl")
    if out.is_dir():
        raise UserError(f"--out: {str(out)!r} is a folder")
    cli.make_workdir(str(out.parent))
    files = find_images(arguments)
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in files):
        raise UserError(f"--out: {str(out)!r} is one of the files to classify; write to another file")
    counts, said = collections.Counter(), []
    predict = Predictor(
        args.workdir, priors=args.priors, costs=args.costs, threshold=args.threshold, batch_size=args.batch_size,
        report=said.append, progress=lambda count: bar.update(count),
    )  # fmt: skip
    with write_whole(out, newline="") as file, tqdm(total=len(files), unit=" images", smoothing=0.1) as bar:
        write = _writer(file, out.suffix)
        for row in predict(files):
            write(row)
            counts[row["decision"] or "error"] += 1
    print(*said, sep="\n", end="\n" * bool(said))
    print(", ".join(f"{name} {count:,}" for name, count in counts.most_common()))
    print(f"{len(files):,} rows in {out}; accepted: score <= {predict.classifier.threshold.value:.6g}")


def find_images(paths: Sequence[str]) -> list[str]:
    """The files that these name: files as they are, images in folders and below, and what globs match; each once, in order.

    Raises:
      UserError: a path is nothing, a folder cannot be listed, or there is no image.
    """
    from openset_jax.data.sources import IMAGE_SUFFIXES

    found = {}
    for path in map(str, paths):
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise UserError(f"{path!r}: there is no such file or folder, and no file matches it")
        for match in matches:
            inside = [match]
            if os.path.isdir(match):
                inside = [p for p in _files_below(match) if p.lower().endswith(IMAGE_SUFFIXES)]
            found |= dict.fromkeys(p for p in inside if os.path.isfile(p) or os.path.islink(p))  # a pipe would wait for ever
    if not found:
        raise UserError(f"no images in {', '.join(map(repr, paths)) or 'no paths'}: give files, folders or globs")
    return list(found)


def _files_below(folder):
    def refuse(error):
        raise UserError(f"{error.filename!r} cannot be listed: {error.strerror}")

    below = (pathlib.Path(top, name) for top, _, names in os.walk(folder, onerror=refuse) for name in names)
    return map(str, sorted(below))


def file_pool(files: Sequence[str]) -> Any:
    """The `Pool` of these image files, in order, without classes."""
    from openset_jax.data import pools

    names, nothing = [os.fsencode(file) for file in files], np.zeros(len(files), np.int32)
    source = pools.Source(
        name="files", classes=("",), roles=None, label=nothing, split=np.full(len(files), pools.TEST, np.uint8),
        form="path", ids=lambda records: [files[r] for r in records], fetch=lambda records: [names[r] for r in records],
    )  # fmt: skip
    return pools.Pool(
        sources=(source,), groups=("",), roles=("unknown",), num_classes=0, source=nothing, record=np.arange(len(files)),
        group=nothing, split=source.split, key=np.arange(len(files), dtype=np.uint64),
    )  # fmt: skip


class Predictor:
    """A restored run, ready to classify files.

    Args:
      workdir: of the run.
      priors: as `decision.prior` of its config; "" for those that it was evaluated with; "em" or "bbse" to estimate the mix
        of classes from the images of each call, all of which are then read before the first is decided.
      costs: as `decision.costs` of its config; "" for those that it was evaluated with.
      threshold: in place of the saved one.
      batch_size: images at once.
      report: called with what is to be said of an estimated mix: its shares, and a warning if it cannot be trusted.
      progress: called with a number of images, whenever so many more were read.

    Attributes:
      classifier: what was fitted on validation images, an `openset.classifier.Classifier`, with the overrides; its prior is
        the one last estimated.

    Raises:
      UserError: no checkpoint, no decision, or an override that cannot be.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        priors: str = "",
        costs: str = "",
        threshold: float | None = None,
        batch_size: int = 256,
        report: Callable[[str], None] = print,
        progress: Callable[[int], None] = lambda count: None,
    ):
        import jax

        from openset_jax import programs
        from openset_jax.openset.decision import deployment
        from openset_jax.training import checkpoints, devices, feed, validation
        from openset_jax.training.restore import restore

        devices.cache_compilations()
        workdir = pathlib.Path(workdir).expanduser().resolve()
        checkpoints.open_checkpoints(workdir).close()  # without any, the answer is to train, not to evaluate
        step, fitted, _ = validation.saved_decision(workdir)
        self._estimate = priors if priors in deployment.ESTIMATES else ""
        declared = "" if self._estimate else priors
        self.classifier = deployment.declare(fitted, priors=declared, costs=costs, threshold=threshold)
        if self._estimate:
            deployment.check_posterior(fitted, f"--priors={priors}")
            self._validation = validation.saved_outputs(workdir, step)
            self._estimate_prior(self._validation[0][:1])  # what cannot be is said before images are read
        run = restore(workdir, step=step)
        if run.classes != fitted.classes:
            raise UserError(
                f"--workdir: {workdir / validation.DECISION} is of another run: its classes are "
                f"{', '.join(fitted.classes)}, those of the checkpoint {', '.join(run.classes)}"
            )
        self._config, self._variables = run.config, run.variables
        self._config.input, self._config.shard_resident = "stream", False
        self._steps = programs.make_eval_steps(run.config, run.model, feed.IMAGES_IN_BATCH)  # compiled once for all calls
        self._batch_size = batch_size + -batch_size % jax.device_count()
        self._report, self._progress = report, progress

    def __call__(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Classifies files, folders and globs; a file that cannot be read gives a row with its error, and the rest go on.

        Yields:
          {"id": the path, "decision": a class or "none", "p_none", "best_class", "p_best", "score", "threshold", "error"};
          numbers are None where there is none, and of a file that cannot be read all but "id" and "error" are.

        Raises:
          UserError: a path is nothing, there is no image, or the mix of classes cannot be estimated.
        """
        files = find_images(paths)
        skipped, outputs = self._read(files)
        if self._estimate:
            outputs = list(outputs)
            prior, text = self._estimate_prior(np.concatenate([logits for *_, logits in outputs]))
            self.classifier = dataclasses.replace(self.classifier, prior=prior)
            self._report(text)
        for asked, rows, logits in outputs:
            scored, posterior = self.classifier.classify(logits, *2 * [np.zeros(len(rows), int)])
            found = dict(zip(rows.tolist(), range(len(rows)), strict=True))
            for row in asked:
                if row in found:
                    yield self._row(files[row], found[row], scored, posterior)
                else:
                    yield dict.fromkeys(COLUMNS) | {"id": files[row], "error": skipped.rows[row]}

    def _estimate_prior(self, logits):
        from openset_jax.openset.decision import deployment

        return deployment.estimate_prior(self._estimate, self.classifier, *self._validation, logits)

    def _read(self, files):
        """(Those of the files that cannot be read, outputs batch by batch: the rows asked for, those read, their logits.)"""
        from openset_jax import build
        from openset_jax.data.unreadable import Skipped
        from openset_jax.training.inference import Inference

        pool, size = file_pool(files), self._batch_size
        skipped = Skipped(pool, 1.0, report=lambda line: None)
        feed = build.make_feed(self._config, pool, skipped)
        inference = Inference(self._steps, pool, feed, batch_size=size, skipped=skipped)

        def outputs():
            found = inference.run("logits", self._variables, np.arange(len(files)))
            for start, (rows, out) in zip(range(0, len(files), size), found, strict=True):
                asked = range(start, min(start + size, len(files)))
                self._progress(len(asked))
                yield asked, rows, out["logits"]

        return skipped, outputs()

    def _row(self, file, i, scored, posterior):
        from openset_jax.openset.decision import thresholds

        names = [*self.classifier.classes, "none"]
        best = int(scored.known_class[i]) if posterior is None else int(posterior[i, :-1].argmax())
        return {
            "id": file,
            "decision": names[scored.decision[i]],
            "p_none": None if posterior is None else float(posterior[i, -1]),
            "best_class": names[best],
            "p_best": None if posterior is None else float(posterior[i, best]),
            "score": float(scored.score[i]),
            "threshold": thresholds.plain(self.classifier.threshold.value),
            "error": None,
        }


def _writer(file, suffix):
    if suffix == ".jsonl":
        return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    text = lambda value: "" if value is None else repr(value) if isinstance(value, float) else value
    return lambda row: writer.writerow([text(row[name]) for name in COLUMNS])


if __name__ == "__main__":
    cli.run(main, define_flags, arguments=True)
