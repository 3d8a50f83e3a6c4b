"""The time of an experiment: the work of an arm, the estimate before it starts, and the time left while it runs."""

import itertools
import pathlib
import re
import time

import pytest
from small_run import small_config

from openset_jax import config as configs
from openset_jax.model import cost
from openset_jax.study.runs import eta
from openset_jax.study.runs.check import Size
from openset_jax.training.run_cache import RunCache

TWO_PHASE = {"sampling.policy": "two_phase", "trainable": "head", "sampling.first_share": 0.25}


def phases(**changes):
    return configs.resolve(small_config(**changes), pathlib.Path("/w"))


def size(classified):
    return Size(known=0, negatives=0, groups=0, none=0.0, examples=0, classified=classified)


def flops(trainable="all", *, train=True):
    (spec,) = phases(trainable=trainable)
    return cost.flops_per_example(spec.program.forward.network.make(1, trainable=trainable), spec.inputs.shape, train=train)


def test_work_is_the_operations_of_the_steps_of_every_phase_and_of_the_images_of_evaluations():
    assert eta.work(phases(), size(0)) == 12 * 16 * flops()
    assert eta.work(phases(), size(600)) == 12 * 16 * flops() + 600 * flops(train=False)
    assert eta.work(phases(trainable="fc"), size(0)) == 12 * 16 * flops("fc") < eta.work(phases(), size(0))
    assert eta.work(phases(**TWO_PHASE), size(0)) == 3 * 16 * flops() + 9 * 16 * flops("head")


def test_an_estimate_is_proportional_to_the_work_of_all_arms_and_their_phases(monkeypatch):
    monkeypatch.setattr(eta, "_seconds_per_example", lambda spec, cache: flops(spec.program.trainable) / 1e6)
    arms = [phases(trainable="head"), phases(**TWO_PHASE), phases()]
    works = [eta.work(arm, size(300)) for arm in arms]
    text = eta.estimate(arms[0], works, RunCache())
    assert f"3 arms to run; about {eta.clock(sum(works) / 1e6)} of training and evaluation" in text


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


def test_there_is_no_estimate_from_an_arm_with_little_of_the_work(monkeypatch):
    now = iter([0, 0, 60, 120])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    clock = eta.Clock(100.0)
    assert clock.line(1.0) == "took 1:00"
    assert clock.line(49.0) == "took 1:00; about 2:00 left"
