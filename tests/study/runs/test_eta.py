"""The time of an experiment: the work of an arm, the estimate before it starts, and the time left while it runs."""

import itertools
import pathlib
import re
import time

import pytest
from small_run import small_config

from openset_jax import config as configs
from openset_jax.study.runs import eta
from openset_jax.training.run_cache import RunCache

TWO_PHASE = {"sampling.policy": "two_phase", "trainable": "head", "sampling.first_share": 0.25}


def phases(**changes):
    return configs.resolve(small_config(**changes), pathlib.Path("/w"))


def test_work_is_examples_weighted_by_the_trained_layers_of_every_phase():
    assert eta.work(phases()) == 12 * 16
    assert eta.work(phases(trainable="fc")) == 12 * 16 * 0.5
    assert eta.work(phases(**TWO_PHASE)) == pytest.approx(3 * 16 + 9 * 16 * 0.35)


def test_an_estimate_is_proportional_to_the_work_of_all_arms_and_their_phases(monkeypatch):
    monkeypatch.setattr(
        eta, "_seconds_per_example", lambda spec, cache: 10 * {"all": 1.0, "head": 0.35}[spec.program.trainable]
    )
    arms = [phases(trainable="head"), phases(**TWO_PHASE), phases()]
    seconds = 10 * (192 * 0.35 + 3 * 16 + 9 * 16 * 0.35 + 192)
    assert f"3 arms to run; about {eta.clock(seconds)} of training" in eta.estimate(arms, RunCache())
    assert eta.estimate([], RunCache()) == "All arms are finished."


def test_an_estimate_needs_no_more_steps_than_an_arm_has():
    short = {"steps": 2, "log_every": 1, "eval.every": 1, "checkpoint.every": 1}
    assert re.match(r"1 arms to run; about \d+:\d\d of training", eta.estimate([phases(**TWO_PHASE | short)], RunCache()))


def test_the_time_left_is_proportional_to_the_work_left(monkeypatch):
    now = itertools.count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: 0)
    clock = eta.Clock(4.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now) + 60)
    assert clock.line(1.0) == "took 1:00; about 3:00 left"
    assert clock.line(1.0) == "took 1:00; about 2:00 left"
    assert clock.line(2.0) == "took 1:00; about 0:00 left"
