"""Measurements of one arm, on all its test images and on bootstrap resamples of them.

The resamples are a Poisson bootstrap (Hanley and MacGibbon 2006): each image is drawn Poisson(1) times. The draws depend on
the image and the resample only, so all arms are resampled alike.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

from openset_jax.openset.metrics.intervals import cost_range
from openset_jax.study.stats.arm_outcome import Outcome

RESAMPLES, _COLUMNS = 200, 64  # _COLUMNS: means computed in one matrix product
KNOWN = "known"  # the subset of a measurement on known images only

_Key = tuple[str, str | int, str]  # (metric, subset, decision), or (metric, class index, decision) for an intermediate mean


class Measurement(NamedTuple):
    """A metric, the test images that it is measured on, and the decision whose answers it is measured with.

    Attributes:
      metric: without a decision, one of
        "auroc", "oscr": known images against a kind or group;
        "accuracy": on `KNOWN`, among the K classes;
        "one_vs_rest_auc": on `KNOWN`, mean over the K classes; only if there are no test images of "none".
        With a decision, one of
        "recall", "correct": shares of `KNOWN` that are accepted, and accepted as the right class;
        "rejected": share of a kind or group;
        "balanced_accuracy": mean recall of the K classes and a kind; on `KNOWN` if there are no test images of "none";
        "expected_cost": per image, with the known images and a kind in the frequencies of the deployment.
        With one known class there are no "accuracy" and "one_vs_rest_auc", which do not depend on the network, and no "oscr"
        and "correct", which equal "auroc" and "recall".
      subset: a kind, a group, or `KNOWN`.
      decision: a name in `DECISIONS`; "" if the metric needs none.
    """

    metric: str
    subset: str
    decision: str = ""


def poisson_counts(key: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Returns how often each image is drawn, int64 [1 + resamples, n]: once in row 0, Poisson(1) times in the others.

    A count depends only on the image's key, uint64 [n], and the row. So arms agree on the test images that they share.
    """
    rows = np.arange(1, resamples + 1, dtype=np.uint64)[:, None]
    x = np.asarray(key, np.uint64)[None] + rows * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64 (Steele et al. 2014)
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
    counts = np.searchsorted(special.pdtr(np.arange(20), 1.0), uniform, side="right")
    return np.concatenate([np.ones((1, len(key)), np.int64), counts.astype(np.int64)])


def limits(outcome: Outcome, measurement: Measurement) -> tuple[int, float, float]:
    """Returns (images, least, most): the number of images on the smallest side of a measurement, and its possible range.

    The sides are the classes of a mean over classes, and known images and a kind or group for "auroc" and "oscr".
    """
    metric, subset, _ = measurement
    label, of_kind = outcome.scored.label, outcome.kinds.get(subset, [subset])
    known = np.bincount(label[label >= 0], minlength=len(outcome.classes)).tolist()
    sides = known if metric in ("one_vs_rest_auc", "balanced_accuracy", "expected_cost") else [sum(known)]
    if subset != KNOWN:
        others = int((np.isin(outcome.scored.group, of_kind) & (label < 0)).sum())
        sides = [others] if metric == "rejected" else [*sides, others]
    least, most = cost_range(outcome.costs, outcome.deployment) if metric == "expected_cost" else (0.0, 1.0)
    return min(sides), least, most


def measure(outcome: Outcome) -> dict[Measurement, np.ndarray]:
    """Returns every measurement that has images, float64 [1 + RESAMPLES]: on all test images, then on each resample."""
    scored, count = outcome.scored, poisson_counts(outcome.key).astype(np.float64)
    known, k = scored.label >= 0, len(outcome.classes)
    right = known & (scored.known_class == scored.label)
    subsets = {kind: np.isin(scored.group, groups) & ~known for kind, groups in outcome.kinds.items()}
    subsets |= {g: (scored.group == g) & ~known for groups in outcome.kinds.values() for g in groups}
    subsets = {name: images for name, images in subsets.items() if images.any()}
    kinds = [kind for kind in outcome.kinds if kind in subsets]
    classes = [scored.label == i for i in range(k)]
    wanted: dict[_Key, tuple[np.ndarray, np.ndarray]] = {Measurement("accuracy", KNOWN): (right, known)} if k > 1 else {}
    for decision, answer in outcome.decisions.items():
        none = answer == k
        wanted[Measurement("recall", KNOWN, decision)] = (~none, known)
        if k > 1:
            wanted[Measurement("correct", KNOWN, decision)] = (answer == scored.label, known)
        wanted |= {("recall", i, decision): (answer == i, images) for i, images in enumerate(classes)}
        wanted |= {("cost", i, decision): (outcome.costs[i][answer], images) for i, images in enumerate(classes)}
        wanted |= {Measurement("rejected", name, decision): (none, images) for name, images in subsets.items()}
        wanted |= {("cost", kind, decision): (outcome.costs[k][answer], subsets[kind]) for kind in kinds}
    means = _means(count, wanted)
    result = {key: values for key, values in means.items() if isinstance(key, Measurement)}
    for decision in outcome.decisions:
        recalls = [means["recall", i, decision] for i in range(k)]
        known_cost = sum(outcome.deployment[i] * means["cost", i, decision] for i in range(k))
        if not subsets:
            result[Measurement("balanced_accuracy", KNOWN, decision)] = np.mean(recalls, axis=0)
        for kind in kinds:
            rejected = result[Measurement("rejected", kind, decision)]
            result[Measurement("balanced_accuracy", kind, decision)] = np.sum([*recalls, rejected], axis=0) / (k + 1)
            cost = known_cost + outcome.deployment[k] * means["cost", kind, decision]
            result[Measurement("expected_cost", kind, decision)] = cost
    if subsets:
        for name, (auroc, oscr) in _areas(scored.score, count, known, right, subsets).items():
            result |= {Measurement("auroc", name): auroc} | ({Measurement("oscr", name): oscr} if k > 1 else {})
    elif k > 1:
        score = -outcome.probabilities.astype(np.float64)
        each = [_areas(score[:, i], count, images, images, {KNOWN: ~images})[KNOWN][0] for i, images in enumerate(classes)]
        result[Measurement("one_vs_rest_auc", KNOWN)] = np.mean(each, axis=0)
    return result


def _means(count: np.ndarray, wanted: Mapping[_Key, tuple[np.ndarray, np.ndarray]]) -> dict[_Key, np.ndarray]:
    """Returns the mean of values over images, for each row of counts; `wanted` has (values, images), [n] each."""
    names, result = list(wanted), dict[_Key, np.ndarray]()
    for start in range(0, len(names), _COLUMNS):
        some = names[start : start + _COLUMNS]
        images = np.stack([wanted[name][1] for name in some], 1).astype(np.float64)
        totals = count @ images
        sums = count @ (np.stack([wanted[name][0] for name in some], 1) * images)
        result |= {name: _or_first(sums[:, i] / np.maximum(totals[:, i], 1), totals[:, i]) for i, name in enumerate(some)}
    return result


def _areas(
    score: np.ndarray, count: np.ndarray, known: np.ndarray, right: np.ndarray, subsets: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns name -> (AUROC, OSCR) for each row of counts, as defined in `ranking`; sorts once for all names and rows."""
    knowns = np.flatnonzero(known)
    knowns = knowns[np.argsort(score[knowns], kind="stable")]
    others = np.flatnonzero(np.any(list(subsets.values()), axis=0))
    left, right_end = (np.searchsorted(score[knowns], score[others], side) for side in ("left", "right"))
    member = np.stack([images[others] for images in subsets.values()], 1).astype(np.float64)
    total = count[:, others] @ member
    pairs = np.maximum(2 * count[:, knowns].sum(1, keepdims=True) * total, 1)

    def areas(counted):
        below = np.pad(np.cumsum(counted, 1), ((0, 0), (1, 0)))
        halves = (below[:, left] + below[:, right_end]) * count[:, others]  # a tie counts one half
        area = (halves @ member) / pairs
        return [_or_first(area[:, i], total[:, i]) for i in range(len(subsets))]

    auroc = areas(count[:, knowns])
    oscr = auroc if right[knowns].all() else areas(count[:, knowns] * right[knowns])
    return dict(zip(subsets, zip(auroc, oscr, strict=True), strict=True))


def _or_first(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Replaces the value of a resample without images by the value on all images, which is in row 0."""
    return np.where(images > 0, values, values[0])
