"""Frozen layers do not change by a bit and cost no backward pass; the other layers learn as if frozen features were data."""

import functools

import jax
import numpy as np
import pytest
from few_steps import batch_of, make, make_step, one_call
from small_run import small_spec

from openset_jax.data import augment
from openset_jax.model.alexnet import AlexNet
from openset_jax.training import devices

PLAIN = {"augment.pad": 0, "optimizer.warmup_steps": 0, "optimizer.schedule": "constant", "optimizer.weight_decay": 0.1}


def leaves(tree):
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize(("trainable", "together"), [("head", 1), pytest.param("fc", 3, marks=pytest.mark.accelerator)])
def test_frozen_layers_and_statistics_stay_as_they_are_bit_by_bit(trainable, together):
    spec = small_spec(**PLAIN, **{"trainable": trainable, "model.norm": "batch"})
    model, _, optimizer, begin = make(spec)
    batches, current = [batch_of(seed=i) for i in range(3)], begin
    step = make_step(spec, model, optimizer)
    for i in range(0, 3, together):
        current, _ = step(devices.replicate(current), devices.shard_steps(batches[i : i + together]))
        current = jax.device_get(current)
    assert current.step == 3
    assert set(begin.batch_stats) == {f"bn{i}" for i in range(1, 6)}
    before, after = leaves(begin.variables), leaves(current.variables)
    assert before.keys() == after.keys()
    for name in before:
        trained = any(f"['{layer}']" in name for layer in AlexNet.layers_of(trainable))
        assert (before[name] == after[name]).all() != trained, name


@pytest.mark.parametrize("trainable", ["head", "fc", "conv3", "all"])
def test_the_optimizer_has_state_for_the_trained_layers_only(trainable):
    _, _, _, begin = make(small_spec(trainable=trainable))
    moments = [leaf for leaf in jax.tree.leaves(begin.opt_state) if leaf.ndim]
    trained = [begin.params[layer] for layer in AlexNet.layers_of(trainable) if layer in begin.params]
    shapes = lambda tree: sorted(x.shape for x in jax.tree.leaves(tree))
    assert shapes(moments) == sorted(shapes(trained) * 2)


def operations(spec):
    """(convolutions, products of matrices) of a step before XLA optimises it."""
    model, _, optimizer, begin = make(spec)
    step = make_step(spec, model, optimizer)
    text = step.func.run.lower(*step.args, begin, devices.shard_steps([batch_of()])).as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


def test_gradients_of_frozen_layers_are_not_computed():
    (every, products), (fc, of_fc), (head, of_head) = (operations(small_spec(trainable=t)) for t in ("all", "fc", "head"))
    model, _, _, begin = make(small_spec())
    forward = jax.jit(model.apply).lower(begin.variables, np.zeros((8, 16, 16, 3), np.float32)).as_text()
    assert head == fc == forward.count("stablehlo.convolution") > 0
    assert every >= 2 * head
    assert of_head == forward.count("stablehlo.dot_general") + 1  # the gradient of fc8's kernel
    assert of_fc == of_head + 4  # the gradients of two more kernels, and of the inputs of fc7 and fc8
    assert products >= of_fc + 1


def test_nothing_is_dropped_before_a_frozen_layer():
    def loss(rate):
        spec = small_spec(**{"trainable": "head", "model.dropout": rate})
        model, _, optimizer, begin = make(spec)
        return one_call(spec, model, optimizer, begin, batch_of())[1]["loss"][0]

    assert loss(0.0) == loss(0.9)


@pytest.mark.accelerator
def test_a_head_learns_as_softmax_regression_on_the_features_of_the_network():
    """In NumPy: cross-entropy, AdamW, clipping by the norm of the trained layers' gradient."""
    spec = small_spec(**PLAIN, **{
        "trainable": "head", "optimizer.eps": 1e-3, "optimizer.learning_rate": 1e-2, "optimizer.grad_clip": 0.05
    })  # fmt: skip
    model, _, optimizer, begin = make(spec)
    batches = [batch_of(seed=i) for i in range(4)]
    after, metrics = one_call(spec, model, optimizer, begin, *batches)
    normalise = functools.partial(augment.normalise, mean=spec.images.mean, std=spec.images.std)
    w, b = (np.asarray(begin.params["fc8"][name], np.float64) for name in ("kernel", "bias"))
    moments = [[np.zeros_like(w), np.zeros_like(b)] for _ in range(2)]
    for n, batch in enumerate(batches, 1):
        x = np.asarray(jax.jit(model.apply)(begin.variables, normalise(batch["example"]))[1], np.float64)
        p = np.exp(x @ w + b)
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(8), batch["label"]]).mean()
        error = (p - np.eye(6)[batch["label"]]) / 8
        grads = [x.T @ error, error.sum(0)]
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        np.testing.assert_allclose(metrics["loss"][n - 1], loss, rtol=1e-4)
        np.testing.assert_allclose(metrics["grad_norm"][n - 1], norm, rtol=1e-3)
        assert norm > 0.05
        for i, g in enumerate(grads):
            g = g * 0.05 / norm
            moments[0][i] = 0.9 * moments[0][i] + 0.1 * g
            moments[1][i] = 0.99 * moments[1][i] + 0.01 * g**2
            step = moments[0][i] / (1 - 0.9**n) / (np.sqrt(moments[1][i] / (1 - 0.99**n)) + 1e-3)
            if i == 0:
                w = w - 1e-2 * (step + 0.1 * w)
            else:
                b = b - 1e-2 * step
    np.testing.assert_allclose(after.params["fc8"]["kernel"], w, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after.params["fc8"]["bias"], b, rtol=1e-3, atol=1e-5)
