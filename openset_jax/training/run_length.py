"""The length of a run: converts epochs to steps and back, and warns of lengths that are unlikely to be meant.

In one epoch every training image of the known classes that the sampler draws from is drawn once on average, whatever the
policy and the share of "none".
"""

import fractions
import math
import pathlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from openset_jax import config as configs
from openset_jax.config_fields import Fields
from openset_jax.data import training_set
from openset_jax.data.pools import Pool
from openset_jax.data.sampler import Sampler, make_sampler
from openset_jax.spec import RunSpec
from openset_jax.text import rounded
from openset_jax.training.run_cache import RunCache

MANY_EPOCHS = 200
FEW_IMAGES = 1_000  # training images per known class, too few for a network with the ImageNet stem and random parameters


class KnownImages(NamedTuple):
    """The training images of the known classes that a sampler draws from."""

    images: int  # different ones
    share: fractions.Fraction  # of all drawn examples, above 0

    def steps(self, epochs: float, batch_size: int) -> fractions.Fraction:
        """Returns the exact number of steps of these epochs, not rounded."""
        return fractions.Fraction(str(epochs)) * self.images / (batch_size * self.share)

    def epochs(self, steps: int, batch_size: int) -> float:
        """Returns the number of epochs of these steps."""
        return float(steps * batch_size * self.share / self.images)


def known_images(sampler: Sampler, num_classes: int) -> KnownImages:
    """Returns the part of K = `num_classes` known classes in what a sampler draws."""
    share = fractions.Fraction(sum(sampler.weights[:num_classes]), sum(sampler.weights))
    return KnownImages(sum(sampler.drawn[:num_classes]), share)


def sampled(spec: RunSpec, pool: Pool) -> tuple[list[np.ndarray], Sampler]:
    """Returns (the training rows of each class as `training_set.training_rows`, the sampler that draws from them).

    Raises UserError, naming the field, if the pool has too few images.
    """
    sampling, seed = spec.sampling, spec.seed
    rows = training_set.training_rows(pool, sampling, seed=seed, uses_negatives=spec.objective.uses_negatives)
    sizes, size, fraction = tuple(map(len, rows)), spec.program.batch_size, sampling.negative_fraction
    return rows, make_sampler(sampling.policy, sizes, batch_size=size, seed=seed, negative_fraction=fraction)


def trial_phases(config: ConfigDict) -> tuple[RunSpec, ...]:
    """Returns the phases of a config whose length is not known yet, to open its images; see `config.resolve`."""
    trial = config.copy_and_resolve_references()
    trial.steps = 2 * Fields(trial)["steps_per_call"]  # a length that every policy allows
    return configs.resolve(trial, pathlib.Path("/"))


def with_steps(config: ConfigDict, cache: RunCache) -> ConfigDict:
    """Returns the config with `steps` set to the length of its `epochs`; if these are None, the config itself.

    Steps are rounded up to whole calls. Two phases together have `epochs` epochs of the images of the second one, which
    draws all of them. Raises UserError as `config.resolve` and `RunCache.pool`.
    """
    epochs = config.get("epochs")
    if epochs is None:
        return config
    config, known = config.copy_and_resolve_references(), []
    phases = trial_phases(config)
    for spec in phases:
        pool = cache.pool(spec)
        known.append(known_images(sampled(spec, pool)[1], pool.num_classes))
    share = known[-1].share
    if len(phases) == 2:
        first = fractions.Fraction(str(config.sampling.first_share))
        share = first * known[0].share + (1 - first) * known[1].share
    steps = known[-1]._replace(share=share).steps(epochs, config.batch_size)
    config.steps = max(math.ceil(steps / config.steps_per_call), len(phases)) * config.steps_per_call
    return config


def description(spec: RunSpec, sampler: Sampler, num_classes: int, *, flags: str = "--config") -> str:
    """Returns a line with the steps and epochs of a run, and a line for each warning; `flags`: prefix of its fields."""
    steps, batch_size, known = spec.program.steps, spec.program.batch_size, known_images(sampler, num_classes)
    epochs, per_class = known.epochs(steps, batch_size), known.images / num_classes
    lines = [
        f"{steps:,} steps of {batch_size:,} images: {rounded(epochs)} epochs of the {known.images:,} training images of the "
        "known classes."
    ]
    if epochs > MANY_EPOCHS:
        lines.append(f"Warning: more than {MANY_EPOCHS} epochs; set fewer, for example {flags}.epochs=100.")
    if spec.program.forward.network.stem == "imagenet" and not spec.init_from and per_class < FEW_IMAGES:
        lines.append(
            f"Warning: a network with model.stem=imagenet, trained from scratch on {per_class:,.0f} images per known class, "
            f"fewer than {FEW_IMAGES:,}; start from a trained network: --config=configs/folder_pretrained.py, or init_from."
        )
    return "\n".join(lines)
