"""Every score of unknownness that one restored network gives, over rows of a pool: two passes, in bounded memory.

The first looks at the training images of the known classes, for what fitted scores must know; the second at the rows that
are asked for. Only scores are kept, a number for each image.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from openset_jax.openset.scores import feature_scores, odin
from openset_jax.openset.scores.feature_scores import SCORES
from openset_jax.openset.scores.training_features import Accumulator
from openset_jax.training.inference import Inference

_NEIGHBOURS = 50, 50_000  # k, and of how many images: the nearest thousandth


class Scores(NamedTuple):
    """What a pass over rows gives.

    Attributes:
      rows: that could be read, int64 [n].
      logits: float32 [n, outputs].
      values: name -> float64 [n], larger = more unknown.
      left_out: name -> why this network does not have the score.
    """

    rows: np.ndarray
    logits: np.ndarray
    values: dict[str, np.ndarray]
    left_out: dict[str, str]


class Scorers:
    """All scores, fitted on training images. What one network cannot have is left out, with the reason; the rest go on.

    Args:
      inference, variables: the network.
      members: rows of the training images of each known class.
      label: of all rows of the pool, int.
    """

    def __init__(self, inference: Inference, variables: Any, members: list[np.ndarray], label: np.ndarray):
        self._inference, self._variables, self._num_classes = inference, variables, len(members)
        self._left_out, last = {}, variables["params"]["fc8"]
        training = self._each({"training": lambda: self._training(members, label)}).get("training")
        why = self._left_out.pop("training", None)
        head = feature_scores.Head(*(self._known(np.asarray(last[name])) for name in ("kernel", "bias")))
        options = {"odin": {"temperature": odin.TEMPERATURE}}
        if training is not None:
            k, images = _NEIGHBOURS
            options["knn"] = {"k": max(1, round(k * len(training.features) / images))}
        self._left_out |= {name: why for name, score in SCORES.items() if score.fitted and why}
        makers = {name: score.make for name, score in SCORES.items() if name not in self._left_out}
        self._made = self._each(
            {name: functools.partial(make, training, head, **options.get(name, {})) for name, make in makers.items()}
        )

    def _training(self, members, label):
        accumulator = Accumulator(self._num_classes)
        for rows, out in self._inference.run("features", self._variables, np.concatenate(members)):
            accumulator.update(out["features"], self._known(out["logits"]), label[rows])
        return accumulator.finish()

    def _known(self, outputs):
        return outputs[..., : self._num_classes]

    def _each(self, calls):
        """Results by name; a call that fails is left out, now and from now on."""
        results = {}
        for name, call in calls.items():
            try:
                results[name] = call()
            except (ValueError, np.linalg.LinAlgError) as error:
                self._left_out[name] = str(error)
        return results

    def score(self, rows: np.ndarray) -> Scores:
        """All scores of these rows."""
        readable, logits, parts = [], [], {name: [] for name in self._made}

        def add(features, outputs, moved):
            wanted = {n: s for n, s in self._made.items() if SCORES[n].moved == moved and n not in self._left_out}
            calls = {name: functools.partial(scorer, features, self._known(outputs)) for name, scorer in wanted.items()}
            for name, values in self._each(calls).items():
                parts[name].append(values)

        for there, out in self._inference.run("features", self._variables, rows):
            readable.append(there)
            logits.append(out["logits"])
            add(out["features"], out["logits"], moved=False)
        readable = np.concatenate(readable)
        for _, out in self._inference.run("odin", self._variables, readable):
            add(None, out["logits"], moved=True)
        found = {name: np.concatenate(made) for name, made in parts.items() if name not in self._left_out}
        for name, values in found.items():
            if count := int(np.isnan(values).sum()):
                self._left_out[name] = f"{count} of {len(values)} images have none"
        kept = {name: values for name, values in found.items() if name not in self._left_out}
        return Scores(readable, np.concatenate(logits), kept, dict(self._left_out))


def bare(inference: Inference, variables: Any, rows: np.ndarray) -> Scores:
    """The logits of these rows, and no score beside them."""
    return Scores(*inference.logits(variables, rows), {}, {})
