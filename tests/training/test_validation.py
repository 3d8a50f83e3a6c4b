"""The validation split, on which checkpoint and decision depend."""

import numpy as np
import pytest
from small_run import open_small_pool, small_spec

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


def test_the_metric_of_one_known_class_cannot_be_its_accuracy():
    one = {"data.known.classes": ("1",)}
    pool, prior = open_small_pool(**one), np.array([0.5, 0.5])
    assert validation.check(pool, small_spec(**one), prior) == ""
    with pytest.raises(UserError, match="early_stopping.metric: there is only one known class, '1'.*use auroc or balanced"):
        validation.check(pool, small_spec(**one, **{"early_stopping.metric": "accuracy"}), prior)
    few = one | {"data.held_out_negatives": None, "data.negatives.limit": 1}
    with pytest.raises(UserError, match=r"auroc needs negatives .* or raise data.validation_fraction$"):
        validation.check(open_small_pool(**few), small_spec(**few), prior)
