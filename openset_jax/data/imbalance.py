"""Class imbalance made on purpose: which training images of the known classes are left when their sizes are as asked for.

Buda, Maki and Mazurowski 2018 (arXiv 1710.05381, section 3). Step imbalance: a share mu of the classes are minority classes,
all of one size, and the others are majority classes, rho times as large. Linear imbalance: sizes go evenly from the smallest
class to the largest, which is rho times as large. The largest size is that of the smallest class as it is, so that all
majority classes are alike. NumPy only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from openset_jax.data.pools import Pool, stable_hash
from openset_jax.errors import UserError

FIELD = "sampling.imbalance"
FORMS = {"step": ("mu", "rho"), "linear": ("rho",)}  # name -> its numbers


class Imbalance(NamedTuple):
    """What sizes are asked for.

    Attributes:
      form: a name of `FORMS`.
      rho: largest over smallest class, 1 or more.
      mu: the share of minority classes, in (0, 1); None with "linear".
    """

    form: str
    rho: float
    mu: float | None = None


def parse(text: str) -> Imbalance | None:
    """What `sampling.imbalance` says, as "step:mu=0.5,rho=100" or "linear:rho=100"; None of "".

    Raises:
      UserError: it is something else.
    """
    if text == "":
        return None
    wrong = f'{FIELD}: {text!r} is not "", nor one like "step:mu=0.5,rho=100" or "linear:rho=100"'
    try:
        form, _, said = text.partition(":")
        pairs = [part.split("=") for part in said.split(",")]
        values = {name.strip(): float(value) for name, value in pairs}
    except (AttributeError, ValueError) as error:
        raise UserError(wrong) from error
    if sorted(values) != sorted(FORMS.get(form, ())) or len(values) < len(pairs):
        raise UserError(wrong)
    found = Imbalance(form, **values)
    if not 1 <= found.rho < math.inf:
        raise UserError(f"{FIELD}: rho={found.rho:g} is not 1 or more: it is the largest class over the smallest")
    if found.mu is not None and not 0 < found.mu < 1:
        raise UserError(f"{FIELD}: mu={found.mu:g} is not between 0 and 1: it is the share of minority classes")
    return found


def sizes(imbalance: Imbalance, largest: int, num_classes: int) -> list[int]:
    """The sizes of so many classes, ascending.

    Raises:
      UserError: no class would be a minority class, or none a majority class; or a class would have no image.
    """
    smallest = largest / imbalance.rho
    if round(smallest) < 1:
        raise UserError(
            f"{FIELD}: rho={imbalance.rho:g} leaves the smallest class without images: the largest has {largest:,}"
        )
    if imbalance.form == "linear":
        return [round(smallest + (largest - smallest) * i / (num_classes - 1)) for i in range(num_classes)]
    minority = round(imbalance.mu * num_classes)
    if not 0 < minority < num_classes:
        which = "minority" if not minority else "majority"
        raise UserError(f"{FIELD}: mu={imbalance.mu:g} of {num_classes} classes leaves no {which} class")
    return [round(smallest)] * minority + [largest] * (num_classes - minority)


def cut(pool: Pool, members: Sequence[np.ndarray], imbalance: Imbalance, *, seed: int) -> list[np.ndarray]:
    """The rows that are left of each known class, in the pool's order.

    The seed says which classes become small: the order is a hash of the seed and the name, and of two values of mu the
    larger has the minority classes of the smaller. Of a class, the first by `pool.key` are kept, so that smaller sets are
    subsets of larger ones, whatever the seed.

    Args:
      members: rows to train on of each of the K known classes.

    Raises:
      UserError: see `sizes`.
    """
    ascending = sizes(imbalance, min(map(len, members)), len(members))
    order = sorted(range(len(members)), key=lambda k: stable_hash(f"imbalance/{seed}/{pool.classes[k]}"))
    size = dict(zip(order, ascending, strict=True))
    return [np.sort(rows[np.argsort(pool.key[rows], kind="stable")[: size[k]]]) for k, rows in enumerate(members)]
