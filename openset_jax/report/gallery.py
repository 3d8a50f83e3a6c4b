"""Which mistakes are the worst, and their images as a page can hold them."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from openset_jax.openset.metrics.evaluation import Scored
from openset_jax.report.sentences import title

LARGEST = 192  # pixels; larger images are scaled down to it


class Mistake(NamedTuple):
    """One image of the gallery.

    Attributes:
      image: uint8 [S, S, 3].
      id: of the example.
      truth, answer: names: a class, or the group of a negative or an unknown; a class or "none".
      score: larger = more unknown.
      p_answer: the probability of the answer under the deployment's prior, None where there are no probabilities.
    """

    image: np.ndarray
    id: str
    truth: str
    answer: str
    score: float
    p_answer: float | None


def worst(
    scored: Scored, posterior: np.ndarray | None, kinds: dict[str, list[str]], count: int = 8
) -> dict[str, np.ndarray]:
    """The mistakes that the classifier was surest of, at the operating point.

    Args:
      scored: with `decision`.
      posterior: float64 [n, K + 1] under the deployment's prior, or None: then the lowest score is the surest class.
      kinds: kinds of "none of these" -> their groups.
      count: of each sort, at most.

    Returns:
      What they have in common -> int [at most `count`], rows of `scored`, the worst first.
    """
    known, rows = scored.label >= 0, np.arange(len(scored.label))
    # without probabilities an accepted image has the network's own class
    accepted = scored.decision == scored.known_class if posterior is None else scored.decision < posterior.shape[1] - 1
    sure = -scored.score if posterior is None else posterior[rows, scored.decision]
    first = lambda chosen, by: rows[chosen][np.argsort(-by[chosen], kind="stable")][:count]
    result = {'known images answered "none", the highest scores first': first(known & ~accepted, scored.score)}
    for kind, groups in kinds.items():
        chosen = np.isin(scored.group, groups) & ~known & accepted
        result[f"{title(kind)} that were accepted, the lowest scores first"] = first(chosen, -scored.score)
    surest = "the lowest scores first" if posterior is None else "the most probable first"
    confused = known & accepted & (scored.decision != scored.label)
    result[f"known images given another known class, {surest}"] = first(confused, sure)
    return result


def data_uri(image: np.ndarray) -> str:
    """uint8 [S, S, 3] as a PNG in a data URI, of at most `LARGEST` pixels a side."""
    picture, file = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    picture.thumbnail((LARGEST, LARGEST))
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
