"""Epochs and steps: one epoch draws every training image of the known classes once on average, whatever the policy."""

import dataclasses
import fractions
import math
import pathlib

import pytest
from small_run import make_small_run, open_small_pool, shared_cache, small_config, small_spec

from openset_jax import config as configs
from openset_jax.data import pool_builder
from openset_jax.data.sampler import POLICIES, make_sampler
from openset_jax.report import console
from openset_jax.training import run_length
from openset_jax.training.run_cache import RunCache

KNOWN, ALL = 622, 870  # training images of the small run


def steps_of(**changes):
    return run_length.with_steps(small_config(steps=1, **changes), shared_cache()).steps


@pytest.mark.parametrize("policy", POLICIES)
def test_an_epoch_draws_as_many_known_images_as_there_are(policy):
    sampler = make_sampler(policy, (7, 12, 5, 30), batch_size=8, seed=0)
    known = run_length.known_images(sampler, 3)
    assert known.images == (15 if policy == "undersample" else 24)
    steps = math.ceil(known.steps(40, 8))
    drawn = sum(sampler.counts(steps)[:3])
    assert 0 <= drawn - 40 * known.images <= 8
    assert known.epochs(steps, 8) == pytest.approx(drawn / known.images, abs=0.05)


def test_steps_are_exact_before_they_are_rounded():
    sampler = make_sampler("natural", (311, 311, 248), batch_size=15, seed=0)
    assert [run_length.known_images(sampler, 2).steps(epochs, 15) for epochs in (1, 0.3)] == [58, fractions.Fraction("17.4")]
    without = make_sampler("natural", (311, 311), batch_size=2, seed=0)  # softmax
    assert run_length.known_images(without, 2) == (622, 1)


@pytest.mark.parametrize(("changes", "steps"), [
    ({}, math.ceil(2 * ALL / 16)),
    ({"objective.name": "softmax"}, math.ceil(2 * KNOWN / 16)),
    ({"sampling.negatives": 62}, math.ceil(2 * (KNOWN + 62) / 16)),
    ({"sampling.policy": "balanced"}, math.ceil(2 * KNOWN * 6 / 5 / 16)),
    ({"sampling.policy": "undersample"}, math.ceil(2 * 115 * 6 / 16)),  # of each class as many as the smallest has
    ({"sampling.imbalance": "linear:rho=2"}, math.ceil(2 * (58 + 72 + 86 + 101 + 115 + 248) / 16)),
    ({"log_every": "50%", "eval.every": "50%", "checkpoint.every": "50%", "steps_per_call": 25}, 125),
])  # fmt: skip
def test_a_config_in_epochs_has_the_steps_of_its_images(changes, steps):
    assert steps_of(epochs=2.0, **changes) == steps


def test_two_phases_together_have_the_epochs_of_all_images():
    two = {"sampling.policy": "two_phase", "trainable": "head", "sampling.first_share": 0.25}
    changes = two | {"sampling.first_policy": "undersample", "epochs": 20.0}
    config = run_length.with_steps(small_config(**changes), shared_cache())
    phases, pool = configs.resolve(config, pathlib.Path("/w")), open_small_pool()
    drawn = [sum(run_length.sampled(spec, pool)[1].counts(spec.program.steps)[:5]) for spec in phases]
    assert sum(drawn) == pytest.approx(20 * KNOWN, abs=16)
    assert steps_of(**two, epochs=1e-6) == 2, "a step for each phase"


def test_without_epochs_a_config_is_its_own_and_with_epochs_the_given_one_stays(monkeypatch):
    config, cache, opened = small_config(), RunCache(), []
    assert run_length.with_steps(config, cache) is config
    real = pool_builder.open_pool
    monkeypatch.setattr(pool_builder, "open_pool", lambda *args, **kwargs: opened.append(1) or real(*args, **kwargs))
    config.epochs = 3
    made = run_length.with_steps(config, cache)
    assert (made.epochs, config.steps, made.steps) == (3.0, 12, 164)
    cache.pool(configs.resolve(made, pathlib.Path("/w"))[-1])
    assert opened == [1], "the images are opened once"


def described(spec, known, per_class, **options):
    sampler = make_sampler("natural", (per_class,) * known, batch_size=spec.program.batch_size, seed=0)
    return run_length.description(spec, sampler, known, **options).split("\n")


def test_the_description_has_steps_epochs_and_images():
    spec = small_spec(**{"steps": 50_000, "batch_size": 256, "objective.name": "softmax"})
    line, warning = described(spec, 3, 350, flags="--config.run")
    assert line == "50,000 steps of 256 images: 12,190 epochs of the 1,050 training images of the known classes."
    assert warning == "Warning: more than 200 epochs; set fewer, for example --config.run.epochs=100."
    assert described(small_spec(**{"batch_size": 16, "steps": 12}), 3, 1_000) == [
        "12 steps of 16 images: 0.064 epochs of the 3,000 training images of the known classes."
    ]


@pytest.mark.parametrize(("steps", "warns"), [(200, False), (201, True)])
def test_many_epochs_are_a_warning(steps, warns):
    spec = small_spec(**{"steps": steps, "batch_size": 30, "log_every": 1})
    assert (len(described(spec, 3, 10)) == 2) == warns


@pytest.mark.parametrize(
    ("stem", "init_from", "images", "warns"),
    [("imagenet", "", 999, True), ("imagenet", "", 1_000, False), ("imagenet", "runs/x", 9, False), ("small", "", 9, False)],
)
def test_a_full_network_from_scratch_on_few_images_is_a_warning(stem, init_from, images, warns):
    spec = small_spec(**{"model.stem": stem, "data.stored_size": 64, "data.image_size": 64, "steps": 1, "batch_size": 1})
    spec = dataclasses.replace(spec, init_from=init_from)
    _, *warnings = described(spec, 3, images)
    assert bool(warnings) == warns
    if warns:
        assert "stem=imagenet, trained from scratch on 999 images per known class, fewer than 1,000; start" in warnings[0]
        assert "--config=configs/folder_pretrained.py, or init_from." in warnings[0]


def test_a_run_describes_its_length_and_the_demo_has_no_warning():
    from configs import digits

    said = console.run_description(make_small_run(epochs=3.0))
    assert "12 steps of 16 images: 0.22 epochs of the 622 training images of the known classes.\n" in said
    spec = configs.resolve(digits.get_config(), pathlib.Path("/w"))[-1]
    text = run_length.description(spec, run_length.sampled(spec, open_small_pool())[1], 5)
    assert text == "300 steps of 128 images: 44 epochs of the 622 training images of the known classes."
