import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from openset_jax.openset.metrics import ranking
from openset_jax.openset.metrics.ranking import rank

# few different values: ties; and infinities
SCORES = st.sampled_from([-np.inf, -2.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 3.0, 1e300, np.inf]) | st.floats(-5, 5)
SIDE = hnp.arrays(np.float64, st.integers(1, 40), elements=SCORES)
CONSTANT = np.zeros(7)


def with_correct(known):
    return np.random.default_rng(len(known)).random(len(known)) < 0.7


def labelled(known, unknown):
    """(is unknown, score) for scikit-learn; the scores are ranks, because scikit-learn needs finite numbers."""
    score = np.concatenate([known, unknown])
    return np.arange(len(score)) >= len(known), np.unique(score, return_inverse=True)[1].astype(float)


def pairs(known, unknown, correct):
    """P(unknown above known and correct) + P(equal and correct) / 2, from all pairs."""
    won = (unknown[None] > known[:, None]) + 0.5 * (unknown[None] == known[:, None])
    return (won * correct[:, None]).mean()


@given(SIDE, SIDE)
def test_auroc_average_precision_and_trapezoid_are_scikit_learns(known, unknown):
    truth, score = labelled(known, unknown)
    ranked = rank(known, unknown)
    exactly = lambda value: pytest.approx(value, abs=1e-12)
    assert ranking.auroc(ranked) == exactly(sklearn.roc_auc_score(truth, score))
    assert ranking.average_precision(ranked) == exactly(sklearn.average_precision_score(truth, score))
    assert ranking.average_precision(ranked.swapped()) == exactly(sklearn.average_precision_score(~truth, -score))
    precision, recall, _ = sklearn.precision_recall_curve(truth, score)
    assert ranking.aupr_trapezoid(ranked) == exactly(sklearn.auc(recall, precision))
    weight = np.where(truth, 1 / len(unknown), 1 / len(known))
    balanced = sklearn.average_precision_score(truth, score, sample_weight=weight)
    assert ranking.average_precision_balanced(ranked) == exactly(balanced)


@given(SIDE, SIDE)
def test_both_error_rates_at_95_percent_recall_are_those_of_scikit_learns_curve(known, unknown):
    truth, score = labelled(known, unknown)
    ranked = rank(known, unknown)
    for positive, sign, ours in ((~truth, -1, ranking.unknowns_accepted), (truth, 1, ranking.knowns_rejected)):
        fpr, tpr, _ = sklearn.roc_curve(positive, sign * score, drop_intermediate=False)
        assert ours(ranked) == fpr[np.argmax(tpr >= 0.95)]


@given(SIDE, SIDE)
def test_areas_are_shares_of_pairs(known, unknown):
    correct = with_correct(known)
    ranked = rank(known, unknown, correct)
    assert ranking.auroc(ranked) == pytest.approx(pairs(known, unknown, np.ones(len(known))), abs=1e-12)
    assert ranking.oscr(ranked) == pytest.approx(pairs(known, unknown, correct), abs=1e-12)
    accepted, _, right = ranking.curve(ranked)
    assert ranking.oscr(ranked) == pytest.approx(np.trapezoid(right, accepted), abs=1e-12)


@given(SIDE, SIDE)
def test_oscr_is_open_auc(known, unknown):
    """The authors' computation: the AUROC after knowns of the wrong class get a score above all others."""
    correct = with_correct(known)
    as_ranks = np.unique(np.concatenate([known, unknown]), return_inverse=True)[1]
    known, unknown = as_ranks[: len(known)], as_ranks[len(known) :]
    moved = np.where(correct, known, as_ranks.max() + 1)
    truth = np.arange(len(as_ranks)) >= len(known)
    expected = sklearn.roc_auc_score(truth, np.concatenate([moved, unknown]))
    assert ranking.oscr(rank(known, unknown, correct)) == pytest.approx(expected, abs=1e-12)


@given(SIDE, SIDE, st.sampled_from([0.05, 0.1, 0.25, 0.5, 1.0]))
def test_the_rest_by_trying_every_threshold(known, unknown, fpr):
    correct = with_correct(known)
    ranked = rank(known, unknown, correct)
    error, ccr = [], []
    for accepted_known, accepted_unknown in [
        (np.zeros(len(known), bool), np.zeros(len(unknown), bool)),
        *((known <= t, unknown <= t) for t in [*known, *unknown]),
    ]:
        error.append((np.mean(~accepted_known) + np.mean(accepted_unknown)) / 2)
        if np.mean(accepted_unknown) <= fpr:
            ccr.append(np.mean(accepted_known & correct))
    assert ranking.detection_error(ranked) == pytest.approx(min(error), abs=1e-12)
    if fpr * len(unknown) >= 1:
        assert ranking.ccr_at_fpr(ranked, fpr) == pytest.approx(max(ccr), abs=1e-12)


@given(SIDE, SIDE)
def test_the_risk_coverage_area_is_the_mean_over_random_orders_of_ties(known, unknown):
    correct = with_correct(known)
    score, wrong = np.concatenate([known, unknown]), np.concatenate([~correct, np.ones(len(unknown), bool)])
    # on average, each image of a tie group has the group's share of errors
    share = np.array([wrong[score == s].mean() for s in score])[np.argsort(score)]
    risk = np.cumsum(share) / np.arange(1, len(share) + 1)
    assert ranking.aurc(rank(known, unknown, correct)) == pytest.approx(risk.mean(), abs=1e-9)


def test_auroc_equals_scikit_learn_on_many_scores():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(0, 1, 3000).round(2), rng.normal(1, 2, 1000).round(2)
    truth, score = labelled(known, unknown)
    assert ranking.auroc(rank(known, unknown)) == pytest.approx(sklearn.roc_auc_score(truth, score), abs=1e-12)


def test_unknowns_are_the_positive_side():
    assert ranking.auroc(rank(np.array([0.0]), np.array([1.0]))) == 1
    assert ranking.auroc(rank(np.array([1.0]), np.array([0.0]))) == 0
    assert ranking.auroc(rank(np.ones(7), np.ones(3))) == 0.5


def test_a_constant_score_is_worth_nothing_and_says_so():
    ranked = rank(CONSTANT, CONSTANT, CONSTANT == 0)
    assert ranking.auroc(ranked) == ranking.oscr(ranked) == ranking.detection_error(ranked) == 0.5
    assert ranking.average_precision(ranked) == 0.5
    assert ranking.aupr_trapezoid(ranked) == 0.75, "the trapezoid flatters"
    assert ranking.unknowns_accepted(ranked) == ranking.knowns_rejected(ranked) == 1


def test_perfect_scores():
    ranked = rank(np.array([0.0, -np.inf]), np.array([np.inf, 1.0, 2.0]))
    assert ranking.auroc(ranked) == ranking.average_precision(ranked) == ranking.oscr(ranked) == 1
    assert ranking.unknowns_accepted(ranked) == ranking.knowns_rejected(ranked) == ranking.detection_error(ranked) == 0


def test_wrong_classes_lower_oscr_and_not_auroc():
    known, unknown = np.array([0.0, 1.0]), np.array([2.0, 3.0])
    ranked = rank(known, unknown, np.array([True, False]))
    assert (ranking.auroc(ranked), ranking.oscr(ranked)) == (1.0, 0.5)


@given(SIDE, SIDE)
def test_a_ranking_of_resamples_is_each_of_them(known, unknown):
    ranked = rank(known, unknown, with_correct(known))
    rng = np.random.default_rng(0)
    drawn = [rng.permuted(counts) for counts in (ranked.known, ranked.unknown)]
    both = ranking.Ranking(
        ranked.score,
        np.stack([ranked.known, drawn[0]]),
        np.stack([ranked.correct, drawn[0] // 2]),
        np.stack([ranked.unknown, drawn[1]]),
    )
    for metric in (
        ranking.auroc, ranking.oscr, ranking.average_precision, ranking.average_precision_balanced, ranking.aupr_trapezoid,
        ranking.unknowns_accepted, ranking.knowns_rejected, ranking.detection_error, ranking.aurc,
        lambda r: ranking.ccr_at_fpr(r, 1.0),
    ):  # fmt: skip
        values = metric(both)
        for i in range(2):
            one = ranking.Ranking(ranked.score, both.known[i], both.correct[i], both.unknown[i])
            assert values[i] == pytest.approx(float(metric(one)), abs=1e-12)


@pytest.mark.parametrize("side", ["known", "unknown"])
def test_what_cannot_be_ranked_is_named(side):
    sides = {"known": np.zeros(3), "unknown": np.zeros(2)}
    with pytest.raises(ValueError, match=f"there is no {side} score"):
        rank(**{f"{k}_score": v[:0] if k == side else v for k, v in sides.items()})
    sides[side][1] = np.nan
    with pytest.raises(ValueError, match=f"{side} score 1 of {len(sides[side])} is NaN"):
        rank(**{f"{k}_score": v for k, v in sides.items()})


def test_a_rate_that_the_unknowns_are_too_few_for_is_refused_with_the_reason():
    ranked = rank(np.zeros(5), np.arange(999.0))
    with pytest.raises(ValueError, match="a rate of 0.001 needs at least 1,000 unknowns; there are 999"):
        ranking.ccr_at_fpr(ranked, 1e-3)
    assert ranking.ccr_at_fpr(rank(np.full(5, -1.0), np.arange(1000.0)), 1e-3) == 1
