"""The 1,797 8x8 digits of scikit-learn as a `Source` of arrays. Does not need TensorFlow."""

import numpy as np
from sklearn.datasets import load_digits

from openset_jax.data.pools import UNASSIGNED, Source, image_type


def open_digits(stored_size: int) -> Source:
    """Opens the digits (UCI Optical Recognition of Handwritten Digits, test part), enlarged to `stored_size`, 8 or more."""
    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    return Source(
        name="digits",
        classes=tuple(map(str, range(10))),
        roles=None,
        label=digits.target.astype(np.int32),
        split=np.full(len(images), UNASSIGNED, np.uint8),
        format="array",
        ids=lambda records: [f"digits#{r}" for r in records],
        fetch=lambda records: np.repeat(_enlarged(images[records], stored_size)[..., None], 3, axis=-1),
        array=image_type(stored_size),
    )


def _enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Enlarges uint8 [n, s, s] to [n, size, size], bilinear: to the bit as `decode` does it with TensorFlow."""
    side, half, one = images.shape[-1], np.float32(0.5), np.float32(1)
    centre = (np.arange(size, dtype=np.float32) + half) * (one / np.float32(size / side))  # in input pixels
    weights = np.maximum(0, one - np.abs(np.arange(side, dtype=np.float32) + half - centre[:, None]))
    weights *= one / weights.sum(axis=1, keepdims=True)
    for _ in range(2):  # the rows, and after the exchange of axes the columns; a product of matrices would round otherwise
        images = sum(weights[:, i, None] * images[:, i, None, :] for i in range(side)).swapaxes(1, 2)
    return np.round(images).astype(np.uint8)
