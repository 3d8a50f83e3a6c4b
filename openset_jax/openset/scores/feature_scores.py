"""Open-set scores from features and logits, and the table of all post-hoc scores of a trained network.

Each function makes a `Scorer` from the statistics of the training images (`training_features`) and the last layer. A scorer
maps features [n, F] and logits [n, K] to float64 [n], **larger = more unknown**. `SCORES` is the table of all scores, with
those of `logit_scores`; adding a score is one function and one line.

For a network with K + 1 outputs, the logits and the last layer are those of the K known classes. Features are the inputs of
the last layer; ASH needs features of at least 0 (after a ReLU).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial import distance
from sklearn.neighbors import NearestNeighbors

from openset_jax.openset.scores import logit_scores, openmax
from openset_jax.openset.scores.training_features import LEAST, TrainingFeatures
from openset_jax.openset.scores.unavailable import ScoreUnavailable

_CHUNK = 1024  # rows held in float64 at once

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (features [n, F], logits [n, K]) -> float64 [n]


class Head(NamedTuple):
    """The last layer: logits = features @ kernel + bias, with a kernel [F, K] and a bias [K]."""

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns the logits, float64 [n, K], of features [n, F]."""
        return np.asarray(features, np.float64) @ np.asarray(self.kernel, np.float64) + self.bias


def mahalanobis(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """Makes the squared Mahalanobis distance to the nearest class mean, with the covariance within classes.

    Lee et al. 2018, arXiv 1807.03888, equation 2, without their input perturbation. The covariance is divided by the number
    n of images, as in OpenOOD, and inverted in the directions with variance in the training images. pytorch-ood divides by
    n - 1, adds 1e-6 to the variances, and halves the distance.

    Raises:
      ScoreUnavailable: the training features do not vary within the classes.
    """
    to_class = _squared_distance(training.whitening_within, training.mean, training.class_mean)
    return lambda features, logits: to_class(features).min(axis=1)


def relative_mahalanobis(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """Makes `mahalanobis` minus the squared distance to the mean of all images, with the covariance of all images.

    Ren et al. 2021, arXiv 2106.09022, section 2. As in OpenOOD; pytorch-ood does not divide the second covariance by the
    number of images, so that the second term almost vanishes.

    Raises:
      ScoreUnavailable: the training features do not vary within the classes.
    """
    to_class = mahalanobis(training)
    to_all = _squared_distance(training.whitening_total, training.mean, training.mean[None])
    return lambda features, logits: to_class(features, logits) - to_all(features)[:, 0]


def _squared_distance(whitening, origin, centres):
    whitened = lambda x: (np.asarray(x, np.float64) - origin) @ whitening
    centres = whitened(centres)
    return lambda features: distance.cdist(whitened(features), centres, "sqeuclidean")


def knn(training: TrainingFeatures, head: Head | None = None, *, k: int = 50) -> Scorer:
    """Makes the distance of the normalised features to their k-th nearest neighbour in the training sample.

    Sun et al. 2022, arXiv 2204.06507. In [0, 2]; OpenOOD squares it, pytorch-ood does not normalise. Features that are all 0
    have the distance 1 to all images; it is NaN in OpenOOD. The paper has k = 50 for 50,000 images; scale k with the number
    of stored images.

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
    """Makes ViM: a virtual logit for the residual of the features outside their principal subspace, plus the energy.

    Wang et al. 2022, arXiv 2203.10807, section 4: alpha |residual| + energy, where alpha makes the mean of alpha |residual|
    over the training sample equal to the mean largest logit of all training images. The logistic function of the score is
    the probability of the virtual logit. pytorch-ood clips the logits of the energy at 100, so that confident images tie.

    Args:
      dim: dimension of the principal subspace. None: 1000 if the rank r of the training features is above 1500, else
        min(512, r // 2); the authors' values, limited to half of the rank (OpenOOD: 256 of 512).

    Raises:
      ScoreUnavailable: the training features do not vary.
      ValueError: dim is below 0, or not below the rank of the training features.
    """
    kernel, bias = np.asarray(head.kernel, np.float64), np.asarray(head.bias, np.float64)
    origin = -np.linalg.pinv(kernel.T) @ bias
    offset = training.mean - origin
    values, vectors = linalg.eigh(training.covariance + np.outer(offset, offset))  # ascending
    rank = int((values > LEAST * values.sum()).sum())
    if not rank:
        raise ScoreUnavailable("the training features do not vary: they have no principal subspace")
    if dim is None:
        dim = 1000 if rank > 1500 else min(512, rank // 2)
    if not 0 <= dim < rank:
        raise ValueError(f"dim must be in [0, {rank}), below the rank of the training features, not {dim}")
    rest = vectors[:, : len(values) - dim]
    residual = lambda x: np.linalg.norm((np.asarray(x, np.float64) - origin) @ rest, axis=1)
    chunks = [training.features[i : i + _CHUNK] for i in range(0, len(training.features), _CHUNK)]
    alpha = training.max_logit / np.concatenate([residual(chunk) for chunk in chunks]).mean()
    return lambda features, logits: alpha * residual(features) + logit_scores.energy(logits)


def react(training: TrainingFeatures, head: Head, *, percentile: float = 90) -> Scorer:
    """Makes ReAct: the energy of features clipped at a percentile of those of the training sample.

    Sun, Guo and Li 2021, arXiv 2111.12797.
    """
    cut = float(np.percentile(training.features, percentile))
    return lambda features, logits: logit_scores.energy(head.logits(np.minimum(features, cut)))


def ash(training: TrainingFeatures | None, head: Head, *, percentile: float = 90, variant: str = "s") -> Scorer:
    """Makes ASH: the energy from the largest features of each image alone (Djurisic et al. 2023, arXiv 2209.09858).

    Args:
      percentile: share of each image's features that are set to 0.
      variant: of the kept features: "p", unchanged; "b", all equal, with the sum of all features; "s", multiplied by
        exp(sum of all features / sum of the kept features).

    Raises:
      ValueError: the variant is unknown, or the percentile is not in [0, 100).
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
        # for features of at least 0 the ratio is in [1, width / kept], or 0 / 0 = 1
        ratio = np.divide(before, after, out=np.ones_like(after), where=after > 0)
        return features * mask * np.exp(np.clip(ratio, 1, width / kept))

    return lambda features, logits: logit_scores.energy(head.logits(shaped(features)))


def dice(training: TrainingFeatures, head: Head, *, percentile: float = 90) -> Scorer:
    """Makes DICE: the energy from only those weights with the largest contribution, weight times mean feature.

    Sun and Li 2022, arXiv 2111.09805. The percentile is the share of the weights that are set to 0.
    """
    contribution = training.mean[:, None] * head.kernel
    sparse = head._replace(kernel=np.where(contribution > np.percentile(contribution, percentile), head.kernel, 0.0))
    return lambda features, logits: logit_scores.energy(sparse.logits(features))


def open_max(
    training: TrainingFeatures, head: Head | None = None, *, tail: int = 20, shift: float = 1.0, revised: int = 3
) -> Scorer:
    """Makes OpenMax, with centres from all correctly classified training images, and tails from those in the sample.

    See `openmax.fit` for `tail` and `shift`, and `openmax.openmax` for `revised`.
    """
    right = training.logits.argmax(axis=1) == training.label
    correct = training.logits[right], training.label[right]
    tails = openmax.fit(training.centre, *correct, tail=tail, shift=shift, names=training.names)
    return lambda features, logits: openmax.openmax(logits, tails, revised=revised)


def kl_matching(training: TrainingFeatures, head: Head | None = None) -> Scorer:
    """Makes `logit_scores.kl_matching` with the typical posteriors of the training images, by predicted class."""
    return lambda features, logits: logit_scores.kl_matching(logits, training.log_typical)


def _of_logits(score):
    return lambda training=None, head=None, **options: lambda features, logits: score(logits, **options)


class Score(NamedTuple):
    """A row of the table of scores.

    Attributes:
      make: (training, head, **options) -> the scorer.
      fitted: whether the score needs training images; if False, `training` may be None.
      needs_head: whether the score needs the last layer; if False, `head` may be None.
      moved: whether the logits must be those of images that ODIN perturbed (`eval_program.perturbed_logits`).
      one_class: why the score cannot rank images if there is one known class; "" if it can.
    """

    make: Callable[..., Scorer]
    fitted: bool
    needs_head: bool
    moved: bool = False
    one_class: str = ""


_CERTAIN = "with one known class its softmax probability is 1 for every image"
_SAME = "with one known class the distances to its mean and to the mean of all training images are equal"
_ONE_LOGIT = "with one known class there is one logit, and OpenMax accepts images whose logit is far below 0"

SCORES: dict[str, Score] = {
    "msp": Score(_of_logits(logit_scores.msp), False, False, one_class=_CERTAIN),
    "max_logit": Score(_of_logits(logit_scores.max_logit), False, False),
    "energy": Score(_of_logits(logit_scores.energy), False, False),
    "entropy": Score(_of_logits(logit_scores.entropy), False, False, one_class=_CERTAIN),
    "gen": Score(_of_logits(logit_scores.generalised_entropy), False, False, one_class=_CERTAIN),
    "odin": Score(_of_logits(logit_scores.odin), False, False, moved=True, one_class=_CERTAIN),
    "kl_matching": Score(kl_matching, True, False, one_class=_CERTAIN),
    "openmax": Score(open_max, True, False, one_class=_ONE_LOGIT),
    "mahalanobis": Score(mahalanobis, True, False),
    "relative_mahalanobis": Score(relative_mahalanobis, True, False, one_class=_SAME),
    "knn": Score(knn, True, False),
    "vim": Score(vim, True, True),
    "react": Score(react, True, True),
    "ash": Score(ash, False, True),
    "dice": Score(dice, True, True),
}
