"""Warm start: a run that starts from trained weights.

The layers below the head are copied. The outputs of the head are copied for the classes that are known to have one.
"""

from collections.abc import Sequence

from openset_jax.spec import RunSpec
from openset_jax.text import abridged
from openset_jax.training import start_weights
from openset_jax.training.state import Variables


def warm_start(variables: Variables, spec: RunSpec, classes: Sequence[str]) -> tuple[Variables, str]:
    """Returns (variables, on the host, that start from `spec.init_from`; lines on what is kept, new and left out).

    Args:
      variables: freshly initialised, on the host. Outputs that the other network does not have keep these values.
      classes: the K known classes of this run.

    Raises:
      UserError: see `start_weights.load`.
    """
    given, head = start_weights.load(spec, variables), spec.program.forward.network.make(1).head
    before, after = given.outputs, [*classes, *[None] * spec.objective.none_output]
    kept = [i for i, name in enumerate(after) if name in before]
    source = [before.index(after[i]) for i in kept]
    outputs = {name: values.copy() for name, values in variables["params"][head].items()}
    for name, values in outputs.items() if kept else ():
        values[..., kept] = given.variables["params"][head][name][..., source]
    listed = lambda names: abridged(['"none"' if name is None else name for name in names])
    new, left = [n for i, n in enumerate(after) if i not in kept], [n for n in before if n not in after]
    message = (
        f"Starting from {given.origin}: the layers below {head} are copied, and {len(kept) or 'no'} outputs by class name"
    )
    message += f"; new: {listed(new)}" if new else ""
    message += f"; left out: {listed(left)}" if left else ""
    message += f"; left out: {given.unnamed:,} outputs without names of classes" if given.unnamed else ""
    merged = given.variables | {"params": given.variables["params"] | {head: outputs}}
    return merged, "\n".join(filter(None, [f"{message}.", given.note]))
