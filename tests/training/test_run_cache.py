"""What runs of one process share, and what they must not."""

import gc
import weakref

import pytest
from small_run import PACKED, assert_same_run, small_config

from openset_jax import build
from openset_jax.train import train
from openset_jax.training import devices
from openset_jax.training.run_cache import Workshop

SMALL = {"trainable": "head", "input": "resident", "optimizer.schedule": "constant"}


@pytest.fixture
def compiled(monkeypatch):
    """A list that grows with every program that is compiled."""
    programs, compile_lowered = [], devices.compile_lowered
    monkeypatch.setattr(devices, "compile_lowered", lambda lowered: programs.append(1) or compile_lowered(lowered))
    return programs


def test_a_run_that_shares_its_programs_compiles_nothing_and_ends_as_one_that_does_not(tmp_path, compiled):
    other = {
        "seed": 1, "sampling.policy": "balanced", "sampling.negatives": 100, "objective.class_weights": "effective_number",
        "objective.logit_adjustment": 0.5, "log_every": 3,
    }  # fmt: skip
    shared, alone, workshop = tmp_path / "shared", tmp_path / "alone", Workshop()
    for folder in (tmp_path / "first", shared, alone):
        folder.mkdir()
    train(small_config(**SMALL), tmp_path / "first", workshop=workshop)
    assert compiled
    compiled.clear()
    train(small_config(**SMALL | other), shared, workshop=workshop)
    assert not compiled
    train(small_config(**SMALL | other), alone)
    assert compiled
    assert_same_run(shared, alone)


def pieces(workshop, config):
    """(program of a training call, programs of inference, pool) as a run makes them; nothing is compiled."""
    pool = workshop.pool(config)
    weights = build.make_weights(config, pool.num_classes, build.make_sampler(config, build.training_members(config, pool)))
    model, _, optimizer = workshop.network(config, pool.num_classes)
    feed, skipped = workshop.feed(config, pool)
    step = workshop.train_step(config, model, optimizer, feed, weights)
    return step.func, workshop.inference(config, model, pool, feed, skipped), pool


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
        ({"steps_per_call": 2}, (False, True)),
        ({"optimizer.learning_rate": 1e-5}, (False, True)),
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
def test_programs_are_shared_by_runs_that_do_the_same_and_no_others(once, changes, same):
    """`same`: (whether the program of training is, whether those of inference are); None where either will do."""
    step, inference, _ = pieces(once, small_config(**SMALL))
    other_step, other_inference, _ = pieces(once, small_config(**SMALL | changes))
    for one, other, expected in ((step, other_step, same[0]), (inference, other_inference, same[1])):
        assert expected is None or (one is other) == expected


def test_the_input_is_chosen_once_for_a_pool_and_before_its_images_take_memory(monkeypatch, once):
    free, images = [10**9], {"data.packed": str(PACKED), "input": "auto"}
    monkeypatch.setattr(devices, "_host_memory", lambda: free[0])
    config = small_config(**images)
    pool, other = once.pool(config), once.pool(small_config(**images, **{"data.negative_groups": 1}))
    assert once.input(config, pool).name == "resident"
    held, _ = once.feed(config, pool)
    free[0] = 0  # as it may be when the images are there
    assert once.input(config, pool).name == "resident"
    assert once.feed(small_config(**images, seed=1), pool)[0] is held
    assert once.feed(small_config(**images | {"input": "resident"}), pool)[0] is held

    gone = weakref.ref(held.store)
    del held

    def memory():
        gc.collect()
        assert gone() is None, "the images of the other pool still take memory"
        return 10**9

    monkeypatch.setattr(devices, "_host_memory", memory)
    assert once.input(config, other).name == "resident"


@pytest.fixture(scope="module")
def once():
    return Workshop()


def test_groups_of_negatives_are_those_of_the_runs_own_seed(once):
    for seed in range(4):
        config = small_config(**{"data.negative_groups": 1, "seed": seed})
        assert once.pool(config).groups == build.open_pool(config).groups


def test_the_images_of_one_pool_are_let_go_before_those_of_the_next_are_held(monkeypatch):
    workshop, make_feed = Workshop(), build.make_feed
    step, inference, pool = pieces(workshop, small_config(**SMALL))
    held = [weakref.ref(x) for x in (step, inference, workshop.feed(small_config(**SMALL), pool)[0].store)]
    del step, inference, pool
    gc.collect()
    assert all(r() is not None for r in held)

    def make(*arguments):
        gc.collect()
        assert all(r() is None for r in held)
        return make_feed(*arguments)

    monkeypatch.setattr(build, "make_feed", make)
    _, _, pool = pieces(workshop, small_config(**SMALL, **{"data.negatives.limit": 20}))
    assert len(pool) < len(build.open_pool(small_config()))
