"""Starting from files and from published weights: the same logits as PyTorch, and one message for each misfit."""

import hashlib
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from model import torch_alexnet
from model.torch_writer import write
from safetensors.numpy import save_file
from small_run import lines, small_config, small_spec, train
from tiny_network import Tiny

from openset_jax.errors import UserError
from openset_jax.model import networks
from openset_jax.model.alexnet import AlexNet
from openset_jax.model.network import Published
from openset_jax.training import start_weights, state
from openset_jax.training.warm_start import warm_start

WIDTH = 0.0625
IMAGENET = {"model.stem": "imagenet", "data.stored_size": 224, "data.image_size": 224, "data.mean": None, "data.std": None}


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file in the layout of torchvision's AlexNet, 0.0625 times as wide."""
    return write(tmp_path_factory.mktemp("weights") / "alexnet.pth", torch_alexnet.state_dict(WIDTH))


def load(path, **changes):
    spec = small_spec(**IMAGENET | {"init_from": str(path)} | changes)
    model = spec.program.forward.network.make(torch_alexnet.OUTPUTS)
    return start_weights.load(spec, state.variables_shape(model, spec.inputs.shape)), model


def check_logits(path, width):
    given, model = load(path, **{"model.width": width})
    head = torch_alexnet.state_dict(width)
    outputs = {"kernel": head["classifier.6.weight"].T, "bias": head["classifier.6.bias"]}
    params = given.variables["params"] | {"fc8": outputs}
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
    logits, _ = jax.jit(model.apply)({"params": params}, torch_alexnet.image())
    np.testing.assert_allclose(logits[0, :4], torch_alexnet.LOGITS[width], atol=1e-4)
    assert (given.outputs, given.unnamed, given.note) == ((), torch_alexnet.OUTPUTS, "")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_logits_of_an_alexnet_are_those_of_pytorch(tmp_path, alexnet, suffix):
    if suffix == ".safetensors":
        save_file(torch_alexnet.state_dict(WIDTH), alexnet.with_suffix(suffix))
    check_logits(alexnet.with_suffix(suffix), WIDTH)


@pytest.mark.slow
def test_logits_of_the_full_alexnet_are_those_of_pytorch(tmp_path):
    check_logits(write(tmp_path / "alexnet.pth", torch_alexnet.state_dict(1.0)), 1.0)


@pytest.mark.slow
def test_a_run_starts_from_a_file_with_new_outputs_and_resumes_without_it(tmp_path, alexnet, capsys):
    path, workdir = shutil.copy(alexnet, tmp_path / "a.pth"), tmp_path / "run"
    workdir.mkdir()
    small = {
        "data.stored_size": 63,
        "data.image_size": 63,
        "steps": 2,
        "eval.every": 2,
        "checkpoint.every": 1,
        "trainable": "head",
    }
    train(small_config(**IMAGENET | small | {"init_from": str(path)}), workdir)
    assert f"Starting from {path}: the layers below fc8 are copied" in capsys.readouterr().out
    path.unlink()
    train(small_config(**IMAGENET | small | {"init_from": str(path), "steps": 4, "eval.every": 4}), workdir)
    assert "Resuming at step 2." in capsys.readouterr().out
    assert lines(workdir)[-1]["step"] == 4


def test_batch_statistics_and_another_head_are_those_of_any_network(tmp_path, alexnet, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", Tiny)
    path, tiny = tmp_path / "tiny.pth", {"model.name": "tiny", "model.stem": "imagenet", "data.mean": None, "data.std": None}
    spec = small_spec(**tiny | {"model.width": 1.0, "init_from": str(path)})
    model, rng = spec.program.forward.network.make(7), np.random.default_rng(0)
    like = state.variables_shape(model, (16, 16, 3))
    wanted = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in flatten_dict(like, sep="/").items()}
    to_torch = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    theirs = {model.torch_layout()[name].name: x.transpose(to_torch[x.ndim]).copy() for name, x in wanted.items()}
    write(path, theirs | {"first.1.num_batches_tracked": np.array(5)})
    given = start_weights.load(spec, like)
    found = flatten_dict(given.variables, sep="/")
    assert found.keys() == {name for name in wanted if "answer" not in name}
    jax.tree.map(np.testing.assert_array_equal, found, {name: wanted[name] for name in found})
    assert (given.unnamed, given.note) == (7, "")
    narrow = small_spec(**tiny | {"model.width": WIDTH, "init_from": str(alexnet)})
    says = "first.1.running_mean is missing; the names are features.0.weight, .*; use model.name=alexnet$"
    with pytest.raises(UserError, match=f"^init_from: the weights of {alexnet} do not fit: {says}"):
        start_weights.load(narrow, state.variables_shape(narrow.program.forward.network.make(7), (16, 16, 3)))


def test_relative_paths_and_home_folders_are_resolved(alexnet, monkeypatch):
    monkeypatch.chdir(alexnet.parent)
    monkeypatch.setenv("HOME", str(alexnet.parent))
    for path in ("alexnet.pth", "~/alexnet.pth", "../" + alexnet.parent.name + "/alexnet.pth"):
        assert load(path)[0].origin == str(alexnet)


def changed(tmp_path, changes):
    """A file with other arrays; None: without them."""
    values = torch_alexnet.state_dict(WIDTH) | changes
    return write(tmp_path / "a.pth", {name: x for name, x in values.items() if x is not None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model.stem": "small", "data.image_size": 28},
            r"params/conv1/kernel has the shape \(11, 11, 3, 4\) there \(features.0.weight\), but \(5, 5, 3, 4\) here; "
            "use model.stem=imagenet$",
        ),
        (
            {"model.name": "alexnet_2012", "model.norm": "local_response"},
            r"params/conv1/bias has the shape \(4,\) there .*, but \(6,\) here; use model.name=alexnet$",
        ),
        ({"model.width": 0.125}, "params/conv1/bias .* they fit none of alexnet, .* with model.width=0.125 or 1.0$"),
    ],
)
def test_another_geometry_is_refused_with_layer_shapes_and_remedy(alexnet, changes, says):
    with pytest.raises(UserError, match=f"^init_from: the weights of {alexnet} do not fit: {says}"):
        load(alexnet, **changes)


def test_other_names_are_refused(tmp_path):
    problem = "^init_from: the weights of .* do not fit: "
    with pytest.raises(
        UserError, match=problem + "features.3.bias is missing; the names are features.0.weight, .*; they fit none"
    ):
        load(changed(tmp_path, {"features.3.bias": None}))
    with pytest.raises(UserError, match=problem + "the network has no features.1.weight; they fit none"):
        load(changed(tmp_path, {"features.1.weight": np.ones(3, np.float32)}))
    with pytest.raises(
        UserError, match=problem + r"params/fc6/kernel has the shape \(256, 100\) there \(classifier.1.weight\)"
    ):
        load(changed(tmp_path, {"classifier.1.weight": np.ones((256, 100), np.float32)}))
    count, headless = (
        {"features.1.num_batches_tracked": np.array(3)},
        {"classifier.6.weight": None, "classifier.6.bias": None},
    )
    counted = load(changed(tmp_path, count | headless))
    assert counted[0].unnamed == 0, "a network without its head"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.norm": "batch"}, "model.norm: 'batch' does not fit the weights in init_from, which need 'none'; use ''"),
        ({"data.mean": (0.5, 0.5, 0.5)}, r"data.mean: \(0.5, 0.5, 0.5\) does not .* need \(0.485, 0.456, 0.406\); use None"),
        ({"data.std": (0.5, 0.5, 0.5)}, r"data.std: \(0.5, 0.5, 0.5\) does not .* need \(0.229, 0.224, 0.225\); use None"),
    ],
)
def test_another_normalisation_is_refused_by_field(alexnet, changes, says):
    with pytest.raises(UserError, match=f"^{says}$"):
        load(alexnet, **changes)


def test_damaged_files_are_refused_by_field_and_name(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=f"^init_from: {tmp_path}/a.pth: it is damaged"):
        load(tmp_path / "a.pth")


def test_published_weights_are_those_of_the_package(tmp_path, alexnet, monkeypatch):
    class PublishedNetwork(AlexNet):
        published = Published("made-up-weights", alexnet.name, hashlib.sha256(alexnet.read_bytes()).hexdigest(), "extra")

    monkeypatch.setitem(networks.NETWORKS, "made_up", PublishedNetwork)
    size = {"data.image_size": 63, "init_from": "pretrained"}
    spec = small_spec(**IMAGENET | size | {"model.name": "made_up"})
    shapes = state.variables_shape(spec.program.forward.network.make(6), (63, 63, 3))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(
        UserError, match="^init_from: the weights of made_up are in the package made-up-weights, which is not"
    ):
        warm_start(variables, spec, list("abcde"))
    (tmp_path / "made_up_weights-1.2.dist-info").mkdir()
    (tmp_path / "made_up_weights-1.2.dist-info/METADATA").write_text("Name: made-up-weights\nVersion: 1.2\n")
    shutil.copy(alexnet, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found, said = warm_start(variables, spec, list("abcde"))
    assert said == (
        "Starting from the published weights of made-up-weights 1.2: the layers below fc8 are copied, and no outputs by "
        'class name; new: a, b, c, d, e, "none"; left out: 10 outputs without names of classes.\n'
        "The weights are of images of 224 pixels; data.image_size is 63."
    )
    assert not found["params"]["fc8"]["kernel"].any()
    np.testing.assert_array_equal(found["params"]["fc7"]["kernel"].T, torch_alexnet.state_dict(WIDTH)["classifier.4.weight"])
    with pytest.raises(UserError, match="^init_from: alexnet has no published weights; use .*model.name=made_up"):
        load("pretrained")
