"""The layers that a run trains, and the operations, memory and speed of a step."""

import contextlib
import json
import pathlib
import statistics
from typing import Any

from openset_jax.config import FIRST_PHASE
from openset_jax.model import cost
from openset_jax.model.head import head_of
from openset_jax.spec import RunSpec
from openset_jax.study.stats.arm_outcome import Training
from openset_jax.training import run_setup, state
from openset_jax.training.image_input import LoadedImages
from openset_jax.training.progress import Progress
from openset_jax.training.run_cache import RunCache


def training(spec: RunSpec, cache: RunCache, examples: LoadedImages) -> Training:
    """Returns what a finished run trained.

    Args:
      spec: of the run; of two phases, the second.
      cache: the one that the run was trained with.
      examples: what it was trained on.
    """
    run = run_setup.make_run(spec, cache)
    model = run.network.model
    two_phases = pathlib.Path(spec.init_from) == spec.workdir / FIRST_PHASE
    return Training(
        start=FIRST_PHASE if two_phases else spec.init_from,
        trainable=spec.program.trainable,
        layers=len(model.trained),
        all_layers=len(model.layers),
        flops=flops(spec, features=examples.features is not None),
        memory=_memory(run, examples),
        images_per_second=_images_per_second(spec.workdir / "metrics.jsonl"),
    )


def flops(spec: RunSpec, *, train: bool = True, features: bool = False) -> float:
    """Returns the operations for one example: of a training step, or (not `train`) of a forward pass.

    Args:
      features: True if the head is trained on the features of images.
    """
    network = spec.program.forward.network.make(1, trainable=spec.program.trainable)
    if features:
        return cost.flops_per_example(head_of(network), (network.feature_size,), train=train)
    return cost.flops_per_example(network, spec.inputs.shape, train=train)


def _memory(run: run_setup.Run, images: LoadedImages) -> int | None:
    """Returns the bytes of a call of the training step on one device, as XLA plans them, without resident images."""
    spec, network = run.spec, run.network
    step: Any = run.train_step(images, Progress())  # a partial of a `devices._Compiled`
    store, constants = step.args

    def arguments():
        shapes = state.state_shape(network.model, network.optimizer, spec.inputs.shape)
        with contextlib.closing(run.calls(images, 0, stop=spec.program.steps_per_call)) as calls:
            return constants, shapes, next(calls)

    return step.func.planned_bytes(store, arguments)


def _images_per_second(path: pathlib.Path) -> float | None:
    """Returns the median over the lines of a metrics.jsonl without the first, which includes compilation; or None.

    Of runs that train at once it is the speed of all together.
    """
    rows = map(json.loads, path.read_text().splitlines())
    rates = [rate * row.get("runs_at_once", 1) for row in rows if (rate := row["images_per_second"])]
    return statistics.median(rates[1:] or rates) if rates else None
