"""Features and logits -> how unknown: every score that one restored network gives without training it again.

Each function here makes a score from what was kept of the training images (`training_features`) and from the last layer.
A score takes a batch, features [n, F] and logits [n, K], and returns float64 [n]: **larger = more unknown**. `SCORES` is the
table of all of them, those of `scores` included; a new one is a function and a line there.

    one pass:     accumulator = training_features.Accumulator(K); accumulator.update(features, logits, label) ...
    then:         made = {name: score.make(accumulator.finish(), head) for name, score in SCORES.items()}
    second pass:  made[name](features, logits)

Of a network with K + 1 outputs, logits and the last layer are those of the K known classes. Features are the input of the
last layer, at least 0 where ASH is asked for (after a ReLU).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial import distance
from sklearn.neighbors import NearestNeighbors

from openset_jax.openset.scores import logit_scores, openmax
from openset_jax.openset.scores.training_features import LEAST, TrainingFeatures

_CHUNK = 1024  # rows in float64 at once

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (features [n, F], logits [n, K]) -> float64 [n]


class Head(NamedTuple):
    """The last layer: logits = features @ kernel + bias.

    Attributes:
      kernel: [F, K].
      bias: [K].
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 [n, K]."""
        return np.asarray(features, np.float64) @ np.asarray(self.kernel, np.float64) + self.bias


def mahalanobis(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """The squared distance to the nearest class mean, by the covariance within classes.

    Lee et al. 2018, arXiv 1807.03888, equation 2, without their perturbation of the input. The covariance is divided by the
    number n of images, as in OpenOOD, and inverted in the directions in which training images vary. pytorch-ood divides by
    n - 1, adds 1e-6 to the variances, and takes half of the distance.

    Raises:
      ValueError: training features do not vary within the classes.
    """
    to_class = _squared_distance(training.whitening_within, training.mean, training.class_mean)
    return lambda features, logits: to_class(features).min(axis=1)


def relative_mahalanobis(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """The same less the squared distance to the mean of all images, by the covariance of all.

    Ren et al. 2021, arXiv 2106.09022, section 2. As in OpenOOD; pytorch-ood does not divide the second covariance by the
    number of images, so that next to nothing is subtracted.

    Raises:
      ValueError: training features do not vary within the classes.
    """
    to_class = _squared_distance(training.whitening_within, training.mean, training.class_mean)
    to_all = _squared_distance(training.whitening_total, training.mean, training.mean[None])
    return lambda features, logits: to_class(features).min(axis=1) - to_all(features)[:, 0]


def _squared_distance(whitening, origin, centres):
    whitened = lambda x: (np.asarray(x, np.float64) - origin) @ whitening
    whitened_centres = whitened(centres)
    return lambda features: distance.cdist(whitened(features), whitened_centres, "sqeuclidean")


def knn(training: TrainingFeatures, head: Head | None = None, *, k: int = 50) -> Scorer:
    """The distance of the normalised features to their k-th nearest in the sample of training images.

    Sun et al. 2022, arXiv 2204.06507. In [0, 2]; OpenOOD has its square, pytorch-ood does not normalise. Features that are
    all 0 have no direction: they are 1 from everything, where OpenOOD has NaN.

    Args:
      k: 50 is usual for 50,000 images; in a sample of a tenth of them, a tenth of it is as near.

    Raises:
      ValueError: k is not in [1, number of stored images].
    """
    if not 1 <= k <= len(training.features):
        raise ValueError(f"k must be from 1 to the {len(training.features)} stored training images, not {k}")
    neighbours = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(_unit(training.features))
    return lambda features, logits: neighbours.kneighbors(_unit(features))[0][:, -1].astype(np.float64)


def _unit(features):
    features = np.asarray(features, np.float32)
    norm = np.sqrt(np.einsum("nf,nf->n", features, features, dtype=np.float64))
    return features / np.maximum(norm, np.finfo(np.float32).tiny).astype(np.float32)[:, None]


def vim(training: TrainingFeatures, head: Head, *, dim: int | None = None) -> Scorer:
    """ViM: a further logit for what lies outside the principal subspace of the features.

    Wang et al. 2022, arXiv 2203.10807, section 4: alpha |residual| + energy, where alpha |residual| is on average over the
    sample of training images what their largest logit is over all. Its logistic function is the further logit's probability.
    pytorch-ood cuts the logits of the energy off at 100, where confident images tie.

    Args:
      dim: of the principal subspace. None: 1000 of more than 1500 dimensions and 512 of fewer, as the authors, but at most
        half, as OpenOOD's 256 of 512. Dimensions are those that training features fill: a unit that is never on is none.

    Raises:
      ValueError: dim is below 0, or leaves the training images no residual.
    """
    kernel, bias = np.asarray(head.kernel, np.float64), np.asarray(head.bias, np.float64)
    origin = -np.linalg.pinv(kernel.T) @ bias
    offset = training.mean - origin
    values, vectors = linalg.eigh(training.covariance + np.outer(offset, offset))  # ascending
    rank = int((values > LEAST * values.sum()).sum())
    if dim is None:
        dim = 1000 if rank > 1500 else min(512, rank // 2)
    if not 0 <= dim < rank:
        raise ValueError(f"dim must be from 0 to below {rank}, the dimensions that training features fill, not {dim}")
    rest = vectors[:, : len(values) - dim]
    residual = lambda x: np.linalg.norm((np.asarray(x, np.float64) - origin) @ rest, axis=1)
    chunks = [training.features[i : i + _CHUNK] for i in range(0, len(training.features), _CHUNK)]
    alpha = training.max_logit / np.concatenate([residual(chunk) for chunk in chunks]).mean()
    return lambda features, logits: alpha * residual(features) + logit_scores.energy(logits)


def react(training: TrainingFeatures, head: Head, *, percentile: float = 90) -> Scorer:
    """ReAct: the energy after features are cut off at a percentile of all features of the sample of training images.

    Sun, Guo and Li 2021, arXiv 2111.12797.
    """
    cut = float(np.percentile(training.features, percentile))
    return lambda features, logits: logit_scores.energy(head.logits(np.minimum(features, cut)))


def ash(training: TrainingFeatures | None, head: Head, *, percentile: float = 90, variant: str = "s") -> Scorer:
    """ASH: the energy when only the largest features of each image are kept (Djurisic et al. 2023, arXiv 2209.09858).

    Args:
      percentile: of each image's features, what is set to 0.
      variant: what becomes of the kept: "p", nothing; "b", all their share of the sum before; "s", times
        exp(sum before / sum after).

    Raises:
      ValueError: there is no such variant, or the percentile is not in [0, 100).
    """
    if variant not in ("p", "b", "s") or not 0 <= percentile < 100:
        raise ValueError(f"ASH has variants p, b and s, and percentiles in [0, 100), not {variant!r} and {percentile}")

    def shaped(features):
        features = np.asarray(features, np.float64)
        width = features.shape[1]
        kept = max(width - round(width * percentile / 100), 1)
        mask = np.zeros_like(features)
        np.put_along_axis(mask, np.argsort(-features, axis=1, kind="stable")[:, :kept], 1.0, axis=1)
        before, after = features.sum(axis=1, keepdims=True), (features * mask).sum(axis=1, keepdims=True)
        if variant == "b":
            return mask * before / kept
        if variant == "p":
            return features * mask
        # features of at least 0 are within these bounds, but for an image with none above 0
        ratio = np.divide(before, after, out=np.ones_like(after), where=after > 0)
        return features * mask * np.exp(np.clip(ratio, 1, width / kept))

    return lambda features, logits: logit_scores.energy(head.logits(shaped(features)))


def dice(training: TrainingFeatures, head: Head, *, percentile: float = 90) -> Scorer:
    """DICE: the energy with only the weights that contribute most, by weight times mean feature.

    Sun and Li 2022, arXiv 2111.09805.

    Args:
      percentile: of the contributions, what is set to 0.
    """
    contribution = training.mean[:, None] * head.kernel
    sparse = head._replace(kernel=np.where(contribution > np.percentile(contribution, percentile), head.kernel, 0.0))
    return lambda features, logits: logit_scores.energy(sparse.logits(features))


def open_max(
    training: TrainingFeatures, head: Head | None = None, *, tail: int = 20, shift: float = 1.0, revised: int = 3
) -> Scorer:
    """OpenMax, with centres of all training images that are classified right and tails of those in the sample.

    See `openmax.fit` for `tail` and `shift`, and `openmax.openmax` for `revised`.
    """
    right = training.logits.argmax(axis=1) == training.label
    tails = openmax.fit(training.centre, training.logits[right], training.label[right], tail=tail, shift=shift)
    return lambda features, logits: openmax.openmax(logits, tails, revised=revised)


def kl_matching(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """See `logit_scores.kl_matching`; typical posteriors are of the training images, by predicted class."""
    return lambda features, logits: logit_scores.kl_matching(logits, training.log_typical)


def _of_logits(score):
    return lambda training=None, head=None, **options: lambda features, logits: score(logits, **options)


class Score(NamedTuple):
    """A line of the table.

    Attributes:
      make: (training, head, **options) -> the score.
      fitted: whether it needs the training images; else `training` may be None.
      needs_head: whether it needs the last layer; else `head` may be None.
      moved: whether its logits are those of images that ODIN moved (`openset.odin`); it is given no features.
    """

    make: Callable[..., Scorer]
    fitted: bool
    needs_head: bool
    moved: bool = False


SCORES = {
    "msp": Score(_of_logits(logit_scores.msp), False, False),
    "max_logit": Score(_of_logits(logit_scores.max_logit), False, False),
    "energy": Score(_of_logits(logit_scores.energy), False, False),
    "entropy": Score(_of_logits(logit_scores.entropy), False, False),
    "gen": Score(_of_logits(logit_scores.generalised_entropy), False, False),
    "odin": Score(_of_logits(logit_scores.odin), False, False, moved=True),
    "kl_matching": Score(kl_matching, True, False),
    "openmax": Score(open_max, True, False),
    "mahalanobis": Score(mahalanobis, True, False),
    "relative_mahalanobis": Score(relative_mahalanobis, True, False),
    "knn": Score(knn, True, False),
    "vim": Score(vim, True, True),
    "react": Score(react, True, True),
    "ash": Score(ash, False, True),
    "dice": Score(dice, True, True),
}
