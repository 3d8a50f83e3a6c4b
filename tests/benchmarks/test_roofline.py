"""Operations and bytes, compared with counts by hand for small networks, and with the literature for AlexNet."""

import math

import pytest

from benchmarks import roofline
from openset_jax.model import networks


def alexnet(**changes):
    defaults = {"name": "alexnet", "norm": "", "stem": "imagenet", "width": 1.0, "dropout": 0.5, "dtype": "float32",
                "axis_name": None}  # fmt: skip
    return networks.make(11, **defaults | changes)


def test_a_training_image_of_the_full_network_costs_4_12_gflop():
    assert roofline.flops_per_image(alexnet(), 224) == pytest.approx(4.120e9, rel=1e-3)
    assert roofline.flops_per_image(alexnet(), 224, train=False) == pytest.approx(1.420e9, rel=1e-3)


def test_flops_of_a_small_network_counted_by_hand():
    # 16x16 -> pool 7 -> pool 3 -> pool 1; 4, 12, 24, 16, 16 channels; fully connected 256, 256, 11
    conv1 = 16 * 16 * 25 * 3 * 4
    rest = 7 * 7 * 25 * 4 * 12 + 3 * 3 * 9 * (12 * 24 + 24 * 16 + 16 * 16) + 16 * 256 + 256 * 256 + 256 * 11
    assert roofline.flops_per_image(alexnet(stem="small", width=0.0625), 16) == 2 * (3 * rest + 2 * conv1)


@pytest.mark.parametrize("norm", ["none", "batch", "local_response"])
def test_the_layers_are_those_of_the_network_in_their_order(norm):
    found = roofline.layers(alexnet(norm=norm), 224)
    assert [layer.name for layer in found] == [
        "conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8"
    ]  # fmt: skip
    assert [layer.outputs[0] for layer in found[:8]] == [55, 27, 27, 13, 13, 13, 13, 6]
    assert [layer.first for layer in found] == [True] + [False] * 10


def test_layers_inside_of_blocks_are_named_by_their_paths():
    lite = networks.make(1000, name="efficientnet_lite0")
    found = roofline.layers(lite, 224)
    assert [layer.name for layer in found[:3]] == ["stem/conv", "stage1_1/depthwise/conv", "stage1_1/project/conv"]
    assert len(found) == 2 + 3 * 16 and found[-1].name == "head"
    assert found[1].flops(train=False) == 2 * 112 * 112 * 9 * 32  # depthwise
    multiplications = roofline.flops_per_image(lite, 224, train=False) / 2
    assert multiplications == pytest.approx(385e6, rel=0.01)


def test_the_forward_pass_of_the_full_network_moves_2_63_megabytes_of_activations_per_image():
    found = roofline.layers(alexnet(), 224)
    assert 2 * sum(layer.values(train=False) for layer in found) == pytest.approx(2.63e6, rel=2e-3)


def test_values_and_bytes_of_one_layer_counted_by_hand():
    dense = roofline.Layer("fc", None, (3,), (5,), (3, 5))
    assert dense.values(train=False) == 3 + 5
    assert dense.values() == (3 + 5) + (5 + 5 + 3 + 3)
    pool = roofline.Layer("pool", None, (4, 4, 1), (2, 2, 1))
    assert pool.values() == (16 + 4) + (16 + 4 + 16)
    assert pool.flops() == 0
    assert roofline.weight_bytes(4) == 4 + 4 + 4
    assert roofline.weight_bytes(2) == 2 + 2 + 2 + 4
    moved = roofline.step_bytes([dense], batch_size=7, stored_size=10, itemsize=4, copies=2)
    assert moved == 7 * 4 * dense.values() + 7 * 300 + 2 * 15 * (12 + 28)


def test_both_bounds():
    bounds = roofline.bounds(flops=2e12, moved=3e9, matrix_rate=1e15, copy_rate=1e12)
    assert bounds == {"arithmetic_ms": 2.0, "memory_ms": 3.0, "overlap_ms": 3.0, "no_overlap_ms": 5.0}


def test_the_copy_rate_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(roofline, "seconds", lambda run: [run().block_until_ready() is None or 0.5])
    assert math.isclose(roofline.measured_copy_rate(1)["median"], 2 * 2**20 / 0.5)
