"""The number of features of a run on vectors, which its source has."""

import pathlib

from ml_collections import ConfigDict

from openset_jax import config as configs
from openset_jax.config_fields import Fields
from openset_jax.spec import VectorSpec
from openset_jax.training.run_cache import RunCache


def with_vector_size(config: ConfigDict, cache: RunCache) -> ConfigDict:
    """Returns the config with `data.vector_size` set to that of its source, if its network takes vectors.

    Raises UserError as `config.resolve` and `RunCache.pool`.
    """
    trial = config.copy_and_resolve_references()
    trial.steps = 2 * Fields(config)["steps_per_call"]  # any length that every policy allows
    spec = configs.resolve(trial, pathlib.Path("/"))[-1]
    if not isinstance(spec.inputs, VectorSpec) or spec.inputs.vector_size:
        return config
    config = config.copy_and_resolve_references()
    (config.data.vector_size,) = cache.pool(spec).array.shape
    return config
