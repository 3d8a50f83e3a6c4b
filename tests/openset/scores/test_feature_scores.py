"""All scores against recorded values of peers, against their definitions, and for extreme inputs."""

import numpy as np
import peer_scores
import pytest
from scipy.special import expit, logsumexp

from openset_jax.openset.scores import feature_scores
from openset_jax.openset.scores.feature_scores import SCORES, Head
from openset_jax.openset.scores.training_features import Accumulator

PROBLEM = peer_scores.problem()
HEAD = Head(PROBLEM.kernel, PROBLEM.bias)
SMALL = {"knn": {"k": 5}}  # the problem has few images


def fitted(size=37, *, features=PROBLEM.features, logits=PROBLEM.logits, label=PROBLEM.label, **options):
    accumulator = Accumulator(logits.shape[1], **options)
    for i in range(0, len(label), size):
        accumulator.update(features[i : i + size], logits[i : i + size], label[i : i + size])
    return accumulator.finish()


TRAINING = fitted()

# A strictly increasing function from our score to the peer's. pytorch-ood's Mahalanobis: half, and divided by n - 1.
TURNED = {
    "msp": lambda score: -expit(-score),
    "openmax": expit,
    ("knn", peer_scores.OPENOOD): np.square,
    ("mahalanobis", peer_scores.PYTORCH_OOD): lambda score: score / 2 * 159 / 160,
}


@pytest.mark.parametrize("recorded", peer_scores.RECORDED, ids=lambda r: f"{r.score}-{r.function}")
def test_scores_are_the_peers(recorded):
    ours = SCORES[recorded.score].make(TRAINING, HEAD, **recorded.options)(PROBLEM.test_features, PROBLEM.test_logits)
    ours = TURNED.get(recorded.score, TURNED.get((recorded.score, recorded.repository), lambda score: score))(ours)
    agrees = np.isclose(ours, recorded.values, rtol=1e-4, atol=1e-5)
    if recorded.function == "RMD.predict_features":
        assert not agrees.any()  # it does not divide the second covariance by the number of images
        class_distance = SCORES["mahalanobis"].make(TRAINING)(PROBLEM.test_features, PROBLEM.test_logits)
        whole = class_distance - SCORES["relative_mahalanobis"].make(TRAINING)(PROBLEM.test_features, PROBLEM.test_logits)
        np.testing.assert_allclose(class_distance * 159 / 160 - whole / 160, recorded.values, rtol=1e-4)
    elif recorded.function == "KLMatching.predict_features":
        # it uses the predicted class, which is not the nearest one for the first image
        assert agrees[1:].all() and ours[0] < recorded.values[0] - 0.01
    else:
        assert agrees.all()


def brute_force(name, x, z):
    """The score of one image with features x and logits z by its definition, from all training images."""
    features, label = PROBLEM.features.astype(np.float64), PROBLEM.label
    kernel, bias = PROBLEM.kernel.astype(np.float64), PROBLEM.bias
    means = np.array([features[label == k].mean(0) for k in range(4)])
    energy = lambda x, kernel=kernel: -logsumexp(x @ kernel + bias)
    within = np.cov((features - means[label]).T, bias=True)
    distances = [(x - m) @ np.linalg.inv(within) @ (x - m) for m in means]
    if name == "mahalanobis":
        return min(distances)
    if name == "relative_mahalanobis":
        centred = x - features.mean(0)
        return min(distances) - centred @ np.linalg.inv(np.cov(features.T, bias=True)) @ centred
    if name == "knn":
        unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)
        return np.sort(np.linalg.norm(unit(features) - unit(x), axis=1))[4]
    if name == "vim":
        origin = np.linalg.lstsq(kernel.T, -bias, rcond=None)[0]
        _, _, directions = np.linalg.svd(features - origin)  # the first 6 of 12 are the principal ones
        outside = lambda a: np.linalg.norm((a - origin) @ directions[6:].T, axis=-1)
        alpha = PROBLEM.logits.max(1).mean() / outside(features).mean()
        return alpha * outside(x) + energy(x)
    if name == "react":
        return energy(np.minimum(x, np.percentile(features, 90)))
    if name == "dice":
        contribution = (kernel * features.mean(0)[:, None]).ravel()
        smallest_kept = np.sort(contribution)[-5]  # the tenth part of 48, rounded up
        return energy(x, np.where(kernel * features.mean(0)[:, None] >= smallest_kept, kernel, 0))
    assert name == "ash"
    kept = x == x.max()  # the tenth part of 12
    return energy(np.where(kept, x * np.exp(x.sum() / x.max()), 0))


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis", "knn", "vim", "react", "dice", "ash"])
def test_scores_are_their_definitions(name):
    ours = SCORES[name].make(TRAINING, HEAD, **SMALL.get(name, {}))(PROBLEM.test_features, PROBLEM.test_logits)
    images = zip(PROBLEM.test_features.astype(np.float64), PROBLEM.test_logits, strict=True)
    np.testing.assert_allclose(ours, [brute_force(name, x, z) for x, z in images], rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_the_table_says_what_a_score_needs(name):
    score = SCORES[name]
    made = score.make(TRAINING if score.fitted else None, HEAD if score.needs_head else None, **SMALL.get(name, {}))
    values = made(PROBLEM.test_features, PROBLEM.test_logits)
    assert values.shape == (8,) and values.dtype == np.float64
    for i in range(8):  # one image at a time
        one = made(PROBLEM.test_features[i : i + 1], PROBLEM.test_logits[i : i + 1])
        np.testing.assert_allclose(one[0], values[i], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cap", [100, 1000])
@pytest.mark.parametrize("size", [1, 160])
def test_batches_of_any_size_give_the_same_scores(size, cap):
    one, other = fitted(cap=cap), fitted(size, cap=cap)
    for name, score in SCORES.items():
        values = [
            score.make(training, HEAD, **SMALL.get(name, {}))(PROBLEM.test_features, PROBLEM.test_logits)
            for training in (one, other)
        ]
        np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("name", [n for n in SCORES if n not in ("max_logit", "energy", "react", "dice", "ash")])
def test_a_score_is_larger_for_images_of_nothing(name):
    """Features between the classes, or far from all classes."""
    made = SCORES[name].make(TRAINING, HEAD, **SMALL.get(name, {}))
    far = np.tile([3.0, 0.0], 6)[None] * np.array([[1.0], [1.2]])
    if name in ("msp", "entropy", "gen", "kl_matching", "odin"):
        far = np.tile(PROBLEM.features.mean(0), (2, 1))  # logits that do not prefer a class
        logits = np.tile([[1.0, 1.0, 1.0, 1.0]], (2, 1))
    else:
        logits = HEAD.logits(far)
    known = made(PROBLEM.features, PROBLEM.logits)
    assert made(far, logits).min() > np.median(known)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_extreme_features_and_logits_stay_finite(name, size):
    """For units of training images, test images or both; and for an image whose features are all 0."""
    features, logits = (size * PROBLEM.features, size * PROBLEM.logits)
    training = fitted(features=features, logits=logits)
    made = SCORES[name].make(training, HEAD, **SMALL.get(name, {}))
    for scale in (0.0, 1.0, 1e4):
        x = scale * PROBLEM.test_features
        assert np.isfinite(made(x, HEAD.logits(x))).all()
        assert np.isfinite(made(x, scale * PROBLEM.test_logits)).all()


@pytest.mark.parametrize("name", [n for n in SCORES if n != "dice"])  # its percentile depends on the number of weights
def test_units_that_are_never_on_change_nothing(name):
    """The covariance is singular, as it is with fewer images than features."""
    wide = lambda x: np.concatenate([x, np.zeros_like(x[:, :3])], axis=1)
    head = Head(np.concatenate([PROBLEM.kernel, np.zeros((3, 4))]), PROBLEM.bias)
    options = {**SMALL, "ash": {"percentile": 0}, "react": {"percentile": 100}}.get(
        name, {}
    )  # their percentiles depend on the number of features
    plain = SCORES[name].make(TRAINING, HEAD, **options)(PROBLEM.test_features, PROBLEM.test_logits)
    training = fitted(features=wide(PROBLEM.features))
    dead = SCORES[name].make(training, head, **options)(wide(PROBLEM.test_features), PROBLEM.test_logits)
    np.testing.assert_allclose(dead, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis", "vim"])
def test_fewer_images_than_features_are_enough(name):
    few = fitted(features=PROBLEM.features[:9], logits=PROBLEM.logits[:9], label=PROBLEM.label[:9])
    assert np.isfinite(SCORES[name].make(few, HEAD)(PROBLEM.test_features, PROBLEM.test_logits)).all()


def test_training_images_of_one_direction_count_in_it_alone():
    line = np.linspace(-1, 1, 8)[:, None] * [3.0, 4.0]
    training = fitted(features=line, logits=np.zeros((8, 2)), label=np.arange(8) % 2)
    made = feature_scores.mahalanobis(training)
    along, across = made(np.array([[3.0, 4.0], [4.0, -3.0]]), np.zeros((2, 2)))
    assert along > 1 and across < 0.1  # from the nearer class's mean, which is not the origin


def test_what_is_wrong_is_said():
    few = fitted(cap=7)
    assert len(few.features) == 7
    for k in (0, 8):
        with pytest.raises(ValueError, match=f"from 1 to the 7 stored training images, not {k}"):
            feature_scores.knn(few, k=k)
    for dim in (-1, 12):
        with pytest.raises(ValueError, match=rf"dim must be in \[0, 12\), .* not {dim}"):
            feature_scores.vim(TRAINING, HEAD, dim=dim)
    for options in ({"variant": "x"}, {"percentile": 100}):
        with pytest.raises(ValueError, match="ASH has variants p, b and s"):
            feature_scores.ash(None, HEAD, **options)
    wrong = fitted(logits=np.roll(PROBLEM.logits, 1, axis=1) - 1e3 * np.eye(4)[PROBLEM.label])
    with pytest.raises(ValueError, match="OpenMax needs two correctly classified training images"):
        feature_scores.open_max(wrong)
    same = fitted(features=np.ones_like(PROBLEM.features))
    for name in ("mahalanobis", "relative_mahalanobis"):
        with pytest.raises(ValueError, match="do not vary"):
            SCORES[name].make(same)


@pytest.mark.parametrize("name", SCORES)
def test_the_table_says_which_scores_one_known_class_has(name):
    """Images with a lower logit, or features far away, are more unknown; a score that does not say so is marked."""
    own, head = PROBLEM.label == 0, Head(HEAD.kernel[:, :1], HEAD.bias[:1])
    features = PROBLEM.features[own].astype(np.float64)
    training = fitted(features=features, logits=head.logits(features), label=PROBLEM.label[own])
    far = np.maximum(features.mean(0) - 40 * HEAD.kernel[:, 0], 0)[None] * [[1.0], [1.2]]  # a logit far below 0
    try:
        made = SCORES[name].make(training, head, **SMALL.get(name, {}))
        near, away = made(features, head.logits(features)), made(far, head.logits(far))
    except ValueError:
        ranks = False
    else:
        ranks = away.min() > np.median(near) + 1e-6
    assert ranks == (not SCORES[name].one_class)
