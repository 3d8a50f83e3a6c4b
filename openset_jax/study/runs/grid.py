"""The arms of an experiment: a union of products of axes; each arm is a treatment and a seed.

`config.grid` has named blocks. A block has axes (fields of `config.run`, each with a tuple of values), and stands
for their product: `grid.policies.sampling.policy = ("undersample", "balanced")`. An arm that is in two blocks is run once.
`config.blocks`, if it exists, names the blocks to run.
Two values are not plain overrides: an arm with `sampling.negatives=0` trains `softmax`, which uses no negatives; and
`init_from` may name another arm of the same seed, as "arm:sampling.negatives=0".
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from openset_jax import config_json
from openset_jax.errors import UserError
from openset_jax.study.stats.treatments import Treatment, field_names, methods_of

ARM = "arm:"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One run."""

    treatment: Treatment  # fields that differ from `config.run`
    seed: int
    block: str  # the first block that has the arm

    @property
    def name(self) -> str:
        """The name of the arm's folder: a hash of its treatment and seed."""
        text = json.dumps([[*self.treatment.fields], self.seed], sort_keys=True, default=list)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def label(self) -> str:
        """The arm's name in tables and messages."""
        return f"{self.treatment.label}, seed {self.seed}"

    def starts_from(self, arms: Sequence["Arm"]) -> "Arm | None":
        """Returns the arm of `arms` whose network this arm starts from; None if there is none."""
        asked = self.treatment.get("init_from") or ""
        if not asked.startswith(ARM):
            return None
        return next((a for a in arms if a.seed == self.seed and a.treatment.label == asked.removeprefix(ARM)), None)


def arms_of(config: ml_collections.ConfigDict) -> list[Arm]:
    """Returns all arms, ordered by seed; arms with the same data are adjacent, and each follows the arm that it starts from.

    Raises:
      UserError: names the block and the field to change.
    """
    seeds, blocks = _seeds(config), tuple(config.get("blocks", tuple(config.grid)))
    if not blocks:
        raise UserError("grid: it has no block; configs/imbalance.py has examples")
    if strange := [block for block in blocks if block not in config.grid]:
        raise UserError(f"blocks: {strange[0]!r} is not one of {', '.join(config.grid)}")
    found: dict[Treatment, str] = {}
    for block in blocks:
        for treatment in _treatments(block, config.grid[block], config.run):
            found.setdefault(treatment, block)
    if methods := methods_of(dict(config_json.flatten(config.run.to_dict())), field_names(found)):
        found = _with_methods(found, methods)
    arms = [Arm(treatment, seed, block) for seed in seeds for treatment, block in found.items()]
    for arm in arms:
        asked, base, field = arm.treatment.get("init_from") or "", arm.starts_from(arms), f"grid.{arm.block}.init_from"
        if not asked.startswith(ARM):
            continue
        if base is None or base is arm:
            there = "; ".join(dict.fromkeys(a.treatment.label for a in arms))
            raise UserError(f"{field}: there is no other arm {asked.removeprefix(ARM)!r}; the arms are: {there}")
        if (base.treatment.get("init_from") or "").startswith(ARM):
            raise UserError(f"{field}: {asked!r} itself starts from another arm; chains of arms are not supported")
    data = lambda arm: repr([field for field in arm.treatment.fields if field[0].startswith("data.")])
    return sorted(arms, key=lambda arm: (arm.seed, data(arm.starts_from(arms) or arm), arm.starts_from(arms) is not None))


def _with_methods(found: Mapping[Treatment, str], methods: Mapping[str, Any]) -> dict[Treatment, str]:
    """Returns treatment -> block, with `treatments.methods_of` in each treatment, also where `init_from` names one."""
    complete = {t: Treatment(tuple(sorted((dict(methods) | dict(t.fields)).items()))) for t in found}
    names = {ARM + t.label: ARM + full.label for t, full in complete.items()}
    renamed = lambda field, value: names.get(value, value) if field == "init_from" else value
    return {Treatment(tuple((f, renamed(f, v)) for f, v in complete[t].fields)): block for t, block in found.items()}


def _seeds(config: ml_collections.ConfigDict) -> list[int]:
    seeds = config.seeds
    good = isinstance(seeds, tuple | list) and seeds and all(isinstance(s, int) and 0 <= s < 2**31 for s in seeds)
    if not good or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {seeds!r} is not a tuple of different numbers from 0 to 2^31 - 1")
    return list(seeds)


def _treatments(block: str, axes: ml_collections.ConfigDict, run: ml_collections.ConfigDict) -> Iterator[Treatment]:
    there, asked = dict(config_json.flatten(run.to_dict())), dict(config_json.flatten(axes.to_dict()))
    if not asked:
        raise UserError(f"grid.{block}: it has no axis; give it a field of run with a tuple of values")
    for field, values in asked.items():
        if field == "seed":
            raise UserError(f"grid.{block}.seed: every arm is run with each seed in `seeds`; set the seeds there")
        if field not in there:
            near = difflib.get_close_matches(field, there, 1)
            remedy = f"did you mean {near[0]!r}?" if near else "see --help"
            raise UserError(f"grid.{block}: run has no field {field!r}; {remedy}")
        if not isinstance(values, tuple | list) or not len(values):
            raise UserError(f"grid.{block}.{field}: {values!r} is not a tuple of values")
        if repeated := [v for i, v in enumerate(values) if v in values[:i]]:
            raise UserError(f"grid.{block}.{field}: {repeated[0]!r} is given twice")
        if list(values) == [there[field]]:
            raise UserError(f"grid.{block}.{field}: {there[field]!r} is already the value in run: this axis changes nothing")
    for values in itertools.product(*asked.values()):
        changed = [(field, v) for field, v in zip(asked, values, strict=True) if v != there[field]]
        yield Treatment(tuple(sorted((field, _plain(v, f"grid.{block}.{field}")) for field, v in changed)))


def _plain(value: Any, field: str) -> Any:
    """Checks that a value can be compared, hashed and printed: a number, text, None, or a tuple of those."""
    if isinstance(value, tuple | list):
        return tuple(_plain(v, field) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{field}: {value!r} is not a number, text, None or tuple of these; use the fields below it as axes")


def config_of(arm: Arm, run: ml_collections.ConfigDict, folders: Mapping[str, str]) -> ml_collections.ConfigDict:
    """Returns the config that an arm is trained with.

    Args:
      run: `config.run` of the experiment.
      folders: label of a treatment -> folder of its arm of the same seed.

    Raises:
      UserError: a value is not valid for its field.
    """
    config, changes = run.copy_and_resolve_references(), dict(arm.treatment.fields) | {"seed": arm.seed}
    if changes.get("sampling.negatives", run.sampling.negatives) == 0:
        changes |= {"sampling.negatives": None, "objective.name": "softmax"}
    if (changes.get("init_from") or "").startswith(ARM):
        changes["init_from"] = folders[changes["init_from"].removeprefix(ARM)]
    for field, value in changes.items():
        try:
            with config.unlocked():
                config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"grid.{arm.block}.{field}: {value!r} is not a valid value ({error})") from error
    return config


def share(arms: Sequence[Arm], cost: Mapping[str, float], part: tuple[int, int]) -> list[Arm]:
    """Returns the arms of part i of n. Parts cost about the same; an arm is in the same part as the arm that it starts from.

    Args:
      cost: by the name of the arm.
      part: (i, n).
    """
    together: dict[str, list[Arm]] = {}
    for arm in arms:
        together.setdefault((arm.starts_from(arms) or arm).name, []).append(arm)
    work = [0.0] * part[1]
    mine: list[Arm] = []
    for unit in sorted(together.values(), key=lambda unit: -sum(cost[arm.name] for arm in unit)):
        least = work.index(min(work))
        work[least] += sum(cost[arm.name] for arm in unit)
        mine += unit if least == part[0] else []
    return [arm for arm in arms if arm in mine]
