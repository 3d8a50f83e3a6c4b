"""Artificial class imbalance: subsets of the training images of the known classes, of prescribed sizes. NumPy only.

Buda, Maki and Mazurowski 2018 (arXiv 1710.05381, section 3). Step imbalance: a share mu of the classes are minority classes
of one size; the others are majority classes, rho times as large. Linear imbalance: sizes rise linearly from the smallest
class to the largest, which is rho times as large. The largest size is the size of the smallest class in the pool, so that
all majority classes have the same size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.data.pools import Pool, stable_hash
from openset_jax.errors import UserError

FIELD = "sampling.imbalance"
FORMS = {"step": ("mu", "rho"), "linear": ("rho",)}  # name -> its parameters


class Imbalance(NamedTuple):
    """The sizes of the classes, relative to each other.

    Attributes:
      form: a key of `FORMS`.
      rho: size of the largest class over size of the smallest, 1 or more.
      mu: share of minority classes, in (0, 1); None for "linear".
    """

    form: str
    rho: float
    mu: float | None = None


def parse(text: str) -> Imbalance | None:
    """Parses `sampling.imbalance`: "step:mu=0.5,rho=100", "linear:rho=100", or "" (None). Other texts raise UserError."""
    if text == "":
        return None
    wrong = f'{FIELD}: {text!r} is neither of the form "step:mu=0.5,rho=100" or "linear:rho=100" nor empty'
    try:
        form, _, parameters = text.partition(":")
        pairs = [part.split("=") for part in parameters.split(",")]
        values = {name.strip(): float(value) for name, value in pairs}
    except (AttributeError, ValueError) as error:
        raise UserError(wrong) from error
    if sorted(values) != sorted(FORMS.get(form, ())) or len(values) < len(pairs):
        raise UserError(wrong)
    found = Imbalance(form, **values)
    if not 1 <= found.rho < math.inf:
        raise UserError(f"{FIELD}: rho={found.rho:g} must be 1 or more (the largest class over the smallest)")
    if found.mu is not None and not 0 < found.mu < 1:
        raise UserError(f"{FIELD}: mu={found.mu:g} must be between 0 and 1, both excluded (the share of minority classes)")
    return found


def sizes(imbalance: Imbalance, largest: int, num_classes: int) -> list[int]:
    """Returns the sizes, ascending. Raises UserError for one class, an empty class, or no minority or no majority class."""
    if num_classes == 1:
        raise UserError(f"{FIELD}: there is only one known class, so that there is nothing to make unequal; leave it empty")
    smallest = largest / imbalance.rho
    if round(smallest) < 1:
        raise UserError(
            f"{FIELD}: rho={imbalance.rho:g} leaves the smallest class without images: the largest has {largest:,}"
        )
    if imbalance.mu is None:
        return [round(smallest + (largest - smallest) * i / (num_classes - 1)) for i in range(num_classes)]
    minority = round(imbalance.mu * num_classes)
    if not 0 < minority < num_classes:
        missing = "minority" if not minority else "majority"
        raise UserError(f"{FIELD}: mu={imbalance.mu:g} of {num_classes} classes leaves no {missing} class")
    return [round(smallest)] * minority + [largest] * (num_classes - minority)


def cut(pool: Pool, known_rows: Sequence[np.ndarray], imbalance: Imbalance, *, seed: int) -> list[np.ndarray]:
    """Returns the rows that are kept of each known class, whose training rows are `known_rows`, in the pool's order.

    The seed selects the classes that become small: classes are ordered by a hash of the seed and the class name, and the
    minority classes of a smaller mu are also minority classes of a larger mu. Of each class, the first images by `pool.key`
    are kept, so smaller sets are subsets of larger ones for every seed. Raises UserError as `sizes`.
    """
    ascending = sizes(imbalance, min(map(len, known_rows)), len(known_rows))
    order = sorted(range(len(known_rows)), key=lambda k: stable_hash(f"imbalance/{seed}/{pool.classes[k]}"))
    size = dict(zip(order, ascending, strict=True))
    return [np.sort(rows[np.argsort(pool.key[rows], kind="stable")[: size[k]]]) for k, rows in enumerate(known_rows)]
