"""The number of features of a run on vectors, which its source has."""

from ml_collections import ConfigDict

from openset_jax.spec import VectorSpec
from openset_jax.training import run_length
from openset_jax.training.run_cache import RunCache


def with_vector_size(config: ConfigDict, cache: RunCache) -> ConfigDict:
    """Returns the config with `data.vector_size` set to that of its source, if its network takes vectors.

    Raises UserError as `config.resolve` and `RunCache.pool`.
    """
    spec = run_length.trial_phases(config)[-1]
    if not isinstance(spec.inputs, VectorSpec) or spec.inputs.vector_size:
        return config
    config = config.copy_and_resolve_references()
    (config.data.vector_size,) = cache.pool(spec).array.shape
    return config
