"""The operations of a step, compared with counts by hand."""

import pytest

from openset_jax.model import cost, networks


def flops(trainable="all", *, train=True):
    network = networks.make(11, name="alexnet", stem="small", width=0.0625, trainable=trainable)
    return cost.flops_per_example(network, (16, 16, 3), train=train)


# conv2 to conv5, fc6, fc7 and fc8 of a 16th of the width, on maps of 7, 3, 3, 3 and 1 pixels; conv1 on 16
def test_a_frozen_part_has_a_forward_pass_only_and_the_trained_part_has_gradients():
    fc6, fc7, head = 2 * 16 * 256, 2 * 256 * 256, 2 * 256 * 11
    forward = flops(train=False)
    assert flops("head") - forward == pytest.approx(head, rel=0.3)
    assert flops("fc") - flops("head") == pytest.approx(fc6 + 2 * fc7 + head, rel=0.1)
    every = [flops(group) for group in ("head", "fc", "conv5", "conv4", "conv3", "conv2", "conv1")]
    assert every == sorted(set(every)) and every[-1] == flops("all")


@pytest.mark.parametrize(("train", "expected"), [(True, 4.12e9), (False, 1.42e9)])
def test_the_whole_network_has_the_operations_of_its_layers(train, expected):
    """XLA does not count the products with the zeros of the padding, 8 % of all."""
    found = cost.flops_per_example(networks.make(11, name="alexnet"), (224, 224, 3), train=train)
    assert found == pytest.approx(0.92 * expected, rel=0.01)
