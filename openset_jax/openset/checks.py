"""Checks of posteriors, priors, labels, weights, and of numbers read from files.

Error messages contain the index of the first invalid entry, and `name`, the name of the argument.
"""

from typing import Any

import numpy as np

TOLERANCE = 1e-6  # of sums of probabilities; float32 posteriors are within it


def posterior(values: np.ndarray, name: str = "posterior") -> np.ndarray:
    """Returns the posterior as float64 [n, K + 1] (or [n, K]).

    Raises:
      ValueError: the shape is not [n, classes], or a row is not finite, has a negative entry, or does not sum to 1 within
        1e-6.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name} must be [images, classes], not of shape {values.shape}")
    total = values.sum(axis=1)
    wrong = ~(np.abs(total - 1) <= TOLERANCE) | (values < 0).any(axis=1)  # NaN is wrong, too
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{name}: row {row} of {len(values)} is not a distribution "
            f"(sum {total[row]:.9g}, smallest {values[row].min():.3g}); {wrong.sum()} such rows"
        )
    return values


def prior(values: np.ndarray, width: int, name: str = "prior") -> np.ndarray:
    """Returns the prior as float64 [width], where the width is K + 1.

    Raises:
      ValueError: the length is not `width`, an entry is negative or not finite, or the sum is not 1 within 1e-6.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (width,):
        shape = values.shape
        raise ValueError(f'{name} must have {width} numbers, one for each class and "none" last; its shape is {shape}')
    if not (values >= 0).all():
        k = int((~(values >= 0)).argmax())
        raise ValueError(f"{name} must not be negative: entry {k} is {values[k]}")
    if not abs(values.sum() - 1) <= TOLERANCE:
        raise ValueError(f"{name} must sum to 1, not to {values.sum():.9g}")
    return values


def labels(values: np.ndarray, count: int, width: int) -> np.ndarray:
    """Returns the labels as int64 [count] in [0, width), of which the last is "none".

    Raises:
      ValueError: the length is not `count`, or a label is not an integer in the range (such as the -1 and -2 of pools).
    """
    given = np.asarray(values)
    if given.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), one for each image, not {given.shape}")
    wrong = ~((given >= 0) & (given < width) & (given == np.floor(given)))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f'label {row} of {count} is {given[row]}, not in 0 to {width - 1}, of which the last is "none"')
    return given.astype(np.int64)


def weights(values: np.ndarray | None, count: int) -> np.ndarray:
    """Returns the weights as float64 [count]; ones for None.

    Raises:
      ValueError: the length is not `count`, or a weight is negative or not finite.
    """
    if values is None:
        return np.ones(count)
    values = np.asarray(values, np.float64)
    if values.shape != (count,):
        raise ValueError(f"weights must have shape ({count},), one for each image, not {values.shape}")
    wrong = ~(values >= 0) | np.isinf(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"weight {row} of {count} is {values[row]}; weights must be finite and not negative")
    return values


def number(value: Any, name: str, least: float = -np.inf, most: float = np.inf) -> float:
    """Returns a number of a file; raises ValueError unless it is an int or a float in [least, most], and not NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


def count(value: Any, name: str, most: float = np.inf) -> int:
    """Returns a number of a file; raises ValueError unless it is an int in [0, most]."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most:g}, not {value!r}")
    return value


def finite(values: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """Returns the values as float64.

    Raises:
      ValueError: the number of axes is not `ndim`, or a value is NaN or infinite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} {'axis' if ndim == 1 else 'axes'}, not the shape {values.shape}")
    wrong = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if wrong.any():
        raise ValueError(f"{name}: row {int(wrong.argmax())} of {len(values)} is not finite ({wrong.sum()} such rows)")
    return values
