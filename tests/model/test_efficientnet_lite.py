"""EfficientNet-Lite0: its parameters, and outputs equal to PyTorch's, of made-up weights and of the published ones."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from model import torch_efficientnet_lite as recorded
from small_run import ROOT

from openset_jax.errors import UserError
from openset_jax.model import networks, published, weights_file
from openset_jax.platforms import xla

DATA = ROOT / "../shared/data"
WIDTH = 0.125


def make(outputs=1000, **changes):
    return networks.make(outputs, name="efficientnet_lite0", **changes)


def variables_of(network, state):
    """The variables of a state dict of PyTorch."""
    return unflatten_dict(
        {name: convert(state[theirs]) for name, (theirs, convert) in network.torch_layout().items()}, sep="/"
    )


def shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.fixture(scope="module")
def weights():
    """The state dict of the published weights; skips where the package is not installed."""
    try:
        path, _ = published.find("efficientnet_lite0")
    except UserError as error:
        pytest.skip(str(error))
    return weights_file.read(path)


def test_it_has_the_published_number_of_parameters_and_a_name_of_pytorch_for_each():
    network = make()
    variables = shapes(network)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 4_652_008
    layout = network.torch_layout()
    assert set(layout) == set(flatten_dict(variables, sep="/"))
    assert len({parameter.name for parameter in layout.values()}) == len(layout) == 247


def test_the_groups_are_the_layers_in_their_order():
    network = make(1, trainable="stage6")
    blocks = (1, 2, 2, 3, 3, 4, 1)
    names = [f"stage{i}_{n}" for i, count in enumerate(blocks, 1) for n in range(1, count + 1)]
    assert network.layers == ("stem", *names, "top", "head")
    assert set(network.layers) == set(shapes(network)["params"])
    assert network.trained == ("stage6_1", "stage6_2", "stage6_3", "stage6_4", "stage7_1", "top", "head")


def test_the_outputs_are_pytorchs():
    network = make(recorded.OUTPUTS)
    variables = variables_of(network, recorded.state_dict())
    logits, features = jax.jit(network.apply)(variables, recorded.image(recorded.SIDE))
    np.testing.assert_allclose(logits[0, :4], recorded.LOGITS, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[0, :4], recorded.FEATURES, rtol=1e-4, atol=1e-4)


def test_only_trained_layers_update_statistics_of_the_batch():
    network = make(3, width=WIDTH, dropout=0.0, trainable="top")
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), shapes(network))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    train = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"])[1])
    before, after = (flatten_dict(tree["batch_stats"], sep="/") for tree in (variables, train(variables, images)))
    assert {name for name in before if np.any(before[name] != after[name])} == {"top/bn/mean", "top/bn/var"}


def test_the_smallest_image_leaves_one_pixel_and_the_features_are_before_dropout():
    network = make(3, width=WIDTH, dropout=0.5)
    assert network.stems == {"imagenet": 32}
    given = {"train": True, "position": jnp.arange(2), "rngs": {"dropout": jax.random.key(2)}, "mutable": ["batch_stats"]}
    apply = lambda v: network.apply(v, jnp.zeros((2, 32, 32, 3)), **given)[0]
    logits, features = jax.eval_shape(apply, shapes(network))
    assert (logits.shape, features.shape) == ((2, 3), (2, 160))
    assert logits.dtype == features.dtype == jnp.float32


def test_a_width_without_channels_is_refused():
    with pytest.raises(UserError, match="model.width: 0.01 leaves none of the 16 channels of a layer"):
        make(width=0.01)


@pytest.mark.slow
def test_the_outputs_of_the_published_weights_are_pytorchs(weights):
    network = make()
    logits, features = jax.jit(network.apply)(variables_of(network, weights), recorded.image(224))
    np.testing.assert_allclose(logits[0, :4], recorded.PUBLISHED_LOGITS, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features[0, :4], recorded.PUBLISHED_FEATURES, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_features_through_our_decoding_are_as_good_as_the_recorded_ones(photos, weights):
    embeddings = DATA / "embeddings/photos"
    with (embeddings / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = [i for i, row in enumerate(rows) if row["role"] == "known"][::3][:512]
    expected = np.load(embeddings / "features.npy")[known].astype(np.float32)
    found, classes = (
        features_of(weights, [photos / rows[i]["id"] for i in known]),
        np.array([rows[i]["class"] for i in known]),
    )
    assert cosines(found, expected).mean() > 0.99
    assert abs(accuracy(found, classes) - accuracy(expected, classes)) <= 0.01


def features_of(weights, paths):
    """float32 [n, 1280], by the project's decoding, centre crop and normalisation."""
    from openset_jax.data import augment, decode
    from openset_jax.data.tensorflow_cpu import tf

    network = make()
    variables, given = variables_of(network, weights), network.preprocessing

    def features(variables, images):
        x = augment.centre_crop(images, image_size=given.image_size)
        return network.apply(variables, augment.normalise(x, given.mean, given.std))[1]

    shape = jax.ShapeDtypeStruct((64, given.stored_size, given.stored_size, 3), jnp.uint8)
    run = xla.compile_lowered(jax.jit(features).lower(variables, shape))
    read = lambda path: decode.decode_square(tf.io.read_file(path), given.stored_size, 10**8)
    batches = tf.data.Dataset.from_tensor_slices([str(path) for path in paths]).map(read, 2).batch(64)
    return np.concatenate([run(variables, images) for images in batches.as_numpy_iterator()])


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def accuracy(features, classes):
    """Of a logistic regression that is fitted to every other image, on the remaining ones."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.1, max_iter=1000).fit(features[::2], classes[::2])
    return model.score(features[1::2], classes[1::2])
