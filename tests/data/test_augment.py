"""Augmentation depends on the position in the global batch, not on how the batch is divided; normalisation by formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from openset_jax.data import augment

SIZE = 10


def pictures(count, size=SIZE, seed=0):
    """Returns images without zeros, to distinguish them from padding."""
    return np.random.default_rng(seed).integers(1, 256, (count, size, size, 3), dtype=np.uint8)


@functools.partial(jax.jit, static_argnames=("image_size", "pad", "flip"))
def jitted(images, key, position, *, image_size, pad, flip):
    return augment.augment(images, key, position, image_size=image_size, pad=pad, flip=flip)


def augmented(images, position=None, *, seed=0, image_size=SIZE, pad=0, flip=False):
    position = np.arange(len(images), dtype=np.int32) if position is None else np.asarray(position, np.int32)
    return np.asarray(jitted(images, jax.random.key(seed), position, image_size=image_size, pad=pad, flip=flip))


def crops(image, image_size, pad):
    """Returns {(top, left): crop} for every place."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    places = range(padded.shape[0] - image_size + 1)
    return {(top, left): padded[top:, left:][:image_size, :image_size] for top in places for left in places}


def placed(result, image, pad):
    """Returns (top, left, mirrored) of an augmented image."""
    found = [
        (*place, mirrored)
        for place, crop in crops(image, result.shape[0], pad).items()
        for mirrored in (False, True)
        if np.array_equal(result, crop[:, ::-1] if mirrored else crop)
    ]
    assert len(found) == 1, "one crop of the zero-padded image, mirrored or not"
    return found[0]


@pytest.mark.parametrize(("image_size", "pad", "flip"), [(7, 0, True), (14, 2, False), (1, 0, True)])
def test_the_result_is_uint8_of_the_asked_size(image_size, pad, flip):
    result = augmented(pictures(3), image_size=image_size, pad=pad, flip=flip)
    assert result.dtype == np.uint8
    assert result.shape == (3, image_size, image_size, 3)


def test_every_crop_of_the_padded_image_and_both_mirror_images_come_equally_often():
    image, count = pictures(1)[0], 900
    results = augmented(np.stack([image] * count), image_size=10, pad=1, flip=True)
    places = [placed(result, image, 1) for result in results]
    _, cells = np.unique(places, axis=0, return_counts=True)
    assert len(cells) == 3 * 3 * 2
    assert np.abs(cells - count / 18).max() < 5 * np.sqrt(count / 18)
    for axis, values in ((0, 3), (1, 3), (2, 2)):
        seen = np.bincount([place[axis] for place in places], minlength=values)
        assert np.abs(seen - count / values).max() < 5 * np.sqrt(count / values)


def test_without_flip_nothing_is_ever_mirrored():
    image = pictures(1)[0]
    results = augmented(np.stack([image] * 100), image_size=8, pad=1, flip=False)
    assert not any(placed(result, image, 1)[2] for result in results)


def test_without_padding_and_at_equal_size_an_image_stays_as_it_is():
    images = pictures(50)
    np.testing.assert_array_equal(augmented(images), images)


def test_without_padding_and_at_equal_size_flip_only_mirrors():
    images = pictures(200)
    mirrored = [placed(result, image, 0)[2] for result, image in zip(augmented(images, flip=True), images, strict=True)]
    assert 60 < sum(mirrored) < 140


@pytest.mark.parametrize("parts", [2, 12])
def test_how_the_batch_is_divided_makes_no_difference(parts):
    images, options = pictures(12), {"image_size": 9, "pad": 2, "flip": True}
    whole = augmented(images, **options)
    divided = [augmented(images[part], part, **options) for part in np.split(np.arange(12), parts)]
    np.testing.assert_array_equal(np.concatenate(divided), whole)


def test_an_example_depends_on_its_position_not_on_its_place_in_the_array():
    images, options = pictures(12), {"image_size": 9, "pad": 2, "flip": True}
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_array_equal(augmented(images[order], order, **options), augmented(images, **options)[order])


def test_positions_and_keys_have_their_own_randomness():
    image, options = np.stack([pictures(1)[0]] * 20), {"image_size": 8, "pad": 2, "flip": True}
    first, again, other = (augmented(image, seed=seed, **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({result.tobytes() for result in first}) > 10
    assert sum(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True)) > 10


def test_the_crop_does_not_tell_whether_the_image_is_mirrored():
    image, options = pictures(1)[0], {"image_size": 10, "pad": 1}
    images = np.stack([image] * 150)
    plain = [placed(result, image, 1)[:2] for result in augmented(images, flip=False, **options)]
    flipped = [placed(result, image, 1) for result in augmented(images, flip=True, **options)]
    assert [place[:2] for place in flipped] == plain, "flip only mirrors what is cut"
    left = np.array([place[:2] for place in flipped])[np.array([place[2] for place in flipped])]
    assert len(np.unique(left, axis=0)) == 9


# --- centre crop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "image_size"), [(10, 10), (10, 8), (10, 7), (9, 8), (9, 1)])
def test_the_centre_crop_is_the_centre(size, image_size):
    images = pictures(2, size)
    result = np.asarray(augment.centre_crop(jnp.asarray(images), image_size=image_size))
    assert result.shape == (2, image_size, image_size, 3)
    before = (size - image_size) // 2
    np.testing.assert_array_equal(result, images[:, before : before + image_size, before : before + image_size])
    assert abs((size - image_size - before) - before) <= 1


def test_the_centre_crop_is_one_of_the_random_crops():
    images = pictures(1)
    centre = np.asarray(augment.centre_crop(jnp.asarray(images), image_size=8))[0]
    assert any(np.array_equal(centre, crop) for crop in crops(images[0], 8, 0).values())


# --- normalise --------------------------------------------------------------------------------------------------------

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalise_is_the_formula():
    images = pictures(4)
    images[0] = 0
    images[1] = 255
    result = np.asarray(augment.normalise(jnp.asarray(images), MEAN, STD))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (images / 255.0 - MEAN) / STD, rtol=1e-5, atol=1e-6)


def test_normalise_treats_each_channel_by_its_own_numbers():
    images = np.full((1, 2, 2, 3), 51, np.uint8)
    result = np.asarray(augment.normalise(jnp.asarray(images), (0.2, 0.1, 0.0), (1.0, 0.1, 0.5)))
    np.testing.assert_allclose(result[0, 0, 0], [0, 1, 0.4], atol=1e-6)


def test_grey_is_the_luma_in_every_channel():
    images = pictures(4)
    result = np.asarray(augment.normalise(jnp.asarray(images), MEAN, STD, grey=True))
    luma = images @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(result, (luma[..., None] / 255 - MEAN) / STD, rtol=1e-5, atol=1e-5)


def test_grey_leaves_grey_images_as_they_are():
    images = pictures(4)[..., :1].repeat(3, -1)
    plain, grey = (np.asarray(augment.normalise(jnp.asarray(images), MEAN, STD, grey=g)) for g in (False, True))
    np.testing.assert_allclose(grey, plain, atol=1e-5)
