"""All open-set scores of one network over rows of a pool, in two passes and bounded memory.

The first pass goes over the training images of the known classes, on which some scores are fitted; the second over the rows
to score. Only the scores are kept, one number for each image.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from openset_jax.openset.scores import feature_scores
from openset_jax.openset.scores.feature_scores import SCORES
from openset_jax.openset.scores.training_features import Accumulator, TrainingFeatures
from openset_jax.training.eval_program import ODIN_TEMPERATURE
from openset_jax.training.inference import Inference
from openset_jax.training.state import Variables

_NEIGHBOURS = 50, 50_000  # k for this number of training images; k is scaled in proportion

T = TypeVar("T")


class Scores(NamedTuple):
    """Scores of rows.

    Attributes:
      rows: the readable rows, int64 [n].
      logits: float32 [n, outputs].
      values: name -> float64 [n], larger = more unknown.
      left_out: name -> the reason why the score cannot be computed for this network.
    """

    rows: np.ndarray
    logits: np.ndarray
    values: dict[str, np.ndarray]
    left_out: dict[str, str]


class Scorers:
    """All scores, fitted on training images. A score that cannot be computed is left out, with the reason.

    Args:
      inference, variables: the network.
      rows_by_class: the training images of each known class.
      label: of all rows of the pool, int.
    """

    def __init__(self, inference: Inference, variables: Variables, rows_by_class: list[np.ndarray], label: np.ndarray):
        self._inference, self._variables, self._num_classes = inference, variables, len(rows_by_class)
        self._left_out: dict[str, str] = {}
        last = variables["params"]["fc8"]
        training = self._each({"training": lambda: self._training(rows_by_class, label)}).get("training")
        why = self._left_out.pop("training", None)
        head = feature_scores.Head(*(self._known(np.asarray(last[name])) for name in ("kernel", "bias")))
        options: dict[str, dict[str, float]] = {"odin": {"temperature": ODIN_TEMPERATURE}}
        if training is not None:
            k, images = _NEIGHBOURS
            options["knn"] = {"k": max(1, round(k * len(training.features) / images))}
        self._left_out |= {name: why for name, score in SCORES.items() if score.fitted and why}
        makers = {name: score.make for name, score in SCORES.items() if name not in self._left_out}
        self._made = self._each(
            {name: functools.partial(make, training, head, **options.get(name, {})) for name, make in makers.items()}
        )

    def _training(self, rows_by_class: list[np.ndarray], label: np.ndarray) -> TrainingFeatures:
        accumulator = Accumulator(self._num_classes)
        for rows, out in self._inference.run("features", self._variables, np.concatenate(rows_by_class)):
            accumulator.update(out["features"], self._known(out["logits"]), label[rows])
        return accumulator.finish()

    def _known(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[..., : self._num_classes]

    def _each(self, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Results by name; a score whose call fails is left out from now on."""
        results: dict[str, T] = {}
        for name, call in calls.items():
            try:
                results[name] = call()
            except (ValueError, np.linalg.LinAlgError) as error:
                self._left_out[name] = str(error)
        return results

    def score(self, rows: np.ndarray) -> Scores:
        """All scores of these rows."""
        batches: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self._made}

        def add(features, outputs, moved):
            wanted = {n: s for n, s in self._made.items() if SCORES[n].moved == moved and n not in self._left_out}
            calls = {name: functools.partial(scorer, features, self._known(outputs)) for name, scorer in wanted.items()}
            for name, values in self._each(calls).items():
                parts[name].append(values)

        for of_batch, out in self._inference.run("features", self._variables, rows):
            batches.append(of_batch)
            logits.append(out["logits"])
            add(out["features"], out["logits"], moved=False)
        readable = np.concatenate(batches)
        for _, out in self._inference.run("odin", self._variables, readable):
            add(None, out["logits"], moved=True)
        found = {name: np.concatenate(made) for name, made in parts.items() if name not in self._left_out}
        for name, values in found.items():
            if count := int(np.isnan(values).sum()):
                self._left_out[name] = f"{count} of {len(values)} images have no score"
        kept = {name: values for name, values in found.items() if name not in self._left_out}
        return Scores(readable, np.concatenate(logits), kept, dict(self._left_out))


def logits_only(inference: Inference, variables: Variables, rows: np.ndarray) -> Scores:
    """The logits of these rows, without scores."""
    return Scores(*inference.logits(variables, rows), {}, {})
