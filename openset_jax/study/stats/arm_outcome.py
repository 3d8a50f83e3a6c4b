"""The outcome of one arm: its test images, the network's outputs on them, and the answers of each decision. Arrays only."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from openset_jax.openset.scored import Scored
from openset_jax.study.stats.treatments import Treatment

# Ways to turn outputs into answers, without retraining.
DECISIONS = {
    "argmax": "the network's own answer",
    "prior": "the network's own answer, its posterior corrected to the prior of the deployment",
    "rule": "the threshold of the config's rule",
    "least_cost": "the threshold of least expected cost in the deployment",
}


class Training(NamedTuple):
    """The layers that an arm trains, and the cost of a step; of an arm with two phases, those of the second."""

    start: str  # the value of `init_from`, "" for random parameters; `config.FIRST_PHASE` for the second of two phases
    trainable: str  # the value of `trainable`
    layers: int  # number of layers that are trained
    all_layers: int  # number of layers of the network
    flops: float  # operations of a step, for one image
    memory: int | None  # bytes of a step on one device; None if unknown
    images_per_second: float | None  # of training, as measured; None if unknown

    @property
    def trains_all(self) -> bool:
        """True if no layer is frozen."""
        return self.layers == self.all_layers

    @property
    def from_scratch(self) -> bool:
        """True if all layers are trained and start from random parameters."""
        return self.trains_all and not self.start


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The test images of one arm: one run, with one treatment and one seed.

    Attributes:
      name: of the arm's folder.
      objective: name of the training objective.
      classes: names of the K known classes.
      training: layers that are trained, and cost of a step.
      class_sizes: number of training images of each known class.
      kinds: "seen_negatives", "unseen_unknowns" -> names of their groups.
      negatives: number of negative images that training drew from.
      negative_groups: number of groups that these negatives belong to.
      deployment: float64 [K + 1], class frequencies in use, "none" last.
      costs: float64 [K + 1, K + 1], rows truth, columns answer.
      key: uint64 [n], a hash of each test image's id; the same image has the same key in all arms.
      scored: labels, groups, scores and known classes of the n test images; its `decision` is not used.
      probabilities: float32 [n, K], the network's probabilities of the known classes, uncorrected.
      decisions: name in `DECISIONS` -> int [n] in [0, K], K for "none". "argmax" and "rule" are always present. "argmax" and
        "prior" never give K if the network has no output for "none".
    """

    treatment: Treatment
    seed: int
    name: str
    objective: str
    classes: tuple[str, ...]
    training: Training
    class_sizes: tuple[int, ...]
    kinds: Mapping[str, list[str]]
    negatives: int
    negative_groups: int
    deployment: np.ndarray
    costs: np.ndarray
    key: np.ndarray
    scored: Scored
    probabilities: np.ndarray
    decisions: Mapping[str, np.ndarray]

    @property
    def images_per_class(self) -> float:
        """Mean number of training images of a known class."""
        return float(np.mean(self.class_sizes))

    @property
    def has_none_output(self) -> bool:
        """True if the network can answer "none" without a threshold."""
        return self.scored.answer is not None
