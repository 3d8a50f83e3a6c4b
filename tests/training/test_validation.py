"""The validation split, on which checkpoint and decision depend."""

import numpy as np
import pytest
from small_run import open_small_pool

from openset_jax.data.pools import VALIDATION
from openset_jax.errors import UserError
from openset_jax.training import validation


class Reader:
    """An `Inference` that cannot read some rows."""

    def __init__(self, unreadable):
        self.unreadable = unreadable

    def logits(self, variables, rows):
        rows = np.setdiff1d(rows, self.unreadable)
        return rows, np.zeros((len(rows), 3), np.float32)


@pytest.mark.parametrize("name", ["known", "none"])
def test_a_class_without_a_readable_image_is_an_error_that_names_it(name):
    pool = open_small_pool()
    split = pool.rows(VALIDATION)
    held_out = pool.rows(VALIDATION, "held_out_negatives")
    of_class = split[pool.label[split] == 1] if name == "known" else held_out
    assert len(validation.compute_outputs(pool, Reader(of_class[1:]), {})[0]) == len(split) - len(of_class) + 1
    shown = pool.classes[1] if name == "known" else "none"
    with pytest.raises(UserError, match=f"none of the {len(of_class)} validation images of '{shown}' is readable"):
        validation.compute_outputs(pool, Reader(of_class), {})
