"""A small experiment on the number of negatives, with the digits of scikit-learn: less than two minutes on 2 cores.

python -m openset_jax.experiment --config=configs/imbalance_digits.py --workdir=runs/imbalance_digits
"""

import ml_collections
from ml_collections import config_dict

from configs import digits


def get_config():
    config = ml_collections.ConfigDict()
    config.run = run = digits.get_config()
    run.steps = 100
    run.input = "resident"
    run.decision.prior = "none=0.5"
    run.checkpoint.every = 50
    run.eval.every = "100%"
    config.seeds = (0, 1, 2)

    axes = lambda **fields: config_dict.create(**fields)
    config.grid = ml_collections.ConfigDict()
    config.grid.amounts = axes(sampling=axes(negatives=(0, "0.1x", None)))
    config.grid.policies = axes(sampling=axes(negatives=("0.1x",), policy=("balanced",)))
    config.grid.layers = axes(init_from=("arm:sampling.negatives=0",), trainable=("head", "all"))
    return config.lock()
