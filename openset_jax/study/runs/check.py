"""Checks, before the first arm is trained, that a grid can be run and that its arms differ and are comparable."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from openset_jax import config as configs
from openset_jax.data.pools import TEST, VALIDATION
from openset_jax.errors import UserError
from openset_jax.report import console
from openset_jax.spec import RunSpec
from openset_jax.study.runs.grid import Arm
from openset_jax.study.stats.treatments import NEGATIVES
from openset_jax.training import checkpoints, run_length, run_setup, start_weights, vector_size
from openset_jax.training.run_cache import RunCache
from openset_jax.training.state import variables_shape

Phases = tuple[RunSpec, ...]  # of one arm, from `config.resolve`


class Size(NamedTuple):
    """The amount of data of an arm."""

    known: int  # number of different training images that are drawn
    negatives: int
    groups: int  # of those negatives
    none: float  # share of "none" in the training stream
    examples: int  # drawn, with repetitions
    classified: int  # validation images at each evaluation and at the end, and test images, with repetitions


def natural_run(run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a copy of `config.run` that is a valid run also if arms set the sampling: natural, with all negatives."""
    run = run.copy_and_resolve_references()
    run.sampling.policy, run.sampling.negatives = "natural", None
    return run


def with_shared_steps(run: ml_collections.ConfigDict, cache: RunCache) -> ml_collections.ConfigDict:
    """Returns a copy of `config.run` with the `steps` of all arms, and with `data.vector_size`.

    Its `epochs` are those of its `natural_run`.
    """
    run = run.copy_and_resolve_references()
    run.data.vector_size = vector_size.with_vector_size(natural_run(run), cache).data.vector_size
    run.steps = run_length.with_steps(natural_run(run), cache).steps
    return run


def resolve_arm(
    arm: Arm, config: ml_collections.ConfigDict, workdir: pathlib.Path, cache: RunCache, *, dtype: str | None = None
) -> Phases:
    """The runs of an arm, from its config of `grid.config_of`; see `config.resolve`.

    The config has the steps of `with_shared_steps`, which an arm that sets `epochs` itself replaces.

    Raises:
      UserError: names the block and the field.
    """
    with _naming(arm):
        if arm.treatment.get("epochs") is not None:
            config = run_length.with_steps(config, cache)
        return configs.resolve(config, workdir, dtype=dtype)


def check_grid(arms: Sequence[Arm], phases: Mapping[Arm, Phases], cache: RunCache) -> dict[str, Size]:
    """Checks all arms; returns name of the arm -> its size.

    Raises:
      UserError: an arm cannot be run, sees another number of examples than the others, or equals another arm; names the
        block and the field.
    """
    sizes: dict[str, Size] = {}
    first_with: dict[tuple[str, int], Arm] = {}
    for arm in arms:
        _check_without_negatives(arm, arms, phases[arm][-1], cache)
        sizes[arm.name], effect = _check_arm(arm, phases[arm], cache)
        twin = first_with.setdefault((effect, arm.seed), arm)
        if twin is not arm:
            differ = sorted({n for n, _ in set(arm.treatment.fields) ^ set(twin.treatment.fields)})
            blocks = " and ".join(dict.fromkeys((f"grid.{twin.block}", f"grid.{arm.block}")))
            raise UserError(
                f"{blocks}: {', '.join(differ)}: the arms {twin.label!r} and {arm.label!r} would be one and the same run; "
                "leave one of them out, or leave its block out of `blocks`"
            )
        first = sizes[arms[0].name].examples
        if sizes[arm.name].examples != first:
            raise UserError(
                f"grid.{arm.block}: the arm {arm.label!r} would see {sizes[arm.name].examples:,} examples, and "
                f"{arms[0].label!r} sees {first:,}; all arms must see the same number (steps times batch_size)"
            )
    return sizes


def _check_without_negatives(arm: Arm, arms: Sequence[Arm], spec: RunSpec, cache: RunCache) -> None:
    """Raises UserError if an arm with `sampling.negatives=0`, which trains softmax, has one known class."""
    if arm.treatment.get(NEGATIVES) != 0:
        return
    with _naming(arm):
        classes = cache.pool(spec).classes
    if len(classes) == 1:
        starting = dict.fromkeys(f"grid.{other.block}" for other in arms if other.starts_from(arms) == arm)
        rest = f", and leave {' and '.join(starting)}, whose arms start from it, out of `blocks`" if starting else ""
        raise UserError(
            f"grid.{arm.block}.{NEGATIVES}: 0 trains objective.name={spec.objective.name}, which cannot learn a single "
            f"known class, {classes[0]!r}; leave 0 out of these values{rest}"
        )


def check_starts(arms: Sequence[Arm], phases: Mapping[Arm, Phases], cache: RunCache) -> None:
    """Reads the weights that arms without a checkpoint start from, once for all arms with the same network.

    Arms that start from other arms must not be among them.

    Raises:
      UserError: the weights cannot be read or do not fit; names the block and the field.
    """
    checked = set()
    for arm in arms:
        spec = phases[arm][0]
        started = any(checkpoints.latest_step(phase.workdir) is not None for phase in phases[arm])
        if spec.init_from and not started and (key := (spec.init_from, spec.program.forward)) not in checked:
            with _naming(arm):
                model = cache.network(spec.program, len(cache.pool(spec).classes)).model
                start_weights.load(spec, variables_shape(model, spec.inputs.shape))
            checked.add(key)


def _check_arm(arm: Arm, phases: Phases, cache: RunCache) -> tuple[Size, str]:
    """Returns (size of the arm, hash of everything that its result depends on except the seed)."""
    with _naming(arm):
        if phases[-1].stopping.patience:
            raise UserError("early_stopping.patience: all arms must see the same number of examples; set it to 0")
        sizes, effects = zip(*(_check_phase(spec, cache) for spec in phases), strict=True)
    start = phases[0].init_from  # every later phase starts from the previous one
    classified = sum(size.classified for size in sizes) + len(cache.pool(phases[-1]).rows(TEST))
    size = sizes[-1]._replace(examples=sum(size.examples for size in sizes), classified=classified)
    return size, hashlib.blake2b(repr((start, effects)).encode()).hexdigest()


@contextlib.contextmanager
def _naming(arm: Arm) -> Iterator[None]:
    """Adds the block and the arm to the message of a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"grid.{arm.block}, the arm {arm.label!r}: {error}") from error


def _check_phase(spec: RunSpec, cache: RunCache) -> tuple[Size, tuple[object, ...]]:
    """Returns (size of a phase, everything that its result depends on except the seed)."""
    run = run_setup.make_run(spec, cache)
    sampler, weights, program, k = run.sampler, run.weights, spec.program, run.pool.num_classes
    rows, negatives = np.concatenate(run.rows_by_class), run.rows_by_class[k:]
    size = Size(
        known=sum(sampler.drawn[:k]),
        negatives=sum(sampler.drawn[k:]),
        groups=len(np.unique(run.pool.group[np.concatenate(negatives)])) if negatives else 0,
        none=float(weights.prior[-1]),
        examples=program.steps * program.batch_size,
        classified=(program.steps // spec.evaluation.every + 1) * len(run.pool.rows(VALIDATION)),
    )
    effect = (
        run.pool.fingerprint(), hashlib.blake2b(rows.tobytes()).hexdigest(), sampler.sizes, sampler.weights, sampler.drawn,
        program.steps, program.batch_size, weights.by_class.tobytes(), weights.negative_weight,
        weights.adjustment(k + 1).tobytes(), str(run.network.model), program.loss.objective.loss.__qualname__,
        program.loss.options, program.optimizer, spec.learning_rate, program.all_reduce_dtype, program.crop, program.pad,
        program.flip, spec.evaluation.every, spec.stopping.metric, spec.decision, spec.inputs,
    )  # fmt: skip
    return size, effect


def arm_table(arms: Sequence[Arm], sizes: Mapping[str, Size], finished: Sequence[Arm]) -> str:
    """Returns the sizes of the arms (see `check_grid`) as text, one line for all seeds of a treatment."""
    head = ["arms", "known images", "negatives", "kinds", 'share of "none"', "examples seen", "seeds done"]
    rows: list[Sequence[console.Cell]] = [head]
    for treatment in dict.fromkeys(arm.treatment for arm in arms):
        alike = [arm for arm in arms if arm.treatment == treatment]
        size, done = sizes[alike[0].name], sum(arm in finished for arm in alike)
        counts: list[console.Cell] = [size.known, size.negatives, size.groups, f"{size.none:.1%}", size.examples]
        rows.append([treatment.label, *counts, f"{done} of {len(alike)}"])
    return console.columns(rows)
