"""The predictions of a classifier for a set of images."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Images with their labels and predictions.

    Attributes:
      label: int [n]: a known class in [0, K), -1 negative, -2 unknown.
      group: object [n], names of the groups.
      score: float64 [n], larger = more unknown.
      known_class: int [n] in [0, K), the best known class.
      answer: int [n] in [0, K], the class by the outputs alone, K for "none"; None for a softmax over K classes.
      decision: int [n] in [0, K], the decision at the operating point, K for "none"; None if there is no operating point.
    """

    label: np.ndarray
    group: np.ndarray
    score: np.ndarray
    known_class: np.ndarray
    answer: np.ndarray | None
    decision: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> "Scored":
        """Returns the images that an index array or a boolean mask selects."""
        columns: dict[str, Any] = {name: None if column is None else column[chosen] for name, column in vars(self).items()}
        return Scored(**columns)
