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
NORMS = ["none", "batch"]


def spec_of(stem, size, norm):
    return small_spec(**{"model.stem": stem, "model.norm": norm, "data.image_size": size, "data.stored_size": size})


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
        "shapes": [peer.network_job(spec_of(*size, norm), 6, "train") for norm in NORMS for size in SIZES],
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
    ours = [our_kernels(spec_of(*size, norm)) for norm in NORMS for size in SIZES]
    assert [[sorted(shape) for shape in shapes] for shapes in facts["shapes"]] == ours


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
            Layer.made.append([outputs, inputs, side, side])
        elif name == "Linear":
            Layer.made.append([args[1], args[0]])


@pytest.fixture
def recorded(monkeypatch):
    """`torch_step` imported with a stand-in for torch."""
    names = ("Module", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "AdaptiveAvgPool2d", "Sequential", "Dropout", "Linear")
    torch, nn, functional = (types.ModuleType(name) for name in ("torch", "torch.nn", "torch.nn.functional"))
    torch.nn, torch.Tensor, nn.functional = nn, object, functional
    for name in names:
        setattr(nn, name, type(name, (Layer,), {}))
    for module in (torch, nn, functional):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.torch_step", raising=False)
    yield importlib.import_module("benchmarks.peers.torch_step")
    sys.modules.pop("benchmarks.peers.torch_step")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("stem", "size"), SIZES)
def test_its_layers_are_ours_without_pytorch(recorded, monkeypatch, stem, size, norm):
    spec = spec_of(stem, size, norm)
    monkeypatch.setattr(Layer, "made", [], raising=False)
    recorded.AlexNet(**peer.network_job(spec, 6, "train")["model"])
    assert [sorted(shape) for shape in Layer.made] == our_kernels(spec)
