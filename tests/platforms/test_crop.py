"""Cropping: equal results of all implementations, and the choice by platform."""

import functools
import re

import jax
import numpy as np
import pytest

from openset_jax.data import augment
from openset_jax.platforms import crop

SIZE = 10


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (2, True), (3, False)])
def test_crops_by_pixel_are_crops_by_slices(pad, flip):
    images = np.random.default_rng(0).integers(1, 256, (9, SIZE, SIZE, 3), dtype=np.uint8)
    key, position = jax.random.key(3), np.arange(9, dtype=np.int32)
    given = {"image_size": SIZE - 2, "pad": pad, "flip": flip}
    by_slices, by_pixel = (
        augment.augment(images, key, position, **given, crop=form) for form in (crop.crop_by_slices, crop.crop_by_pixel)
    )
    np.testing.assert_array_equal(by_slices, by_pixel)
    assert len(np.unique(by_slices)) > 50


@pytest.mark.parametrize(("platform", "by_pixel"), [("cpu", True), ("cuda", True), ("tpu", False)])
def test_platforms_that_were_measured_crop_by_pixel(platform, by_pixel):
    shapes = [jax.ShapeDtypeStruct(s, t) for s, t in (((4, 9, 9, 3), np.uint8), ((4, 2), np.int32), ((4,), bool))]
    lowered = jax.jit(functools.partial(crop.crop, size=5)).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    slices = re.findall(r"slice_sizes = array<i64: ([\d, ]+)>", lowered)
    assert slices == (["1, 1, 1, 3"] if by_pixel else ["1, 5, 5, 3"]), lowered
