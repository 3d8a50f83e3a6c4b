"""A run's checkpoint -> its network, on the devices: what `evaluate`, `predict` and studies begin with."""

import pathlib
from typing import Any, NamedTuple

from openset_jax.errors import UserError


class Restored(NamedTuple):
    """A network as it was at a step of its run.

    Attributes:
      workdir: of the run.
      step: of the checkpoint.
      best: whether this is the step that the run is deployed with.
      config: as the run was last started, with an `eval.batch_size` that these devices can share.
      meta: the checkpoint's JSON part: "classes", "fingerprint", "prior" (the effective one of training), ...
      model: the `nn.Module`.
      variables: its parameters and batch statistics, replicated.
    """

    workdir: pathlib.Path
    step: int
    best: bool
    config: Any
    meta: dict[str, Any]
    model: Any
    variables: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """The K known classes."""
        return tuple(self.meta["classes"])


def restore(workdir: str | pathlib.Path, *, step: int | None = None, best: bool = True) -> Restored:
    """Reads a checkpoint.

    Args:
      step: of the checkpoint; None for the best, or, unless `best`, the last.

    Raises:
      UserError: there is no checkpoint, or none of this step.
    """
    import jax

    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.training import checkpoints, devices, state

    workdir = pathlib.Path(workdir).expanduser().resolve()
    saved = checkpoints.open_checkpoints(workdir)
    last = saved.latest()
    meta = saved.meta(last)
    deployed = last if meta["progress"]["best_step"] is None else meta["progress"]["best_step"]
    step = step if step is not None else deployed if best else last
    if step not in saved.steps():
        there = ", ".join(map(str, saved.steps()))
        raise UserError(f"--workdir: {workdir} has no checkpoint of step {step}, which is asked for; it has {there}")
    config = configs.as_last_started(meta["config"], workdir)
    config.eval.batch_size += -config.eval.batch_size % jax.device_count()  # padding is masked
    model = build.make_model(config, len(meta["classes"]))
    like = jax.eval_shape(lambda: state.initial_variables(model, seed=config.seed, image_size=config.data.image_size))
    variables = devices.replicate(saved.restore_model(step, like))
    saved.close()
    return Restored(workdir, step, step == deployed, config, meta, model, variables)
