"""Everything that a run needs before its first step: images, sampler, weights, network, and the state to start from."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from openset_jax import config as configs
from openset_jax.data import batches
from openset_jax.data.pools import Pool
from openset_jax.data.sampler import Sampler
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.openset.losses import weights as of_examples
from openset_jax.openset.scores import logit_scores
from openset_jax.spec import LossSpec, RunSpec
from openset_jax.training import (
    device_memory,
    devices,
    hosts,
    run_length,
    run_record,
    saved_decision,
    validation,
)
from openset_jax.training.checkpoints import Checkpoints
from openset_jax.training.image_input import LoadedImages
from openset_jax.training.inference import Inference
from openset_jax.training.input_choice import InputChoice
from openset_jax.training.progress import Progress, plateau_warning
from openset_jax.training.run_cache import RunCache, TrainableNetwork, TrainStep
from openset_jax.training.run_log import RunLog, say
from openset_jax.training.state import TrainState, Variables, create_state
from openset_jax.training.steps import Batch
from openset_jax.training.warm_start import warm_start

_MARGIN_SHARE = 0.2  # share of the steps before margins are measured
_MARGIN_IMAGES = 2_048  # maximum number of known images, and of negatives, on which margins are measured
_PLATFORMS = {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run before its first step."""

    spec: RunSpec
    cache: RunCache  # shared with other runs of this process
    pool: Pool
    rows_by_class: list[np.ndarray]  # int64, the training rows of each class, "none" last if the objective uses negatives
    sampler: Sampler  # draws from these rows
    weights: of_examples.Weights
    network: TrainableNetwork
    record: Mapping[str, Any]  # see `run_record`
    warning: str  # about the validation split and the learning rate, or ""

    def loss(self, progress: Progress) -> LossSpec:
        """The loss with the margins measured so far."""
        return self.spec.program.loss.with_margins(progress.margins)

    def train_step(self, images: LoadedImages, progress: Progress) -> TrainStep:
        """The compiled step; see `RunCache.train_step`."""
        return self.cache.train_step(self.spec, self.loss(progress), images, self.weights)

    def plateau_loss(self, progress: Progress) -> float:
        """Returns the minimum loss of constant outputs; see `weights.plateau_loss`."""
        return self._first_plateau_loss if progress.margins is None else self._plateau_loss(self.loss(progress))

    @functools.cached_property
    def _first_plateau_loss(self) -> float:
        return self._plateau_loss(self.spec.program.loss)

    def _plateau_loss(self, loss: LossSpec) -> float:
        return of_examples.plateau_loss(loss.function, self.weights, self.network.model.num_outputs)

    def calls(self, images: LoadedImages, start: int, stop: int | None = None) -> Generator[Batch]:
        """Yields, on the devices, the batches of each call from step `start` to step `stop` (None: the last of the run)."""
        return devices.prefetch_steps(self.batches(images, start, stop), self.spec.program.steps_per_call)

    def batches(self, images: LoadedImages, start: int, stop: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batch of each step from `start` to `stop` (None: the last of the run), on the host."""
        stop = self.spec.program.steps if stop is None else stop
        plan = batches.training(
            self.pool, self.rows_by_class, self.sampler, start=start, stop=stop, unreadable=images.unreadable,
            part=hosts.host_part(),
        )  # fmt: skip
        return images.image_input.read(plan)

    def needs_margins(self, step: int, progress: Progress) -> bool:
        """True if margins are due: they are measured once, after a fifth of all steps in whole calls, at least one call."""
        program = self.spec.program
        if progress.margins is not None or not program.loss.measures_margins:
            return False
        return step >= max(round(_MARGIN_SHARE * program.steps) // program.steps_per_call, 1) * program.steps_per_call

    def measure_margins(self, inference: Inference, variables: Variables) -> list[float]:
        """[mean energy of knowns, mean energy of negatives] of training images, in nats; prints them.

        The margins of Liu et al. 2020 fit only their network and data set. Here the network first learns from the knowns
        alone; then the margins are the two mean energies, so that the loss pushes knowns below and negatives above them.
        """
        means = []
        for rows in (np.concatenate(self.rows_by_class[:-1]), self.rows_by_class[-1]):
            chosen = rows[np.argsort(self.pool.key[rows], kind="stable")[:_MARGIN_IMAGES]]  # the same in every run
            _, logits = inference.logits(variables, chosen)
            means.append(float(logit_scores.energy(logits).mean()))
        known, negative = means
        text = f"Measured energy margins: knowns below {known:.2f}, negatives above {negative:.2f}."
        if known >= negative:
            text += " Warning: negatives have a lower mean energy than knowns; train longer, or set objective.margins."
        say(text)
        return means

    def log_line(self, log: RunLog, step: int, progress: Progress, measured: Mapping[str, float | None]) -> None:
        """Logs the mean metrics since the last line, and a warning if training is stuck or ends without having learned."""
        if not progress.count:
            return
        ending = step == self.spec.program.steps or progress.out_of_patience(self.spec.stopping.patience)
        rate = self.spec.learning_rate * _relative_rate(self.network.schedule, step - 1)
        means = progress.means() | {"learning_rate": rate}
        log.line(step, {**means, **measured})
        if ending or step > self.spec.program.optimizer.warmup_steps:  # during warmup the plateau is normal
            say(plateau_warning(progress, means, self.weights.prior, [*self.pool.classes, "none"], ending=ending))


@functools.lru_cache(maxsize=1024)
def _relative_rate(schedule: optax.Schedule, step: int) -> float:
    return devices.on_host(schedule, step)


def make_run(spec: RunSpec, cache: RunCache) -> Run:
    """Opens the images and makes sampler, weights and network; raises UserError, naming the field, for an impossible run."""
    sizes = {"batch_size": spec.program.batch_size, "eval.batch_size": spec.evaluation.batch_size}
    for field, size in sizes.items():
        devices.check_batch_size(field, size)
    pool = cache.pool(spec)
    for field, size in sizes.items():
        device_memory.check_batch(field, size, pool.array)
    spec.objective.check_classes(pool.classes)
    rows_by_class, sampler = run_length.sampled(spec, pool)
    weights = make_weights(spec, pool.num_classes, sampler)
    warning = "\n".join(filter(None, [validation.check(pool, spec, weights.effective_prior), warmup_warning(spec)]))
    network, record = cache.network(spec.program, pool.num_classes), run_record.make_record(spec, pool, weights)
    return Run(spec, cache, pool, rows_by_class, sampler, weights, network, record, warning)


def warmup_warning(spec: RunSpec) -> str:
    """A warning if the warmup takes all steps of the run; "" otherwise."""
    optimizer, steps = spec.program.optimizer, spec.program.steps
    if optimizer.warmup_steps < steps:
        return ""
    most = spec.learning_rate * steps / optimizer.warmup_steps
    return (
        f"optimizer.warmup_steps: {optimizer.warmup_steps:,} is not less than the {steps:,} steps of the run; the learning "
        f"rate only rises, to {most:.3g}. Set it to a share of the steps, for example optimizer.warmup_steps=10%."
    )


def make_weights(spec: RunSpec, num_classes: int, sampler: Sampler | None = None) -> of_examples.Weights:
    """Returns the example weights for a sampler; without a sampler, for equally frequent classes."""
    size = num_classes + 1
    prior, counts = np.full(size, 1 / size), np.ones(size)
    if sampler is not None:
        prior, counts = (np.pad(values, (0, size - len(values))) for values in (sampler.prior, sampler.drawn))
    return of_examples.make_weights(prior, counts, **vars(spec.weights))


def check_workdir(workdir: pathlib.Path, phases: Sequence[RunSpec]) -> None:
    """Raises UserError if the workdir has an experiment, or a run of two phases where `phases` has one."""
    if (workdir / configs.EXPERIMENT).exists():
        raise UserError(f"--workdir: {workdir} has an experiment; use another --workdir for a single run")
    if len(phases) == 1 and (workdir / configs.FIRST_PHASE).is_dir():
        raise UserError(
            f"sampling.policy: the run in {workdir} has two phases, but this config has "
            f"{phases[0].sampling.policy}; restore two_phase, or use a new --workdir"
        )


def start(run: Run) -> tuple[Checkpoints, TrainState, Progress, int]:
    """Opens the checkpoints, writes config.json, and returns (checkpoints, state on the host, progress, step).

    Raises UserError if the checkpoint belongs to another run, or the processes have different configs or images.
    """
    checkpoints = Checkpoints(run.spec.workdir, writing=True)
    state, progress, step = _starting_point(run, checkpoints)
    hosts.check_agreement(run.record, step)
    checkpoints.continue_from(step)
    if hosts.is_first_process():
        with write_whole(run.spec.workdir / "config.json") as file:
            file.write(json.dumps(run.spec.record, indent=2) + "\n")
    return checkpoints, state, progress, step


def initial_state(run: Run) -> TrainState:
    """Returns the state before the first step, on the host: from the weights of `init_from`, or from random parameters.

    Raises UserError as `start_weights.load`.
    """
    fresh = _random_state(run)
    if run.spec.init_from:
        variables, text = warm_start(fresh.variables, run.spec, run.pool.classes)
        say(text)
        return fresh.replace(**variables)
    if run.network.model.takes_vectors:
        return fresh.replace(batch_stats=run.cache.statistics(run.pool, run.rows_by_class))
    return fresh


def _random_state(run: Run) -> TrainState:
    network = run.network
    return create_state(network.model, network.optimizer, seed=run.spec.seed, shape=run.spec.inputs.shape)


def _starting_point(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Progress, int]:
    """(state on the host, progress, step) from the last checkpoint, trained weights, or random parameters."""
    spec = run.spec
    steps, per_call = spec.program.steps, spec.program.steps_per_call
    if not checkpoints.steps():
        if (spec.workdir / saved_decision.DECISION).exists():
            raise UserError(
                f"--workdir: {spec.workdir} has a {saved_decision.DECISION}, but no checkpoint: its results are of another "
                "network; restore the folder checkpoints/, delete the results, or use a new --workdir"
            )
        return initial_state(run), Progress(), 0

    def read(step):
        record = checkpoints.record(step)
        run_record.check_same_run(record, run.record, spec.workdir)
        return record, checkpoints.restore(step, _random_state(run))

    start, (saved, host_state), warning = checkpoints.newest(read)
    say(warning)
    if start > steps:
        raise UserError(f"steps: {steps} is less than the checkpoint's {start}; raise it, or use a new --workdir")
    if start % per_call:
        raise UserError(f"steps_per_call: {per_call} does not divide the checkpoint's step {start}; use a divisor")
    say(f"Resuming at step {start}.")
    say(_length_line(spec, start, saved["config"]["steps"]))
    return host_state, Progress(**saved["progress"]), start


def _length_line(spec: RunSpec, start: int, before: int) -> str:
    """Returns a line if the run is finished, or `steps`, which was `before`, has changed; "" otherwise."""
    steps = spec.program.steps
    if start == steps:
        return f"All {steps} steps are done: nothing is trained, the network is evaluated again."
    if before == steps:
        return ""
    jump = "" if spec.program.optimizer.schedule == "constant" else "; the learning rate jumps to the new schedule"
    return f"steps was {before}, now {steps}: training goes on from step {start}{jump}."


def computation_line(spec: RunSpec, choice: InputChoice) -> str:
    """Returns the printed line on the dtype and the image input, with their reasons."""
    dtype, suited = spec.program.forward.network.dtype, configs.device_dtype()
    platform = _PLATFORMS.get(jax.default_backend(), jax.default_backend())
    if not spec.dtype_is_auto:
        reason = ""
    elif dtype == suited:
        reason = f" (model.dtype=auto on {platform})"
    else:
        reason = f", as at the start of the run (model.dtype=auto would be {suited} on {platform})"
    return f"Computing in {dtype}{reason}, {choice.text}."
