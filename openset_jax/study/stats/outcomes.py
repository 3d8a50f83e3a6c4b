"""What an arm of an experiment leaves for its analysis: the test images, what the network says of them, and its answers.

An arm is one run: a treatment (fields of the config -> values) and a seed. Everything here is arrays; how the network was
trained does not matter any more.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from openset_jax.openset.metrics.evaluation import Scored

# How scores become answers. None of them but the first needs anything of validation images; none trains again.
DECISIONS = {
    "argmax": "the network's own answer",
    "prior": "the network's own answer, its posterior corrected to the prior of the deployment",
    "rule": "the threshold of the config's rule",
    "least_cost": "the threshold of least expected cost in the deployment",
}


@dataclasses.dataclass(frozen=True)
class Treatment:
    """What the arms of several seeds share.

    Attributes:
      fields: (name with dots, value) of what differs from the experiment's `run`, sorted by name.
    """

    fields: tuple[tuple[str, Any], ...]

    @property
    def label(self) -> str:
        """What people call it."""
        return ", ".join(f"{name}={value}" for name, value in self.fields) or "as configured"

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field that it sets."""
        return dict(self.fields).get(name, default)

    def without(self, *names: str) -> "Treatment":
        """The rest of it, without these fields."""
        return Treatment(tuple((name, value) for name, value in self.fields if name not in names))


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The test images of one arm.

    Attributes:
      treatment, seed: which arm.
      name: of its folder.
      objective: that the network was trained with.
      classes: the K known ones.
      class_sizes: how many training images each of them has.
      kinds: "seen_negatives", "unseen_unknowns" -> the names of their groups.
      negatives: how many negative images training drew from.
      negative_groups: how many groups of negatives those come from.
      deployment: float64 [K + 1], how often each class comes in use, "none" last.
      costs: float64 [K + 1, K + 1], rows truth, columns answer.
      key: uint64 [n], a hash of the id of each test image: equal in all arms.
      scored: what the network makes of them; its `decision` is not used.
      probabilities: float32 [n, K], the network's own of the known classes, as they are.
      decisions: names of `DECISIONS` -> int [n] in [0, K], K for "none"; "argmax" and "rule" are always there. A network
        that has no output for "none" never gives it by "argmax" and "prior".
    """

    treatment: Treatment
    seed: int
    name: str
    objective: str
    classes: tuple[str, ...]
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
    def per_class(self) -> float:
        """How many training images a known class has on average."""
        return float(np.mean(self.class_sizes))
