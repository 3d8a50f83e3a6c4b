"""What probabilities, priors, labels and weights must be: refused here once, in one wording, with the place of the fault."""

import numpy as np

TOLERANCE = 1e-6  # how far a sum of probabilities may be from 1; float32 posteriors are within it


def posterior(values: np.ndarray, name: str = "posterior") -> np.ndarray:
    """float64 [n, K + 1] (or [n, K]), as given.

    Raises:
      ValueError: it is not [n, classes], or a row (the message says which) is not finite, has a negative, or does not
        sum to 1 within 1e-6.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name} must be [images, classes], not of shape {values.shape}")
    total = values.sum(axis=1)
    wrong = ~(np.abs(total - 1) <= TOLERANCE) | (values < 0).any(axis=1)  # NaN is wrong too
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{name}: row {row} of {len(values)} is no distribution "
            f"(sum {total[row]:.9g}, smallest {values[row].min():.3g}); {wrong.sum()} such rows"
        )
    return values


def prior(values: np.ndarray, width: int, name: str = "prior") -> np.ndarray:
    """float64 [width], as given.

    Raises:
      ValueError: the length is not `width`, an entry is negative or not finite, or the sum is not 1 within 1e-6.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (width,):
        raise ValueError(
            f'{name} must have {width} numbers, one for each class and "none" last; its shape is {values.shape}'
        )
    if not (values >= 0).all():
        k = int((~(values >= 0)).argmax())
        raise ValueError(f"{name} must not be negative: entry {k} is {values[k]}")
    if not abs(values.sum() - 1) <= TOLERANCE:
        raise ValueError(f"{name} must sum to 1, not to {values.sum():.9g}")
    return values


def labels(values: np.ndarray, count: int, width: int) -> np.ndarray:
    """int64 [count] in [0, width).

    Raises:
      ValueError: the length is not `count`, or a label is not a whole number in the range; the message says that "none"
        is the last, because elsewhere it is -1 or -2.
    """
    given = np.asarray(values)
    if given.shape != (count,):
        raise ValueError(f"there must be one label for each of {count} images; the labels' shape is {given.shape}")
    wrong = ~((given >= 0) & (given < width) & (given == np.floor(given)))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f'label {row} of {count} is {given[row]}, not in 0 to {width - 1}, of which the last is "none"')
    return given.astype(np.int64)


def weights(values: np.ndarray | None, count: int) -> np.ndarray:
    """float64 [count]; ones for None.

    Raises:
      ValueError: the length is not `count`, or a weight is negative or not finite.
    """
    if values is None:
        return np.ones(count)
    values = np.asarray(values, np.float64)
    if values.shape != (count,):
        raise ValueError(f"there must be one weight for each of {count} images; the weights' shape is {values.shape}")
    wrong = ~(values >= 0) | np.isinf(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"weight {row} of {count} is {values[row]}; weights must be finite and not negative")
    return values


def finite(values: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """float64 of `ndim` axes, as given.

    Raises:
      ValueError: it has other axes, or a value is NaN or infinite (the message says in which row).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} {'axis' if ndim == 1 else 'axes'}, not the shape {values.shape}")
    wrong = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if wrong.any():
        raise ValueError(f"{name}: row {int(wrong.argmax())} of {len(values)} is not finite ({wrong.sum()} such rows)")
    return values
