"""All open-set scores of one network over rows of a pool, in two passes and bounded memory.

The first pass goes over the training images of the known classes, on which some scores are fitted; the second over the rows
to score. Only the scores are kept, one number for each image.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from openset_jax.openset.scores.feature_scores import SCORES, Head, Scorer
from openset_jax.openset.scores.training_features import Accumulator, TrainingFeatures
from openset_jax.openset.scores.unavailable import ScoreUnavailable
from openset_jax.training.eval_program import ODIN_TEMPERATURE
from openset_jax.training.inference import Inference
from openset_jax.training.pace import Pace
from openset_jax.training.state import Variables

_NEIGHBOURS = 50, 50_000  # k for this number of training images; k is scaled in proportion


class Scores(NamedTuple):
    """Scores of rows; larger = more unknown."""

    rows: np.ndarray  # the readable rows, int64 [n]
    logits: np.ndarray  # float32 [n, outputs]
    values: dict[str, np.ndarray]  # name -> float64 [n]
    left_out: dict[str, str]  # name -> the reason why the score cannot be computed for this network


class Scorers:
    """All scores, fitted on training images. A score that cannot be computed is left out, with the reason.

    Args:
      rows_by_class: the training images of each known class.
      label: of all rows of the pool, int.
    """

    def __init__(self, inference: Inference, variables: Variables, rows_by_class: list[np.ndarray], label: np.ndarray):
        self._inference, self._variables, self._num_classes = inference, variables, len(rows_by_class)
        self._left_out: dict[str, str] = {}
        self._made: dict[str, Scorer] = {}
        last = variables["params"][inference.network.head]
        head = Head(*(self._known(np.asarray(last[name])) for name in ("kernel", "bias")))
        options: dict[str, dict[str, float]] = {"odin": {"temperature": ODIN_TEMPERATURE}}
        training: TrainingFeatures | None = None
        try:
            training = self._training(rows_by_class, label)
            k, images = _NEIGHBOURS
            options["knn"] = {"k": max(1, round(k * len(training.features) / images))}
        except ScoreUnavailable as error:
            self._left_out = {name: str(error) for name, score in SCORES.items() if score.fitted}
        if inference.network.takes_vectors:
            self._left_out["odin"] = "it changes the pixels of an image, and this network takes vectors"
        if self._num_classes == 1:
            self._left_out |= {name: score.one_class for name, score in SCORES.items() if score.one_class}
        for name, score in SCORES.items():
            if name not in self._left_out:
                with self._leaving_out(name):
                    self._made[name] = score.make(training, head, **options.get(name, {}))

    def _training(self, rows_by_class: list[np.ndarray], label: np.ndarray) -> TrainingFeatures:
        accumulator = Accumulator(self._num_classes, names=self._inference.pool.classes)
        for rows, out in self._run("features", np.concatenate(rows_by_class), "statistics of the training"):
            accumulator.update(out["features"], self._known(out["logits"]), label[rows])
        return accumulator.finish()

    def _run(self, output: str, rows: np.ndarray, what: str) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """The forward pass, with lines on how far it is."""
        pace, done = Pace(f"{what} {self._inference.pool.array.noun}:", len(rows)), 0
        for readable, out in self._inference.run(output, self._variables, rows):
            yield readable, out
            done += len(readable)
            pace.at(done)

    def _known(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[..., : self._num_classes]

    @contextlib.contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Leaves a score out, with the reason, if the block raises `ScoreUnavailable`."""
        try:
            yield
        except ScoreUnavailable as error:
            self._left_out[name] = str(error)

    def score(self, rows: np.ndarray) -> Scores:
        """All scores of these rows."""
        batches: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self._made}

        def add(features, outputs, moved):
            for name, scorer in self._made.items():
                if SCORES[name].moved == moved and name not in self._left_out:
                    with self._leaving_out(name):
                        parts[name].append(scorer(features, self._known(outputs)))

        for of_batch, out in self._run("features", rows, "scores of the test"):
            batches.append(of_batch)
            logits.append(out["logits"])
            add(out["features"], out["logits"], moved=False)
        readable = np.concatenate(batches)
        if any(SCORES[name].moved for name in self._made):
            for _, out in self._run("odin", readable, "ODIN's scores of the test"):
                add(None, out["perturbed"], moved=True)
        found = {name: np.concatenate(made) for name, made in parts.items() if name not in self._left_out}
        for name, values in found.items():
            if count := int(np.isnan(values).sum()):
                self._left_out[name] = f"{count} of {len(values)} images have no score"
        kept = {name: values for name, values in found.items() if name not in self._left_out}
        return Scores(readable, np.concatenate(logits), kept, dict(self._left_out))


def logits_only(inference: Inference, variables: Variables, rows: np.ndarray) -> Scores:
    """The logits of these rows, without scores."""
    return Scores(*inference.logits(variables, rows), {}, {})
