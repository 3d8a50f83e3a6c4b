"""From an experiment's config to its arms: a union of products of axes, each arm a treatment and a seed.

`config.grid` has named blocks. A block has axes, fields of `config.run` at their usual place, each with a tuple of values,
and stands for their product: `grid.policies.sampling.policy = ("undersample", "balanced")`. What two blocks have is one arm.
`config.blocks`, if there is one, names those to run.
Two things are not plain overrides: an arm with `sampling.negatives=0` trains `softmax`, which uses none; and `init_from` may
name another arm, as "arm:sampling.negatives=0": that of the same seed.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from openset_jax import config as configs
from openset_jax.errors import UserError
from openset_jax.study.stats.outcomes import Treatment

ARM = "arm:"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One run.

    Attributes:
      treatment, seed: which.
      block: the first that has it.
    """

    treatment: Treatment
    seed: int
    block: str

    @property
    def name(self) -> str:
        """Of its folder: a hash of what it overrides."""
        text = json.dumps([[*self.treatment.fields], self.seed], sort_keys=True, default=list)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.treatment.label}, seed {self.seed}"

    def begins_with(self, arms: Sequence["Arm"]) -> "Arm | None":
        """The arm whose network it begins with; None if it is none of these."""
        asked = self.treatment.get("init_from") or ""
        if not asked.startswith(ARM):
            return None
        return next((a for a in arms if a.seed == self.seed and a.treatment.label == asked.removeprefix(ARM)), None)


def arms_of(config: ml_collections.ConfigDict) -> list[Arm]:
    """All arms, the seeds one after another, those of one pool together, each arm after the one that it begins with.

    Raises:
      UserError: names the block and the field that cannot be.
    """
    seeds, blocks = _seeds(config), tuple(config.get("blocks", tuple(config.grid)))
    if not blocks:
        raise UserError("grid: it has no block; see configs/imbalance.py for what one looks like")
    if strange := [block for block in blocks if block not in config.grid]:
        raise UserError(f"blocks: {strange[0]!r} is not one of {', '.join(config.grid)}")
    found = {}
    for block in blocks:
        for treatment in _treatments(block, config.grid[block], config.run):
            found.setdefault(treatment, block)
    arms = [Arm(treatment, seed, block) for seed in seeds for treatment, block in found.items()]
    for arm in arms:
        asked = arm.treatment.get("init_from") or ""
        if asked.startswith(ARM) and (base := arm.begins_with(arms)) in (None, arm):
            there = "; ".join(dict.fromkeys(a.treatment.label for a in arms))
            raise UserError(
                f"grid.{arm.block}.init_from: there is no other arm {asked.removeprefix(ARM)!r}; the arms are: {there}"
            )
        if asked.startswith(ARM) and (base.treatment.get("init_from") or "").startswith(ARM):
            raise UserError(f"grid.{arm.block}.init_from: {asked!r} begins with an arm itself; one of those is enough")
    data = lambda arm: repr([field for field in arm.treatment.fields if field[0].startswith("data.")])
    return sorted(arms, key=lambda arm: (arm.seed, data(arm.begins_with(arms) or arm), arm.begins_with(arms) is not None))


def _seeds(config):
    seeds = config.seeds
    good = isinstance(seeds, tuple | list) and seeds and all(isinstance(s, int) and 0 <= s < 2**31 for s in seeds)
    if not good or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {seeds!r} is not a tuple of different numbers from 0 to 2^31 - 1")
    return list(seeds)


def _treatments(block: str, axes: Any, run: Any) -> Iterator[Treatment]:
    there, asked = dict(configs.fields(run.to_dict())), dict(configs.fields(axes.to_dict()))
    if not asked:
        raise UserError(f"grid.{block}: it has no axis; give it a field of run with a tuple of values")
    for field, values in asked.items():
        if field == "seed":
            raise UserError(f"grid.{block}.seed: every arm is run with all of `seeds`; give them there")
        if field not in there:
            near = difflib.get_close_matches(field, there, 1)
            raise UserError(
                f"grid.{block}: run has no field {field!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help")
            )
        if not isinstance(values, tuple | list) or not len(values):
            raise UserError(f"grid.{block}.{field}: {values!r} is not a tuple of values")
        if repeated := [v for i, v in enumerate(values) if v in values[:i]]:
            raise UserError(f"grid.{block}.{field}: {repeated[0]!r} is there twice")
        if list(values) == [there[field]]:
            raise UserError(f"grid.{block}.{field}: {there[field]!r} is what run has: this axis changes nothing")
    for values in itertools.product(*asked.values()):
        changed = {
            field: _plain(v, f"grid.{block}.{field}") for field, v in zip(asked, values, strict=True) if v != there[field]
        }
        yield Treatment(tuple(sorted(changed.items())))


def _plain(value, field):
    """Values that can be compared, hashed and shown: numbers, text, None, and tuples of those."""
    if isinstance(value, tuple | list):
        return tuple(_plain(v, field) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{field}: {value!r} is no number, text or tuple of those; make axes of its own fields")


def config_of(arm: Arm, run: ml_collections.ConfigDict, folders: Mapping[str, str]) -> ml_collections.ConfigDict:
    """The config that an arm is trained with.

    Args:
      run: the experiment's.
      folders: label of a treatment -> the folder of its arm of the same seed.

    Raises:
      UserError: a value that its field cannot take.
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
            raise UserError(f"grid.{arm.block}.{field}: {value!r} cannot be ({error})") from error
    return config


def share(arms: Sequence[Arm], cost: Mapping[str, float], part: tuple[int, int]) -> list[Arm]:
    """The arms of part i of n: about as much work in each, and no arm apart from the one that it begins with.

    Args:
      cost: of each arm, by its name.
    """
    together = {}
    for arm in arms:
        together.setdefault((arm.begins_with(arms) or arm).name, []).append(arm)
    work, mine = [0.0] * part[1], []
    for unit in sorted(together.values(), key=lambda unit: -sum(cost[arm.name] for arm in unit)):
        least = work.index(min(work))
        work[least] += sum(cost[arm.name] for arm in unit)
        mine += unit if least == part[0] else []
    return [arm for arm in arms if arm in mine]
