"""A small experiment on vectors, `--config=tests/study/vector_grid.py:ROOT`: arms that differ in all that may differ."""

import vectors
from flax.traverse_util import unflatten_dict
from ml_collections import config_dict


def study(run, **blocks):
    """An experiment of two seeds; `blocks`: name -> {field with dots: values}."""
    grid = {name: unflatten_dict({tuple(f.split(".")): v for f, v in fields.items()}) for name, fields in blocks.items()}
    return config_dict.create(run=run, seeds=(0, 1), grid=grid).lock()


def get_config(root):
    """12 arms without a weight of the negatives, and 4 with one: two programs."""
    return study(
        vectors.config(root, **{"objective.negative_weight": None}),
        numbers={"sampling.negatives": (10, None), "optimizer.learning_rate": (0.5, 1.5)},
        policies={"sampling.policy": ("balanced",), "sampling.negatives": (10,)},
        class_weights={"objective.class_weights": ("inverse_frequency",), "sampling.negatives": (10,)},
        weights={"objective.negative_weight": (0.5, 2.0)},
    )
