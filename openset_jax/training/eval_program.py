"""The compiled forward passes of a `ForwardSpec`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from openset_jax.model.network import Network
from openset_jax.spec import ForwardSpec
from openset_jax.training import devices, steps
from openset_jax.training.image_input import ImageInput
from openset_jax.training.state import Variables
from openset_jax.training.train_program import make_crop, make_normalise

ODIN_TEMPERATURE = 1000.0
ODIN_EPSILON = 0.0014  # of pixels in [0, 1]

EvalStep = Callable[[Variables, dict[str, Any]], dict[str, jax.Array]]


def make_eval_steps(forward: ForwardSpec, model: Network, image_input: ImageInput) -> dict[str, EvalStep]:
    """Returns, for each name of an output, a step (variables, batch) -> output of the global batch, compiled at first use.

    "logits": float32 [B, outputs]. "features": logits, and float32 [B, F]. Of images also "odin": "perturbed", the
    logits of `perturbed_logits`, and "images": uint8 [B, S, S, 3], as they are stored.
    """
    crop, normalise = make_crop(forward.inputs), make_normalise(forward.inputs)
    prepared = lambda stored: normalise(crop(stored))
    known = slice(-1) if forward.none_output else slice(None)

    def features(variables, stored):
        logits, features = model.apply(variables, prepared(stored))
        return {"logits": logits, "features": features}

    def odin(variables, stored):
        apply = lambda x: model.apply(variables, x)[0]
        return {"perturbed": perturbed_logits(apply, prepared(stored), known=known, std=forward.images.std)}

    outputs = {
        "logits": lambda variables, stored: {"logits": model.apply(variables, prepared(stored))[0]},
        "features": features,
    }
    if not model.takes_vectors:
        outputs |= {"odin": odin, "images": lambda variables, stored: {"images": stored}}
    make = lambda compute: devices.pmap_eval(functools.partial(steps.eval_step, compute=compute), image_input)
    return {name: make(compute) for name, compute in outputs.items()}


def perturbed_logits(
    apply: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    *,
    known: slice,
    std: Sequence[float],
    temperature: float = ODIN_TEMPERATURE,
    epsilon: float = ODIN_EPSILON,
) -> jax.Array:
    """ODIN: logits [b, outputs] of x + epsilon sign(grad_x log S(x; T)), S the largest softmax probability of z / T.

    A step towards the predicted class raises the confidence of knowns more than that of unknowns. Liang, Li and Srikant
    2018, arXiv 1706.02690, equation 2; the score is then the maximum softmax probability at T (`logit_scores.odin`). T and
    epsilon are the authors' values for CIFAR-10 and OpenOOD's defaults; they are not tuned here.

    Args:
      apply: normalised images -> logits [b, outputs]; the logits of an image must not depend on other images.
      images: float32 [b, H, W, 3], normalised.
      known: the outputs of the K known classes.
      std: of each channel, for pixels in [0, 1], as used to normalise; epsilon is in units of these pixels.
    """

    def confidence(x):
        return jax.nn.log_softmax(apply(x)[:, known] / temperature).max(-1).sum()

    towards = jnp.sign(jax.grad(confidence)(images))
    return apply(images + epsilon / jnp.asarray(std, images.dtype) * towards)
