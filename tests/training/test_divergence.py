"""A diverged network ends a run with one message, whoever sees it first, and leaves the checkpoints from before."""

import numpy as np
import pytest
from small_run import make_small_run, shared_cache, small_config, small_spec, train

from openset_jax import evaluate
from openset_jax.data.pools import VALIDATION
from openset_jax.errors import UserError
from openset_jax.model.alexnet import AlexNet
from openset_jax.training import devices, divergence, state
from openset_jax.training.divergence import NotFinite
from openset_jax.training.progress import Progress
from openset_jax.training.trained_network import TrainedNetwork

LARGE = {
    "optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "optimizer.schedule": "constant",
    "optimizer.grad_clip": 0.0, "log_every": 100,
}  # fmt: skip


def metrics_of(loss, grad_norm):
    steps = len(loss)
    values = {"loss": loss, "grad_norm": grad_norm, "correct": [0.5] * steps, "predicted": [[0.5, 0.5]] * steps}
    return {name: np.array(value, np.float32) for name, value in values.items()}


@pytest.mark.parametrize(
    ("loss", "norm", "ago"),
    [([1.0, np.nan, 1.0], [1.0] * 3, 1), ([1.0] * 3, [1.0, 1.0, np.inf], 0), ([-np.inf, np.nan, 1.0], [1.0] * 3, 2)],
)
def test_a_loss_or_a_gradient_that_is_not_finite_is_an_error(loss, norm, ago):
    with pytest.raises(NotFinite, match=r"training diverged: the loss is .*learning_rate") as error:
        Progress().add_steps(metrics_of(loss, norm))
    assert error.value.steps_ago == ago


def variables_of(bad=()):
    params = {
        f"{kind}{i}": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)} for kind, i in (("conv", 1), ("conv", 2), ("fc", 6))
    }
    variables = {"params": params, "batch_stats": {"bn1": {"mean": np.zeros(2)}}}
    params["bn1"] = {"scale": np.ones(2)}
    for kind, layer, name in bad:
        variables[kind][layer][name][0] = np.nan
    return variables


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((), "All parameters are finite; the largest is 1, in"),
        ((("params", "fc6", "bias"),), "first layer with values that are not finite is fc6"),
        ((("params", "fc6", "bias"), ("params", "conv2", "kernel")), "is conv2"),
        ((("params", "conv2", "kernel"), ("batch_stats", "bn1", "mean")), "is bn1"),
    ],
)
def test_the_first_layer_with_a_value_that_is_not_finite_is_named(bad, says):
    assert says in divergence.describe(variables_of(bad), AlexNet.layers_of("all"))


# where it is seen first: at the second step, or in the evaluation of the first
@pytest.mark.parametrize(
    ("changes", "step", "saw"),
    [
        ({}, 2, "the loss is nan"),
        ({"eval.every": 1}, 1, "the logits of .* images are not finite"),
    ],
)
def test_wherever_divergence_is_seen_the_run_ends_and_saves_nothing(tmp_path, changes, step, saw):
    says = rf"diverged at step {step}: {saw}.*(is|in) \w+\d\. The learning rate was 1e\+30\. No checkpoint was saved\. Start"
    with pytest.raises(UserError, match=says):
        train(small_config(**LARGE | changes), tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_message_names_the_step_of_the_metrics_and_the_checkpoint_from_before(tmp_path):
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    (tmp_path / "checkpoints/3/_CHECKPOINT_METADATA").touch()
    with (
        pytest.raises(UserError, match=rf"at step 7: the loss is nan.*The newest checkpoint in {tmp_path} is of step 3\."),
        divergence.explained(small_spec(tmp_path), lambda: (8, variables_of())),
    ):
        raise NotFinite("the loss is nan", steps_ago=1)


def test_an_evaluation_and_margins_of_a_network_with_nan_are_one_message():
    run = make_small_run()
    cache, spec, pool = shared_cache(), run.spec, run.pool
    variables = state.create_state(run.network.model, run.network.optimizer, seed=0, shape=(16, 16, 3)).variables
    variables["params"]["fc8"]["kernel"][0, 0] = np.nan  # XLA's fast maximum on CPUs hides others behind a ReLU
    inference = cache.inference(spec, pool, cache.images(spec, pool))
    network = TrainedNetwork(spec, 5, pool, inference, devices.replicate(variables), None, np.ones(6) / 6)
    with pytest.raises(UserError, match=r"at step 5: the logits of \d+ of \d+ images are not finite.* is fc8\."):
        evaluate.evaluate(network)
    for look in (
        lambda: inference.logits(network.variables, pool.rows(VALIDATION)),
        lambda: run.measure_margins(inference, network.variables),
    ):
        with pytest.raises(NotFinite, match=r"not finite is fc8\. Start again"):
            look()
