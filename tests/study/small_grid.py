"""An experiment config of arms that train in a second each: --config=tests/study/small_grid.py."""

import ml_collections
from ml_collections import config_dict
from small_run import small_config


def get_config():
    config = ml_collections.ConfigDict()
    config.run, config.seeds = small_config(), (0, 1)
    config.run.eval.every = "100%"
    axes = lambda **fields: config_dict.create(**fields)
    config.grid = ml_collections.ConfigDict()
    config.grid.amounts = axes(sampling=axes(negatives=(0, "0.5x", None)))
    config.grid.layers = axes(init_from=("arm:sampling.negatives=0",), trainable=("head",))
    return config.lock()
