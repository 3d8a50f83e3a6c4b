"""The time of an experiment: the work of an arm, the estimate before it starts, and the time left while it runs."""

import itertools
import pathlib
import re
import time

import pytest
from small_run import small_config

from openset_jax import config as configs
from openset_jax.study.runs import eta
from openset_jax.study.runs.check import Size
from openset_jax.training.run_cache import RunCache

TWO_PHASE = {"sampling.policy": "two_phase", "trainable": "head", "sampling.first_share": 0.25}


def phases(**changes):
    return configs.resolve(small_config(**changes), pathlib.Path("/w"))


def size(classified):
    return Size(known=0, negatives=0, groups=0, none=0.0, examples=0, classified=classified)


def test_work_is_examples_weighted_by_the_trained_layers_of_every_phase_and_a_third_of_the_images_of_evaluations():
    assert eta.work(phases(), size(0)) == 12 * 16
    assert eta.work(phases(), size(600)) == 12 * 16 + 200
    assert eta.work(phases(trainable="fc"), size(0)) == 12 * 16 * 0.5
    assert eta.work(phases(**TWO_PHASE), size(0)) == pytest.approx(3 * 16 + 9 * 16 * 0.35)


def test_an_estimate_is_proportional_to_the_work_of_all_arms_and_their_phases(monkeypatch):
    monkeypatch.setattr(
        eta, "_seconds_per_example", lambda spec, cache: 10 * {"all": 1.0, "head": 0.35}[spec.program.trainable]
    )
    arms = [phases(trainable="head"), phases(**TWO_PHASE), phases()]
    works = [eta.work(arm, size(300)) for arm in arms]
    seconds = 10 * (192 * 0.35 + 3 * 16 + 9 * 16 * 0.35 + 192 + 3 * 100)
    assert f"3 arms to run; about {eta.clock(seconds)} of training and evaluation" in eta.estimate(
        arms[0], works, RunCache()
    )


@pytest.mark.slow
def test_an_estimate_needs_no_more_steps_than_an_arm_has():
    short = {"steps": 2, "log_every": 1, "eval.every": 1, "checkpoint.every": 1}
    text = eta.estimate(phases(**TWO_PHASE | short), [1.0], RunCache())
    assert re.match(r"1 arms to run; about \d+:\d\d of training and evaluation", text)


def test_the_time_left_is_proportional_to_the_work_left(monkeypatch):
    now = itertools.count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: 0)
    clock = eta.Clock(4.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now) + 60)
    assert clock.line(1.0) == "took 1:00; about 3:00 left"
    assert clock.line(1.0) == "took 1:00; about 2:00 left"
    assert clock.line(2.0) == "took 1:00; about 0:00 left"
