"""The record of an arm's trained layers, and of the operations, memory and speed of its step."""

import json
import pathlib

import pytest
from small_run import shared_cache, small_config, small_spec, train

from openset_jax.config import FIRST_PHASE
from openset_jax.study.runs import step_cost
from openset_jax.training.image_input import LoadedImages, streamed
from openset_jax.training.run_cache import RunCache


def log(path: pathlib.Path, *rates):
    path.write_text("".join(json.dumps({"step": i, "images_per_second": rate}) + "\n" for i, rate in enumerate(rates)))
    return path


@pytest.mark.parametrize(
    ("rates", "expected"), [((1.0, 5.0, 9.0, 6.0), 6.0), ((None, 3.0), 3.0), ((2.0,), 2.0), ((None,), None), ((), None)]
)
def test_the_speed_is_the_median_without_the_line_that_includes_compilation(tmp_path, rates, expected):
    assert step_cost._images_per_second(log(tmp_path / "metrics.jsonl", *rates)) == expected


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, ""),
        ({"init_from": "runs/known"}, "runs/known"),
        ({"init_from": "runs/known", "sampling.policy": "two_phase", "trainable": "head"}, FIRST_PHASE),
    ],
)
def test_the_second_of_two_phases_starts_from_the_first(tmp_path, monkeypatch, changes, start):
    monkeypatch.setattr(step_cost, "_memory", lambda run, examples: 1)
    log(tmp_path / "metrics.jsonl", 7.0)
    found = step_cost.training(small_spec(tmp_path, **changes), shared_cache(), LoadedImages(streamed(None), None))
    trainable = changes.get("trainable", "all")
    assert (found.start, found.trainable, found.memory, found.images_per_second) == (start, trainable, 1, 7.0)
    assert found.trains_all == (trainable == "all") and found.from_scratch == (not changes)


@pytest.mark.slow
def test_the_memory_is_the_same_for_a_process_that_has_not_compiled_the_step(tmp_path):
    train(small_config(), tmp_path)
    spec = small_spec(tmp_path)
    here, elsewhere = (
        step_cost.training(spec, cache, cache.images(spec, cache.pool(spec))) for cache in (shared_cache(), RunCache())
    )
    assert here == elsewhere
