"""Adam with warm-up, a schedule, decoupled weight decay and gradient clipping, all from Optax."""

import jax
import optax

from openset_jax.errors import UserError

SCHEDULES = ("cosine", "constant")


def make_schedule(*, learning_rate: float, warmup_steps: int, schedule: str, steps: int) -> optax.Schedule:
    """Linear from 0 over `warmup_steps`, then a half cosine to 0 at `steps`, or constant.

    Raises:
      UserError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"optimizer.schedule: {schedule!r} is not one of {', '.join(SCHEDULES)}")
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, max(steps, warmup_steps + 1))
    return (
        optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else optax.constant_schedule(learning_rate)
    )


def make_optimizer(
    schedule: optax.Schedule, *, b1: float, b2: float, eps: float, weight_decay: float, grad_clip: float
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) behind clipping by global norm (0: no clipping).

    Weight decay applies to kernels only, not to biases, and scales and offsets of normalisation.
    """
    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    clip = optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity()
    return optax.chain(clip, optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=kernels))
