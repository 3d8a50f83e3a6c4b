"""Warm start: a run that starts from the network of another run.

All layers but the last are copied. The outputs of the last layer are copied for the classes that both runs have.
"""

from collections.abc import Sequence

import jax
import numpy as np

from openset_jax.errors import UserError
from openset_jax.spec import RunSpec
from openset_jax.text import abridged
from openset_jax.training.restore import restore
from openset_jax.training.state import Variables

_SAME = ("image_size", "grey", "mean", "std")  # must be equal in both runs, because the copied layers depend on them


def warm_start(variables: Variables, spec: RunSpec, classes: Sequence[str]) -> tuple[Variables, str]:
    """Returns (variables, on the host, of the best checkpoint in `spec.init_from`; a sentence on copied and new outputs).

    Args:
      variables: freshly initialised, on the host. Outputs that the other network does not have keep these values.
      classes: the K known classes of this run.

    Raises:
      UserError: there is no such run, or its network differs below the last layer.
    """
    try:
        run = restore(spec.init_from)
    except UserError as error:
        raise UserError(f"init_from: {str(error).removeprefix('--workdir: ')}") from error
    other = run.spec.workdir
    same = {f"data.{name}": (getattr(run.spec.images, name), getattr(spec.images, name)) for name in _SAME}
    # some kinds of normalisation have no parameters, so that shapes do not show them
    network = spec.program.forward.network.make(len(classes))
    same["model.norm"], head = (run.model.norm, network.norm), network.head
    for field, (there, here) in same.items():
        if there != here:
            raise UserError(f"{field}: the run in init_from, {other}, has {there!r}, this one {here!r}; use the same")
    given = jax.tree.map(np.array, jax.device_get(run.variables))
    for kind, layers in variables.items():
        for layer in sorted(layers.keys() | given[kind].keys()):
            shapes = [jax.tree.map(np.shape, tree[kind].get(layer)) for tree in (given, variables)]
            if layer != head and shapes[0] != shapes[1]:
                raise UserError(
                    f"init_from: {layer} has the shapes {shapes[0]} in the run in {other}, but {shapes[1]} with this "
                    "config; use the same model.* fields"
                )
    before = [*run.classes, *[None] * run.spec.objective.none_output]
    after = [*classes, *[None] * spec.objective.none_output]
    outputs, old = dict(variables["params"][head]), given["params"][head]
    if len(outputs["kernel"]) != len(old["kernel"]):
        raise UserError(
            f"init_from: {head} has {len(old['kernel'])} input features in the run in {other}, but "
            f"{len(outputs['kernel'])} with this config; use the same model.width"
        )
    kept = [i for i, name in enumerate(after) if name in before]
    source = [before.index(after[i]) for i in kept]
    for name, values in outputs.items():
        outputs[name] = values.copy()
        outputs[name][..., kept] = old[name][..., source]
    listed = lambda names: abridged(['"none"' if name is None else name for name in names])
    new, dropped = [n for i, n in enumerate(after) if i not in kept], [n for n in before if n not in after]
    message = f"Starting from the network of {other} at step {run.step}: {len(kept)} outputs are copied by class name"
    message += f"; new: {listed(new)}" if new else ""
    message += f"; dropped: {listed(dropped)}" if dropped else ""
    return given | {"params": given["params"] | {head: outputs}}, message + "."
