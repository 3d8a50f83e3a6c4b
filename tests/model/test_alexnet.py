"""AlexNet: parameter counts, shapes, and outputs equal to those of the published layers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from openset_jax.errors import UserError
from openset_jax.model import alexnet, networks

DEFAULTS = {
    "name": "alexnet", "norm": "", "stem": "imagenet", "width": 1.0, "dropout": 0.5, "dtype": "float32", "axis_name": None
}  # fmt: skip
SMALL = {"stem": "small", "width": 0.125}


def make(outputs=11, **changes):
    return networks.make(outputs, **DEFAULTS | changes)


def init(model, size):
    """Compiled, because one program compiles faster than its operations one by one."""
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))


def apply(model, variables, images, **options):
    """The outputs, compiled as `init` is."""
    return jax.jit(lambda variables, images: model.apply(variables, images, **options))(variables, images)


def shapes(model, size):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def parameters(model, size=224):
    return sum(x.size for x in jax.tree.leaves(shapes(model, size)["params"]))


@pytest.mark.parametrize(
    ("outputs", "changes", "size", "expected"),
    [
        (1000, {}, 224, 61_100_840),
        (11, {}, 224, 57_048_907),
        (1000, {"name": "alexnet_2012"}, 227, 60_965_224),
        (1000, {}, 96, 61_100_840),  # fc6 always receives 6x6
    ],
)
def test_parameter_counts_are_those_of_the_published_networks(outputs, changes, size, expected):
    assert parameters(make(outputs, **changes), size) == expected


def test_parameter_shapes_are_those_of_the_single_tower():
    found = jax.tree.map(lambda x: x.shape, shapes(make(), 224)["params"])
    kernels = {name: layer["kernel"] for name, layer in found.items()}
    assert kernels == {
        "conv1": (11, 11, 3, 64),
        "conv2": (5, 5, 64, 192),
        "conv3": (3, 3, 192, 384),
        "conv4": (3, 3, 384, 256),
        "conv5": (3, 3, 256, 256),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
        "fc8": (4096, 11),
    }


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_the_smallest_image_of_a_stem_is_seen_and_a_smaller_one_is_not(stem):
    model, smallest = make(stem=stem, width=0.125), alexnet.AlexNet.stems[stem]
    images = jax.random.normal(jax.random.key(1), (2, smallest, smallest, 3))
    _, features = apply(model, init(model, smallest), images)
    assert np.abs(features[0] - features[1]).max() > 0
    try:
        _, features = apply(model, init(model, smallest - 1), images[:, 1:, 1:])
    except ZeroDivisionError:
        return  # no pixel is left for fc6
    assert np.abs(features[0] - features[1]).max() == 0


@pytest.mark.parametrize("size", [16, 28, 32, 64])
def test_the_small_stem_takes_small_images(size):
    model = make(**SMALL)
    logits, features = apply(model, init(model, size), jnp.ones((2, size, size, 3)))
    chex.assert_shape(logits, (2, 11))
    chex.assert_shape(features, (2, 512))
    assert (features >= 0).all()


def test_bfloat16_computes_in_bfloat16_but_keeps_float32_parameters_and_logits():
    full, half = make(**SMALL), make(**SMALL, dtype="bfloat16")
    images = jax.random.normal(jax.random.key(1), (4, 28, 28, 3))
    variables = init(full, 28)
    chex.assert_trees_all_equal_dtypes(variables, init(half, 28))
    exact, rounded = apply(full, variables, images), apply(half, variables, images)
    assert rounded[0].dtype == rounded[1].dtype == jnp.float32
    difference = np.abs(exact[1] - rounded[1]).max() / np.abs(exact[1]).max()
    assert 1e-6 < difference < 0.05  # bfloat16 differs from float32, by no more than its rounding


@pytest.mark.slow
def test_hidden_layers_start_with_he_variance_and_the_first_loss_is_a_uniform_guess():
    params = init(make(), 64)["params"]
    for name in ("conv2", "conv4", "fc7"):
        kernel = params[name]["kernel"]
        assert np.isclose(np.var(kernel) * np.prod(kernel.shape[:-1]), 2, rtol=0.05), name
    assert np.isclose(np.std(params["fc8"]["kernel"]), 0.01, rtol=0.05)


def test_dropout_depends_on_the_place_in_the_global_batch_and_not_on_its_neighbours():
    model = make(**SMALL)
    images = jax.random.normal(jax.random.key(1), (8, 28, 28, 3))
    variables, position = init(model, 28), jnp.arange(8)
    rngs = {"dropout": jax.random.key(2)}
    run = jax.jit(lambda images, position: model.apply(variables, images, train=True, position=position, rngs=rngs)[0])
    whole = run(images, position)
    halves = jnp.concatenate([run(images[:4], position[:4]), run(images[4:], position[4:])])
    np.testing.assert_allclose(whole, halves, rtol=1e-5, atol=1e-6)
    assert np.abs(whole - run(images, position + 8)).max() > 1e-4
    assert np.abs(whole - apply(model, variables, images)[0]).max() > 1e-4


def test_dropout_is_before_trained_layers_alone():
    images, position = jax.random.normal(jax.random.key(1), (8, 28, 28, 3)), jnp.arange(8)
    models = {trainable: make(**SMALL, trainable=trainable) for trainable in ("head", "fc", "all")}
    variables = init(models["all"], 28)
    given = {"train": True, "position": position, "rngs": {"dropout": jax.random.key(2)}}
    logits = {trainable: apply(model, variables, images, **given)[0] for trainable, model in models.items()}
    np.testing.assert_array_equal(logits["head"], apply(models["all"], variables, images)[0])
    np.testing.assert_array_equal(logits["fc"], logits["all"])
    assert np.abs(logits["fc"] - logits["head"]).max() > 1e-4


def test_two_groups_do_not_see_each_other():
    model = make(name="alexnet_2012", norm="none", **SMALL)
    variables = shapes(model, 28)
    assert variables["params"]["conv2"]["kernel"].shape == (5, 5, 6, 32)  # 12 inputs in two groups
    assert make(name="alexnet_2012").norm == "local_response"


def test_batch_normalisation_has_statistics_and_no_convolution_bias():
    variables = shapes(make(norm="batch", **SMALL), 28)
    assert set(variables["batch_stats"]) == {f"bn{i}" for i in range(1, 6)}
    assert "bias" not in variables["params"]["conv1"]


def test_layers_are_flax_layers_in_the_published_order():
    model = make(**SMALL, dropout=0.0)
    images = jax.random.normal(jax.random.key(1), (2, 28, 28, 3))
    variables = init(model, 28)
    p, x = variables["params"], images
    for i, pad in enumerate((2, 2, 1, 1, 1), 1):
        k = p[f"conv{i}"]["kernel"]
        x = jax.lax.conv_general_dilated(x, k, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + p[f"conv{i}"]["bias"])
        if i in (1, 2, 5):
            x = nn.max_pool(x, (3, 3), (2, 2))
    x = x.reshape(2, -1)
    for name in ("fc6", "fc7"):
        x = jax.nn.relu(x @ p[name]["kernel"] + p[name]["bias"])
    logits, features = apply(model, variables, images)
    np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, x @ p["fc8"]["kernel"] + p["fc8"]["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"name": "vgg"}, "model.name"), ({"stem": "tiny"}, "model.stem"), ({"dtype": "int8"}, "model.dtype"),
     ({"norm": "layer"}, "model.norm"), ({"name": "alexnet_2012", "width": 0.01}, "model.width"),
     ({"trainable": "heads"}, "trainable: 'heads' is not one of head, fc, conv5, conv4, conv3, conv2, conv1, all")],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_by_field(changes, field):
    with pytest.raises(UserError, match=field):
        make(**changes)
