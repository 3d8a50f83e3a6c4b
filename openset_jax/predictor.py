"""Classifies images with a trained run and its saved decision rule: class `Predictor`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openset_jax.errors import UserError
from openset_jax.text import abridged, show

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.data.given_images import GivenImage
    from openset_jax.data.given_vectors import GivenVectors
    from openset_jax.data.pools import Pool
    from openset_jax.data.unreadable import Unreadable
    from openset_jax.openset.scored import Scored

Row = dict[str, str | float | None]  # the result for one image: a value for each name in COLUMNS
COLUMNS = ("id", "decision", "p_none", "best_class", "p_best", "score", "threshold", "error")


class Predictor:
    """Classifies images with the network and the saved decision rule of a run.

    Args:
      priors: as `decision.prior` of its config; "" for the saved prior; "em" or "bbse" to estimate the class frequencies
        from the images of each call; then all images are read before the first row is yielded.
      costs: as `decision.costs` of its config; "" for the saved costs.
      threshold: replaces the saved one.
      batch_size: rounded up to a multiple of the number of devices.
      report: called with a line on files that were left out, and with the estimated class frequencies and warnings on them.
      progress: called with the number of images of each batch that was read.

    Attributes:
      classifier: the saved one with the overrides. With priors="em" or "bbse", its prior is the estimate of the last call.

    Raises:
      UserError: the run has no checkpoint or no decision.json, or an override is invalid.
    """

    def __init__(
        self, workdir: str | pathlib.Path, *, priors: str = "", costs: str = "", threshold: float | None = None,
        batch_size: int = 256, report: Callable[[str], None] = show, progress: Callable[[int], None] = lambda count: None,
    ):  # fmt: skip
        from openset_jax.data import pools
        from openset_jax.openset.decision import deployment, prior_error
        from openset_jax.platforms import xla
        from openset_jax.training import checkpoints, device_memory, devices, saved_decision
        from openset_jax.training.eval_program import make_eval_steps
        from openset_jax.training.image_input import streamed
        from openset_jax.training.restore import restore

        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        if not isinstance(priors, str) or not isinstance(costs, str):
            raise TypeError('priors and costs must be strings, as "none=0.6" or JSON')
        xla.check_platform()
        xla.cache_compilations()
        workdir = pathlib.Path(workdir).expanduser().resolve()
        checkpoints.open_checkpoints(workdir).close()  # first: its error tells the user to train, not to evaluate
        step, saved, _ = saved_decision.read(workdir)
        estimated = priors in deployment.ESTIMATES
        self.classifier = deployment.declare(saved, priors="" if estimated else priors, costs=costs, threshold=threshold)
        self._estimate_prior: Callable[[np.ndarray], tuple[np.ndarray, str]] | None = None
        if estimated:
            deployment.check_posterior(saved, f"--priors={priors}")
            logits, label = saved_decision.read_outputs(workdir, step, len(saved.classes))
            self._estimate_prior = functools.partial(deployment.estimate_prior, priors, saved, logits, label)
            enough = np.resize(logits, (prior_error.FEWEST_IMAGES, logits.shape[1]))
            self._estimate_prior(enough)  # a trial that may raise before images are read
        network = restore(workdir, step=step)
        if network.classes != saved.classes:
            raise UserError(
                f"--workdir: {workdir / saved_decision.DECISION} belongs to another run: it has the classes "
                f"{abridged(saved.classes)}, but the checkpoint has {abridged(network.classes)}. Delete it and run "
                f"python -m openset_jax.evaluate --workdir={workdir}"
            )
        self._inputs, self._max_pixels = network.spec.inputs, network.spec.data.max_pixels
        self._network, self._variables = network.model, network.variables
        no_batches = lambda batches: iter(())  # `__call__` makes an input for its own files
        self._steps = make_eval_steps(network.spec.program.forward, network.model, streamed(no_batches))
        self._batch_size = devices.padded_batch_size(batch_size)
        if self._inputs.stored_size is not None:
            device_memory.check_batch("--batch_size", self._batch_size, pools.image_type(self._inputs.stored_size))
        self._priors, self._report, self._progress = priors, report, progress

    def __call__(self, images: GivenImage | Iterable[GivenImage] | GivenVectors) -> Iterator[Row]:
        """Classifies one image or several. Images in memory are decoded and scaled as files are.

        Args:
          images: one or several of: the path of a file or a folder, or a glob; a Pillow image, turned upright by its EXIF
            orientation; uint8 [H, W, 3] (RGB) or [H, W]; bytes, the content of an image file. If the network takes vectors:
            float [n, F] or [F]; or paths of .npy files, .parquet files, or folders with features.npy.

        Returns:
          An iterator over a row for each image. "id": the path, or, for an image in memory, its position in `images`, an int
          from 0. "decision": a class or "none". Missing values are None; what cannot be read has only "id" and "error".

        Raises:
          TypeError: an image is none of these.
          UserError: a path does not exist, there is no image, or the images are not what the network takes. From the
            iterator: the class frequencies cannot be estimated.
        """
        from openset_jax.openset.decision import deployment

        ids, pool = self._given(images)
        if self._estimate_prior:
            deployment.check_enough(len(pool), f"--priors={self._priors}")
        return self._rows(ids, pool)

    def _rows(self, ids: Sequence[str | int], pool: Pool) -> Iterator[Row]:
        from openset_jax.data import vector_files
        from openset_jax.data.unreadable import Unreadable

        unreadable = Unreadable(pool, 1.0, self._max_pixels, report=lambda line: None)
        for row in vector_files.not_finite(pool) if pool.array.is_vector else ():
            unreadable.add(row, "the vector has numbers that are not finite")
        outputs = self._outputs(pool, unreadable)
        if self._estimate_prior:
            outputs = iter(read := list(outputs))
            if unreadable.rows:
                self._report(f"{len(unreadable.rows):,} of {len(pool):,} {pool.array.noun} could not be read.")
            prior, text = self._estimate_prior(np.concatenate([logits for *_, logits in read]))
            self.classifier = dataclasses.replace(self.classifier, prior=prior)
            self._report(text)
        for asked, rows, logits in outputs:
            no_labels = np.zeros(len(rows), int)
            scored, posterior = self.classifier.classify(logits, no_labels, no_labels)
            place = {row: i for i, row in enumerate(rows.tolist())}
            for row in asked:
                if row in place:
                    yield self._row(ids[row], place[row], scored, posterior)
                else:
                    yield {**dict.fromkeys(COLUMNS), "id": ids[row], "error": unreadable.rows[row]}

    def _given(self, images: Any) -> tuple[Sequence[str | int], Pool]:
        """Returns the ids and the pool of what was given. Raises UserError if the network takes other inputs."""
        from openset_jax.data import given_images, given_vectors

        is_path = lambda given: isinstance(given, given_images.PATHS)
        if not isinstance(images, given_vectors.GivenVectors | np.ndarray | bytes) and not is_path(images):
            images = list(images) if isinstance(images, Iterable) else images
        one_or_more = images if isinstance(images, list) else [images]
        paths = bool(one_or_more) and all(map(is_path, one_or_more))
        if self._inputs.stored_size is None:
            if paths and not all(map(given_vectors.is_file_of_vectors, one_or_more)):
                raise UserError("this run takes vectors; give .npy or .parquet files, or folders with features.npy")
            if not isinstance(images, given_vectors.GivenVectors):
                images = given_vectors.open_files(one_or_more) if paths else given_vectors.of_memory(images)
            (there,), wanted = images.pool.array.shape, self._inputs.shape[0]
            if there != wanted:
                raise UserError(f"the vectors have {there:,} features, but the run was trained on vectors of {wanted:,}")
            return images
        if isinstance(images, given_vectors.GivenVectors):
            raise UserError("this run takes images, but these are vectors; give image files or folders of them")
        ids, given = _expanded(images, self._report)
        return ids, given_images.make_pool(list(map(str, ids)), given, self._inputs.stored_size)

    def _outputs(self, pool: Pool, unreadable: Unreadable) -> Iterator[tuple[range, np.ndarray, np.ndarray]]:
        """Yields (requested rows, readable rows, logits of these) for each batch; adds the others to `unreadable`."""
        from openset_jax.training import input_choice
        from openset_jax.training.inference import Inference

        size = self._batch_size
        images = input_choice.make_image_input("stream", pool, unreadable=unreadable)
        inference = Inference(self._network, self._steps, pool, images, batch_size=size, unreadable=unreadable)
        found = inference.run("logits", self._variables, np.arange(len(pool)))
        for start, (rows, out) in zip(range(0, len(pool), size), found, strict=True):
            asked = range(start, min(start + size, len(pool)))
            self._progress(len(asked))
            yield asked, rows, out["logits"]

    def _row(self, id_: str | int, i: int, scored: Scored, posterior: np.ndarray | None) -> Row:
        from openset_jax.openset.decision import thresholds

        names = [*self.classifier.classes, "none"]
        best = int(scored.known_class[i]) if posterior is None else int(posterior[i, :-1].argmax())
        assert scored.decision is not None
        return {
            "id": id_,
            "decision": names[scored.decision[i]],
            "p_none": None if posterior is None else float(posterior[i, -1]),
            "best_class": names[best],
            "p_best": None if posterior is None else float(posterior[i, best]),
            "score": float(scored.score[i]),
            "threshold": thresholds.json_number(self.classifier.threshold.value),
            "error": None,
        }


def _expanded(
    images: GivenImage | Iterable[GivenImage], report: Callable[[str], None]
) -> tuple[list[str | int], list[GivenImage]]:
    """Returns the ids and the images: the files that the paths stand for, and the images in memory by their positions."""
    from openset_jax.data import given_images
    from openset_jax.data.image_files import find_images

    given = given_images.as_list(images)
    ids: list[str | int] = []
    for are_paths, places in itertools.groupby(range(len(given)), lambda i: isinstance(given[i], given_images.PATHS)):
        chosen = list(places)
        ids += find_images([str(given[i]) for i in chosen], report) if are_paths else chosen
    if not ids:
        raise UserError("no images: give paths, Pillow images, arrays or bytes")
    return ids, [id_ if isinstance(id_, str) else given[id_] for id_ in ids]
