"""The pieces that runs of one process share, and those that they must not share."""

import gc
import weakref

import pytest
from small_run import PACKED, assert_same_run, open_small_pool, small_config, small_spec

from openset_jax.platforms import xla
from openset_jax.train import train
from openset_jax.training import device_memory, input_choice, run_setup
from openset_jax.training.progress import Progress
from openset_jax.training.run_cache import RunCache

SMALL = {"trainable": "head", "input": "resident", "optimizer.schedule": "constant"}


@pytest.fixture
def compiled(monkeypatch):
    """A list that grows with every program that is compiled."""
    programs, compile_lowered = [], xla.compile_lowered
    monkeypatch.setattr(xla, "compile_lowered", lambda lowered: programs.append(1) or compile_lowered(lowered))
    return programs


def test_a_run_that_shares_its_programs_compiles_nothing_and_equals_one_that_does_not(tmp_path, compiled):
    other = {
        "seed": 1, "sampling.policy": "balanced", "sampling.negatives": 100, "objective.class_weights": "effective_number",
        "objective.logit_adjustment": 0.5, "log_every": 3,
    }  # fmt: skip
    shared, alone, cache = tmp_path / "shared", tmp_path / "alone", RunCache()
    for folder in (tmp_path / "first", shared, alone):
        folder.mkdir()
    train(small_config(**SMALL), tmp_path / "first", cache=cache)
    assert compiled
    compiled.clear()
    train(small_config(**SMALL | other), shared, cache=cache)
    assert not compiled
    train(small_config(**SMALL | other), alone)
    assert compiled
    assert_same_run(shared, alone)


def pieces(cache, spec):
    """(program of a training call, programs of inference, pool) as a run makes them; nothing is compiled."""
    run = run_setup.make_run(spec, cache)
    images = cache.images(spec, run.pool)
    return run.train_step(images, Progress()).func, cache.inference(spec, run.pool, images), run.pool


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 3}, (True, True)),
        ({"sampling.policy": "oversample"}, (True, True)),
        ({"objective.class_weights": "inverse_frequency"}, (True, True)),
        ({"objective.logit_adjustment": 1.0}, (True, True)),
        ({"eval.every": 6, "decision.keep_knowns": 0.9, "early_stopping.patience": 2}, (True, True)),
        ({"steps": 24}, (False, True)),
        ({"batch_size": 32}, (False, True)),
        ({"steps_per_call": 2, "checkpoint.every": 4}, (False, True)),
        ({"optimizer.learning_rate": 1e-5}, (True, True)),
        ({"optimizer.weight_decay": 0.5}, (False, True)),
        ({"augment.pad": 3}, (False, True)),
        ({"trainable": "fc"}, (False, True)),
        ({"objective.negative_weight": 0.5}, (False, True)),
        ({"objective.name": "entropic"}, (False, False)),
        ({"objective.name": "one_vs_rest"}, (False, False)),
        ({"model.width": 0.125}, (False, False)),
        ({"model.norm": "batch"}, (False, False)),
        ({"model.dropout": 0.1}, (False, None)),
        ({"eval.batch_size": 32}, (True, False)),
        ({"data.image_size": 15}, (False, False)),
        ({"data.mean": (0.1, 0.1, 0.1)}, (False, False)),
        ({"data.grey": True}, (False, False)),
        ({"data.stored_size": 18}, (False, False)),
        ({"input": "stream"}, (False, False)),
        ({"data.negatives.limit": 20}, (False, False)),
        ({"data.negative_groups": 1}, (False, False)),
        ({"data.negative_groups": 1, "seed": 5}, (False, False)),
    ],
)
def test_programs_are_shared_by_runs_with_equal_program_specs_only(once, changes, same):
    """`same`: (True if the training program is shared, the same for the inference programs); None where either is right."""
    step, inference, _ = pieces(once, small_spec(**SMALL))
    other_step, other_inference, _ = pieces(once, small_spec(**SMALL | changes))
    for one, other, expected in ((step, other_step, same[0]), (inference, other_inference, same[1])):
        assert expected is None or (one is other) == expected


def test_the_input_is_chosen_once_for_a_pool_and_before_its_images_take_memory(monkeypatch, once):
    free, images = [10**9], {"data.packed": str(PACKED), "input": "auto"}
    monkeypatch.setattr(device_memory, "free_host_memory", lambda: free[0])
    spec = small_spec(**images)
    pool, other = once.pool(spec), once.pool(small_spec(**images, **{"data.negative_groups": 1}))
    assert once.input_choice(spec, pool).name == "resident"
    held = once.images(spec, pool).image_input
    free[0] = 0  # as if the images had taken it
    assert once.input_choice(spec, pool).name == "resident"
    assert once.images(small_spec(**images, seed=1), pool).image_input is held
    assert once.images(small_spec(**images | {"input": "resident"}), pool).image_input is held

    gone = weakref.ref(held.store)
    del held

    def memory():
        gc.collect()
        assert gone() is None, "the images of the other pool are still in memory"
        return 10**9

    monkeypatch.setattr(device_memory, "free_host_memory", memory)
    assert once.input_choice(spec, other).name == "resident"


@pytest.fixture(scope="module")
def once():
    return RunCache()


def test_groups_of_negatives_depend_on_the_seed_of_the_run(once):
    for seed in range(4):
        changes = {"data.negative_groups": 1, "seed": seed}
        assert once.pool(small_spec(**changes)).groups == open_small_pool(**changes).groups


def test_the_images_of_one_pool_are_released_before_those_of_the_next_are_loaded(monkeypatch):
    cache, make_image_input = RunCache(), input_choice.make_image_input
    step, inference, pool = pieces(cache, small_spec(**SMALL))
    held = [weakref.ref(x) for x in (step, inference, cache.images(small_spec(**SMALL), pool).image_input.store)]
    del step, inference, pool
    gc.collect()
    assert all(r() is not None for r in held)

    def make(*arguments, **options):
        gc.collect()
        assert all(r() is None for r in held)
        return make_image_input(*arguments, **options)

    monkeypatch.setattr(input_choice, "make_image_input", make)
    _, _, pool = pieces(cache, small_spec(**SMALL, **{"data.negatives.limit": 20}))
    assert len(pool) < len(open_small_pool())
