"""A diverged network: a loss, a gradient norm or a logit that is not finite ends the command, whoever sees it first.

The checks look at values that are on the host anyway, so they cost the devices nothing.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from openset_jax.errors import UserError
from openset_jax.model import networks
from openset_jax.spec import RunSpec
from openset_jax.training import checkpoints, devices
from openset_jax.training.state import Variables, make_schedule

REMEDY = (
    "Start again in another --workdir with a smaller optimizer.learning_rate (a third), a longer optimizer.warmup_steps, or "
    "optimizer.grad_clip=1.0"
)


class NotFinite(UserError):
    """A loss, a gradient norm or a logit is not finite.

    Attributes:
      what: the values that are not finite.
      variables: those that gave them; None if they are gone, because a step was donated the state.
      layers: names of the layers of `variables`, in the order in which they run.
      steps_ago: number of later steps whose metrics are fetched already.
    """

    def __init__(self, what: str, variables: Variables | None = None, layers: Sequence[str] = (), steps_ago: int = 0):
        where = "" if variables is None else f" {describe(variables, layers)}."
        super().__init__(f"training diverged: {what}.{where} {REMEDY}")
        self.what, self.variables, self.steps_ago = what, variables, steps_ago


def check_metrics(metrics: Mapping[str, np.ndarray]) -> None:
    """Raises NotFinite unless loss and gradient norm of all steps of a call, float [steps], are finite."""
    loss, norm = np.asarray(metrics["loss"]), np.asarray(metrics["grad_norm"])
    if (wrong := ~np.isfinite(loss) | ~np.isfinite(norm)).any():
        i = int(wrong.argmax())
        raise NotFinite(f"the loss is {loss[i]:g}, the norm of the gradient {norm[i]:g}", steps_ago=len(wrong) - 1 - i)


def check_logits(logits: np.ndarray, variables: Variables, layers: Sequence[str]) -> None:
    """Raises NotFinite unless the logits, float [n, outputs], of a network with these variables are finite."""
    if count := np.count_nonzero(~np.isfinite(logits).all(-1)):
        raise NotFinite(f"the logits of {count} of {len(logits)} images are not finite", variables, layers)


def describe(variables: Variables, layers: Sequence[str]) -> str:
    """Names the first layer whose parameters or statistics are not finite; if all are finite, the layer of the largest.

    `layers` are the names of all layers, in the order in which they run.
    """
    values = jax.device_get(variables)
    largest = {}
    for layer in filter(values["params"].__contains__, layers):
        leaves = jax.tree.leaves([values["params"][layer], values["batch_stats"].get(layer, {})])
        largest[layer] = max(float(np.abs(leaf).max()) for leaf in leaves)  # NaN if there is one
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            return f"The first layer with values that are not finite is {layer}"
    layer = max(largest, key=lambda name: largest[name])
    return f"All parameters are finite; the largest is {largest[layer]:.3g}, in {layer}"


@contextlib.contextmanager
def explained(spec: RunSpec, now: Callable[[], tuple[int, Variables]]) -> Iterator[None]:
    """Adds step, layer, learning rate and the newest checkpoint to the message of a `NotFinite`.

    Args:
      now: returns the current step and its variables.
    """
    try:
        yield
    except NotFinite as error:
        step, variables = now()
        layers = networks.get(spec.program.forward.network.name).layers_of("all")
        step -= error.steps_ago
        schedule = make_schedule(spec.program.optimizer, spec.program.steps)
        rate = spec.learning_rate * devices.on_host(schedule, max(step - 1, 0))
        newest = checkpoints.latest_step(spec.workdir)
        kept = (
            "No checkpoint was saved" if newest is None else f"The newest checkpoint in {spec.workdir} is of step {newest}"
        )
        where = describe(error.variables or variables, layers)
        raise UserError(
            f"training diverged at step {step}: {error.what}. {where}. The learning rate was {rate:.3g}. {kept}. {REMEDY}"
        ) from error
