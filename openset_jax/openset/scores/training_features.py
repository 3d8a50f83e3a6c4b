"""Statistics of the training images for the scores of `feature_scores`, from one pass over batches in bounded memory.

Features are the inputs of the last layer. Moments are exact over all images; neighbours, percentiles and tails come from a
uniform sample of at most `cap` images. The memory is O(F^2 + cap F), independent of the number of images.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from scipy import linalg
from scipy.special import log_softmax, logsumexp

from openset_jax.openset.scores.unavailable import ScoreUnavailable

LEAST = 1e-12  # directions with a smaller share of the total variance are rounding errors


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingFeatures:
    """Statistics of the training images of K known classes, with F features each.

    Attributes:
      count: int64 [K], positive number of images of each class.
      class_mean: float64 [K, F].
      mean, covariance: float64 [F], [F, F], of all images; the covariance is divided by their number.
      max_logit: the mean over all images of the largest logit.
      log_typical: float64 [c, K], c <= K, the logarithm of the mean softmax of the images predicted as each class,
        regardless of their label; classes that are never predicted are left out.
      centre: float64 [K, K], the mean logits of the correctly classified images of each class; NaN if there are none.
      features, logits, label: float32 [m, F], float64 [m, K], int64 [m]: a sample of m <= cap images, in arbitrary order.
      names: of the classes, for messages.
    """

    count: np.ndarray
    class_mean: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    max_logit: float
    log_typical: np.ndarray
    centre: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    label: np.ndarray
    names: Sequence[str] | None = None

    @functools.cached_property
    def whitening_within(self) -> np.ndarray:
        """Whitening of the pooled covariance within classes, float64 [F, r]; see `_whitening`."""
        share, offset = self.count / self.count.sum(), self.class_mean - self.mean
        return self._whitening(self.covariance - (share[:, None] * offset).T @ offset)

    @functools.cached_property
    def whitening_total(self) -> np.ndarray:
        """Whitening of the covariance of all images, float64 [F, r]; see `_whitening`."""
        return self._whitening(self.covariance)

    def _whitening(self, covariance: np.ndarray) -> np.ndarray:
        """Returns W such that W W' is the pseudo-inverse of the covariance.

        Directions without variance in the training images (units that are always 0, or fewer images than features) are
        left out, because distances have no scale there.

        Raises:
          ScoreUnavailable: no direction has a variance.
        """
        values, vectors = linalg.eigh(covariance)
        kept = values > LEAST * np.trace(self.covariance)
        if not kept.any():
            raise ScoreUnavailable("the training features do not vary within the classes: they have no Mahalanobis distance")
        return vectors[:, kept] / np.sqrt(values[kept])


class Accumulator:
    """Accumulates the statistics of the training images batch by batch.

    The sample has at most `cap` images, and its features are float32 (328 MB for 4096 features and 20,000 images). For the
    same images in the same order, neither the sample nor, up to rounding, the moments depend on the batch size.

    Raises:
      ValueError: there is no class, or the cap is less than 1.
    """

    def __init__(self, num_classes: int, *, cap: int = 20_000, seed: int = 0, names: Sequence[str] | None = None):
        if num_classes < 1 or cap < 1:
            raise ValueError(f"num_classes and cap must be at least 1, not {num_classes} and {cap}")
        self._num_classes, self._cap, self._rng = num_classes, cap, np.random.default_rng(seed)
        self._names = names
        self._count, self._given, self._right = np.zeros((3, num_classes), np.int64)
        self._log_sum = np.full((num_classes, num_classes), -np.inf)
        self._right_sum = np.zeros((num_classes, num_classes))
        self._max_sum = 0.0
        self._width: int | None = None
        self._key = np.empty(0)
        self._logits, self._label = np.empty((cap, num_classes)), np.empty(cap, np.int64)  # no memory before written

    def update(self, features: np.ndarray, logits: np.ndarray, label: np.ndarray) -> None:
        """Adds a batch of features [n, F], logits [n, K] and labels int [n], without the images with a label below 0.

        Raises:
          ScoreUnavailable: a feature or a logit is not finite.
          ValueError: the shapes do not agree, or a label is K or more.
        """
        features, logits, label = np.asarray(features), np.asarray(logits, np.float64), np.asarray(label)
        self._check(features, logits, label)
        known = label >= 0
        features, logits, label = features[known], logits[known], label[known].astype(np.int64)
        if not len(label):
            return
        self._add_moments(features.astype(np.float64), label)
        given, log_p = logits.argmax(axis=1), log_softmax(logits, axis=1)
        for k in np.unique(given):
            self._log_sum[k] = np.logaddexp(self._log_sum[k], logsumexp(log_p[given == k], axis=0))
        right = given == label
        self._right_sum += self._sum_by_class(logits[right], label[right])
        self._given += np.bincount(given, minlength=self._num_classes)
        self._right += np.bincount(label[right], minlength=self._num_classes)
        self._max_sum += logits.max(axis=1).sum()
        self._add_sample(features, logits, label)

    def _check(self, features, logits, label):
        expected = (len(label), self._num_classes)
        if features.ndim != 2 or logits.shape != expected or len(features) != len(label):
            raise ValueError(
                f"features, logits and labels must be [n, F], [n, {self._num_classes}] and [n]; "
                f"they are {features.shape}, {logits.shape} and {label.shape}"
            )
        if self._width not in (None, features.shape[1]):
            raise ValueError(f"this batch has {features.shape[1]} features, the ones before it {self._width}")
        if (wrong := label >= self._num_classes).any():
            raise ValueError(f"label {label[wrong][0]} is not below the number of classes, {self._num_classes}")
        for name, values in (("feature", features), ("logit", logits)):
            if (wrong := ~np.isfinite(values).all(axis=1)).any():
                raise ScoreUnavailable(f"{wrong.sum()} of {len(label)} training images have a {name} that is not finite")

    def _add_moments(self, features, label):
        """Merges centred moments (Chan, Golub and LeVeque 1983); sums of raw squares would cancel for large means."""
        if self._width is None:
            self._width = width = features.shape[1]
            self._class_sum, self._features = np.zeros((self._num_classes, width)), np.empty((self._cap, width), np.float32)
            self._mean, self._scatter = np.zeros(width), np.zeros((width, width))
        self._class_sum += self._sum_by_class(features, label)
        before, new = self._count.sum(), len(label)
        mean = features.mean(axis=0)
        step = mean - self._mean
        centred = np.concatenate([features - mean, step[None] * np.sqrt(before * new / (before + new))])
        self._scatter += centred.T @ centred
        self._mean += step * new / (before + new)
        self._count += np.bincount(label, minlength=self._num_classes)

    def _sum_by_class(self, values, label):
        return (np.arange(self._num_classes)[:, None] == label).astype(np.float64) @ values

    def _add_sample(self, features, logits, label):
        """Keeps the `cap` images of smallest random keys, so that the sample does not depend on the batches."""
        stored = len(self._key)
        keys = np.concatenate([self._key, self._rng.random(len(label))])
        chosen = np.arange(len(keys))
        if len(keys) > self._cap:
            chosen = np.sort(np.argpartition(keys, self._cap - 1)[: self._cap])
        new = chosen[chosen >= stored]
        slots = np.setdiff1d(np.arange(len(chosen)), chosen[: len(chosen) - len(new)])
        self._key = np.concatenate([self._key, np.empty(len(chosen) - stored)])
        self._key[slots] = keys[new]
        for kept, values in ((self._features, features), (self._logits, logits), (self._label, label)):
            kept[slots] = values[new - stored]

    def finish(self) -> TrainingFeatures:
        """Returns the statistics of all batches. The sample is not copied: a later `update` changes it.

        Raises:
          ScoreUnavailable: a class has no image.
        """
        if (empty := np.flatnonzero(self._count == 0)).size:
            names = ", ".join(str(k) if self._names is None else repr(self._names[k]) for k in empty.tolist())
            raise ScoreUnavailable(f"there are no training features of class {names}")
        total, stored = self._count.sum(), len(self._key)
        seen = self._given > 0
        return TrainingFeatures(
            count=self._count.copy(),
            class_mean=self._class_sum / self._count[:, None],
            mean=self._mean.copy(),
            covariance=self._scatter / total,
            max_logit=float(self._max_sum / total),
            log_typical=self._log_sum[seen] - np.log(self._given[seen])[:, None],
            centre=np.where(self._right[:, None] > 0, self._right_sum / np.maximum(self._right, 1)[:, None], np.nan),
            features=self._features[:stored],
            logits=self._logits[:stored],
            label=self._label[:stored],
            names=self._names,
        )
