"""A run that begins with the network of another: its layers as they are, of the last one the outputs of the same classes."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from openset_jax.errors import UserError

_SAME = ("data.image_size", "data.grey", "data.mean", "data.std")  # what the layers below have learned to expect


def begin_with(
    variables: dict[str, Any], workdir: str | pathlib.Path, *, config: Any, classes: Sequence[str], none_output: bool
) -> tuple[dict[str, Any], str]:
    """Variables that take everything they can from the best checkpoint of a run.

    Args:
      variables: freshly made ones, on the host: what the other network has no output for stays as it is here.
      workdir: of the other run.
      config: of this run.
      classes: the K known ones.
      none_output: whether the network has an output for "none", the last.

    Returns:
      (variables on the host, what was kept and what is new).

    Raises:
      UserError: there is no such run, or its network is another one below the last layer.
    """
    import jax

    from openset_jax import build
    from openset_jax.openset.losses import objectives
    from openset_jax.training.restore import restore

    try:
        run = restore(workdir)
    except UserError as error:
        raise UserError(f"init_from: {str(error).removeprefix('--workdir: ')}") from error
    for name in _SAME:
        section, field = name.split(".")
        there, here = run.config[section][field], config[section][field]
        if there != here:
            raise UserError(f"{name}: the run in init_from, {run.workdir}, has {there!r}, this one {here!r}; use the same")
    there, here = run.model.norm, build.make_model(config, len(classes)).norm
    if there != here:  # not all of them have parameters, whose shapes would tell
        raise UserError(f"model.norm: the run in init_from, {run.workdir}, has {there!r}, this one {here!r}; use the same")
    given = jax.tree.map(np.array, jax.device_get(run.variables))
    for kind, layers in variables.items():
        for layer in sorted(layers.keys() | given[kind].keys()):
            shapes = [jax.tree.map(np.shape, tree[kind].get(layer)) for tree in (given, variables)]
            if layer != "fc8" and shapes[0] != shapes[1]:
                raise UserError(
                    f"init_from: {layer} of the run in {run.workdir} has the shapes {shapes[0]}, that of this config "
                    f"{shapes[1]}; give both the same model.*"
                )
    had_none = objectives.get(run.config.objective.name).none_output
    before, after = [*run.classes, *[None] * had_none], [*classes, *[None] * none_output]
    fc8, old = dict(variables["params"]["fc8"]), given["params"]["fc8"]
    if len(fc8["kernel"]) != len(old["kernel"]):
        raise UserError(
            f"init_from: fc8 of the run in {run.workdir} sees {len(old['kernel'])} features, that of this config "
            f"{len(fc8['kernel'])}; give both the same model.width"
        )
    kept = [i for i, name in enumerate(after) if name in before]
    source = [before.index(after[i]) for i in kept]
    for name, values in fc8.items():
        fc8[name] = values.copy()
        fc8[name][..., kept] = old[name][..., source]
    say_of = lambda names: ", ".join('"none"' if name is None else name for name in names)
    fresh, left = [n for i, n in enumerate(after) if i not in kept], [n for n in before if n not in after]
    message = f"Beginning with the network of {run.workdir} at step {run.step}: of its outputs {len(kept)} are kept by name"
    message += f"; new: {say_of(fresh)}" if fresh else ""
    message += f"; left out: {say_of(left)}" if left else ""
    return given | {"params": given["params"] | {"fc8": fc8}}, message + "."
