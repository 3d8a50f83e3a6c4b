"""The worst mistakes of a classifier, and their images as data URIs."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from openset_jax.openset.scored import Scored
from openset_jax.report.formatting import title

LARGEST = 192  # pixels a side; larger images are scaled down


class Mistake(NamedTuple):
    """One misclassified image of the report."""

    image: np.ndarray | None  # uint8 [H, W, 3]; None if it is not there
    id: str
    truth: str  # name of the class, or of the group of a negative or an unknown
    answer: str  # name of a class, or "none"
    score: float  # larger = more unknown
    p_answer: float | None  # probability of the answer under the deployment's prior; None if there are no probabilities


def worst(
    scored: Scored, posterior: np.ndarray | None, kinds: dict[str, list[str]], count: int = 8
) -> dict[str, np.ndarray]:
    """Returns the most confident mistakes at the operating point: their type -> rows of `scored`, int, the worst first.

    Args:
      scored: images with `decision`.
      posterior: float64 [n, K + 1] under the deployment's prior. None: a lower score counts as more confident.
      kinds: kind of "none" -> its groups.
      count: maximum number of images of each type of mistake.

    Raises:
      ValueError: `scored` has no decisions.
    """
    if (decision := scored.decision) is None:
        raise ValueError("mistakes need the decisions of a classifier")
    known, rows = scored.label >= 0, np.arange(len(scored.label))
    # without probabilities an accepted image has the network's own class
    accepted = decision == scored.known_class if posterior is None else decision < posterior.shape[1] - 1
    confidence = -scored.score if posterior is None else posterior[rows, decision]
    first = lambda chosen, by: rows[chosen][np.argsort(-by[chosen], kind="stable")][:count]
    result = {'known images answered "none", the highest scores first': first(known & ~accepted, scored.score)}
    for kind, groups in kinds.items():
        chosen = np.isin(scored.group, groups) & ~known & accepted
        result[f"{title(kind)} that were accepted, the lowest scores first"] = first(chosen, -scored.score)
    order = "the lowest scores first" if posterior is None else "the most probable first"
    confused = known & accepted & (decision != scored.label)
    if posterior is None or posterior.shape[1] > 2:  # one known class cannot be confused
        result[f"known images classified as another known class, {order}"] = first(confused, confidence)
    return result


def picture(path: str) -> np.ndarray | None:
    """Returns an image file, of at most `LARGEST` pixels a side: uint8 [H, W, 3]; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * LARGEST, 2 * LARGEST))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    upright.thumbnail((LARGEST, LARGEST))
    return np.asarray(upright)


def data_uri(image: np.ndarray) -> str:
    """Returns a uint8 [H, W, 3] image as a PNG data URI of at most `LARGEST` pixels a side."""
    picture, file = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    picture.thumbnail((LARGEST, LARGEST))
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
