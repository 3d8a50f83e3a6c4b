"""Networks for vectors."""

import jax
import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.model import networks
from openset_jax.model.vector_networks import HIDDEN
from openset_jax.training.state import initial_variables

F, K = 6, 3


def made(name, **options):
    network = networks.make(K, name=name, **options)
    return network, jax.device_get(initial_variables(network, seed=0, shape=(F,)))


def test_the_linear_network_is_a_dense_layer_on_standardised_vectors():
    network, variables = made("linear")
    x = np.random.default_rng(0).normal(2, 3, (5, F)).astype(np.float32)
    mean, std = x.mean(0), np.float32(2.5)
    variables["batch_stats"]["standardise"] = {"mean": mean, "std": std}
    logits, features = network.apply(variables, x)
    np.testing.assert_allclose(features, (x - mean) / std, rtol=1e-5, atol=1e-6)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, (x - mean) / std @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "hidden"), [("mlp", ["hidden1"]), ("mlp2", ["hidden1", "hidden2"])])
def test_hidden_layers_end_in_a_relu_and_their_outputs_are_the_features(name, hidden):
    network, variables = made(name, width=0.5)
    assert network.layers == (*hidden, "head")
    x = expected = np.random.default_rng(0).normal(0, 1, (5, F)).astype(np.float32)
    for layer in hidden:
        expected = np.maximum(expected @ variables["params"][layer]["kernel"], 0)  # the biases are 0
        assert expected.shape == (5, HIDDEN // 2)
    logits, features = network.apply(variables, x)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, expected @ variables["params"]["head"]["kernel"], rtol=1e-4, atol=1e-5)


def test_dropout_is_before_every_trained_layer_except_the_first_hidden_one_and_not_in_the_features():
    x, position = np.random.default_rng(0).normal(0, 1, (4, F)).astype(np.float32), np.arange(4)
    network, variables = made("mlp2", dropout=0.5)
    run = lambda network, **options: network.apply(
        variables, x, position=position, rngs={"dropout": jax.random.key(1)}, **options
    )
    evaluated, trained = run(network), run(network, train=True)
    assert not np.allclose(evaluated[1], trained[1]), "hidden2 has dropped inputs"
    head = networks.make(K, name="mlp2", dropout=0.5, trainable="head")
    np.testing.assert_array_equal(run(head, train=True)[1], evaluated[1])  # the features are not dropped
    assert not np.allclose(run(head, train=True)[0], evaluated[0])


def test_training_changes_no_statistics():
    network, variables = made("mlp")
    x = np.ones((2, F), np.float32)
    _, updated = network.apply(
        variables, x, train=True, position=np.arange(2), rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
    )
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_widths_without_effect_or_without_units_are_refused():
    with pytest.raises(UserError, match=r"model\.width: 0\.5, but linear has no hidden units"):
        networks.make(K, name="linear", width=0.5)
    with pytest.raises(UserError, match=r"model\.width: 0\.0005 leaves none of the 512 units"):
        networks.make(K, name="mlp", width=0.0005)
