"""The PyTorch side does the same work as ours.

Tests that need PyTorch run it in a process: of this Python if it has torch, or of the one that PEER_PYTHON names. The
geometry of the network is also tested without PyTorch, with a stand-in that records the layers.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from small_run import small_spec

from benchmarks import peer, roofline
from openset_jax.training.run_cache import RunCache

SIZES = [("small", 16), ("imagenet", 224), ("imagenet", 96)]
# (network, normalisation, stem, side of the image)
NETWORKS = [("alexnet", norm, *size) for norm in ("none", "batch") for size in SIZES]
NETWORKS.append(("efficientnet_lite0", "batch", "imagenet", 64))


def spec_of(name, norm, stem, size):
    model = {"model.name": name, "model.norm": norm, "model.stem": stem}
    return small_spec(**model, **{"data.image_size": size, "data.stored_size": size})


def our_kernels(spec):
    layers = roofline.layers(RunCache().network(spec.program, 5).model, spec.images.image_size)
    return [sorted(layer.kernel) for layer in layers if layer.kernel]


@pytest.fixture(scope="module")
def facts():
    """The output of torch_facts.py."""
    python = peer.peer_python(os.environ.get("PEER_PYTHON", ""))
    if not python:
        pytest.skip("needs torch: install it, or name a Python that has it in the environment variable PEER_PYTHON")
    crops = peer.network_job(small_spec(**{"augment.pad": 0, "augment.flip": True, "data.stored_size": 20}), 6, "train")
    jobs = {
        "shapes": [peer.network_job(spec_of(*network), 6, "train") for network in NETWORKS],
        "crops": crops | {"batch_size": 400, "mean": [0.0] * 3, "std": [1.0] * 3},
        "step": peer.network_job(small_spec(), 6, "train"),
    }
    script = pathlib.Path(__file__).with_name("torch_facts.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(jobs), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_has_as_many_weights_as_ours(facts):
    ours = [our_kernels(spec_of(*network)) for network in NETWORKS]
    assert [sorted(map(sorted, shapes)) for shapes in facts["shapes"]] == [sorted(shapes) for shapes in ours]


def test_crops_lie_within_the_image_and_half_of_them_are_mirrored(facts):
    columns = np.array(facts["crops"])
    steps = np.diff(columns, axis=1)
    assert (np.abs(steps) == 1).all()
    assert 0.4 < (steps[:, 0] == -1).mean() < 0.6
    assert set(columns.min(1).tolist()) == set(range(5))


def test_a_step_changes_the_parameters(facts):
    assert any(facts["step"])


class Layer:
    """A stand-in for the modules of torch.nn: records the shapes of the kernels that PyTorch makes."""

    made: list[list[int]]

    def __init__(self, *args, **options):
        name = type(self).__name__
        if name == "Conv2d":
            inputs, outputs, side, *_ = args
            Layer.made.append([outputs, inputs // options.get("groups", 1), side, side])
        elif name == "Linear":
            Layer.made.append([args[1], args[0]])


@pytest.fixture
def recorded(monkeypatch):
    """`torch_networks` imported with a stand-in for torch."""
    names = ("Module", "Conv2d", "BatchNorm2d", "ReLU", "ReLU6", "MaxPool2d", "AdaptiveAvgPool2d", "ZeroPad2d",
             "Sequential", "Dropout", "Linear")  # fmt: skip
    torch, nn = (types.ModuleType(name) for name in ("torch", "torch.nn"))
    torch.nn, torch.Tensor = nn, object
    for name in names:
        setattr(nn, name, type(name, (Layer,), {}))
    for module in (torch, nn):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.torch_networks", raising=False)
    yield importlib.import_module("benchmarks.peers.torch_networks")
    sys.modules.pop("benchmarks.peers.torch_networks")


@pytest.mark.parametrize("network", NETWORKS)
def test_its_layers_are_ours_without_pytorch(recorded, monkeypatch, network):
    monkeypatch.setattr(Layer, "made", [], raising=False)
    job = peer.network_job(spec_of(*network), 6, "train")
    recorded.NETWORKS[job["network"]](**job["model"])
    assert sorted(map(sorted, Layer.made)) == sorted(our_kernels(spec_of(*network)))


def test_both_sides_have_the_same_networks(recorded):
    assert set(recorded.NETWORKS) == set(peer.NETWORKS)
