"""Inputs of benchmarks: the specification of a run, and a pool of photographs."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    import ml_collections

    from openset_jax.data.pools import Pool
    from openset_jax.spec import RunSpec


def resolve(config: ml_collections.ConfigDict, **changes: Any) -> RunSpec:
    """Returns the spec of a run that leaves no files; if the config has two phases, that of the second.

    Args:
      config: as configs/folder.py.
      changes: values of other fields, such as `batch_size`.

    Raises:
      UserError: a field is missing or out of range, or the network takes vectors.
    """
    from openset_jax import config as configs

    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    spec = configs.resolve(config, pathlib.Path("/nowhere"))[-1]
    if spec.stored_size is None:
        raise UserError(
            f"model.name: {spec.program.forward.network.name} takes vectors; this benchmark needs a network for images"
        )
    return spec


def photo_pool(photos: str) -> Pool:
    """The pool of a folder FOLDER/{known,negatives}/CLASS/*.jpg, with all classes.

    Raises:
      UserError: the folder has another layout, or too few images.
    """
    from openset_jax.data import sources
    from openset_jax.data.pool_builder import Selection, build_pool

    root = pathlib.Path(photos).expanduser()
    if not all((root / role).is_dir() for role in ("known", "negatives")):
        raise UserError(f"--photos: {photos!r} has no known/CLASS/ and negatives/CLASS/ folders of images")
    source = sources.open_source(f"folder:{root}")
    return build_pool({role: [Selection(source)] for role in ("known", "negatives")})
