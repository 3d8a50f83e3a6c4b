import numpy as np
import pytest
from scipy import stats

from openset_jax.errors import UserError
from openset_jax.openset.decision import prior_and_costs, thresholds
from openset_jax.openset.decision.thresholds import Rule, choose

CLASSES = ("a", "b")
KEEP, ACCEPT, COST = Rule("keep_knowns", 0.95), Rule("accept_negatives", 0.01), Rule("least_cost", None)


def scores(m, n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, m), rng.normal(3, 1, n)


@pytest.mark.parametrize("m", [1, 7, 20, 100, 1001])
@pytest.mark.parametrize("decimals", [None, 0])
def test_keeping_knowns_is_the_smallest_threshold_that_keeps_enough(m, decimals):
    known, negative = scores(m, 50)
    known = known if decimals is None else known.round(decimals)
    t = choose(KEEP, known, negative)
    assert np.mean(known <= t.value) >= 0.95
    assert np.mean(known < t.value) < 0.95
    assert t.kept == (known <= t.value).sum()
    assert t.low <= t.value <= t.high


@pytest.mark.parametrize("n", [100, 150, 1000])
@pytest.mark.parametrize("decimals", [None, 0])
def test_accepting_negatives_is_the_largest_threshold_that_accepts_few_enough(n, decimals):
    known, negative = scores(50, n)
    negative = negative if decimals is None else negative.round(decimals)
    t = choose(ACCEPT, known, negative)
    assert np.mean(negative <= t.value) <= 0.01
    assert np.mean(negative <= np.nextafter(t.value, np.inf)) > 0.01
    assert choose(Rule("accept_negatives", 1.0), known, negative).value == negative.max()


@pytest.mark.parametrize("seed", range(5))
def test_the_least_cost_is_that_of_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    known, negative = rng.normal(0, 1, 40).round(1), rng.normal(1, 1, 30).round(1)
    truth, taken_for = rng.integers(0, 2, 40), rng.integers(0, 2, 70)
    costs = prior_and_costs.cost_matrix({"accept_none": 5, "confuse_knowns": 2}, CLASSES)
    prior = np.array([0.2, 0.5, 0.3])
    truth = np.append(truth, np.full(30, 2))
    cost = thresholds.acceptance_costs(taken_for, truth, costs, prior)
    t = choose(COST, known, negative, known_cost=cost[:40], negative_cost=cost[40:])

    def expected(threshold):
        answer = np.where(np.append(known, negative) <= threshold, taken_for, 2)
        return sum(prior[y] * costs[y, answer[truth == y]].mean() for y in range(3))

    tried = [expected(threshold) for threshold in [-np.inf, *known, *negative]]
    assert expected(t.value) == pytest.approx(min(tried))


def test_where_accepting_never_pays_all_are_rejected():
    known, negative = scores(20, 20)
    t = choose(COST, known, negative, known_cost=np.full(20, 0.1), negative_cost=np.full(20, 0.1))
    assert t.value == -np.inf
    assert (thresholds.decide(np.append(known, negative), np.zeros(40, int), t.value, 2) == 2).all()


@pytest.mark.parametrize(("rule", "side"), [(KEEP, 0), (Rule("accept_negatives", 0.05), 1)])
@pytest.mark.parametrize(("validation", "test"), [(200, 1000), (1000, 300)])
def test_the_promise_holds_in_about_95_of_100_splits(rule, side, validation, test):
    """For any distribution of the scores; this one has two modes and heavy tails."""
    rng, kept = np.random.default_rng(0), 0
    draw = lambda n: np.where(rng.random(n) < 0.3, rng.standard_cauchy(n), rng.normal(4, 0.1, n))
    for _ in range(400):
        samples = [draw(validation), draw(validation)]
        t = choose(rule, *samples, seed=0) if _ < 3 else _without_bootstrap(rule, *samples)
        promised = thresholds.promise(rule, t, test)
        assert promised.low <= promised.value <= promised.high
        kept += promised.low <= np.mean(draw(test) <= t.value) <= promised.high
    assert 0.92 <= kept / 400 <= 0.99


def _without_bootstrap(rule, known, negative):
    pick = thresholds._order_statistic if rule.name == "keep_knowns" else thresholds._just_below
    side = known if rule.name == "keep_knowns" else negative
    value = pick(side, rule.target)
    return thresholds.Threshold(value, value, value, len(known), len(negative), int((side <= value).sum()))


def test_the_largest_of_n_scores_is_above_n_of_n_plus_1_others_and_not_above_all():
    t = choose(Rule("accept_negatives", 1.0), *scores(30, 20), resamples=0)
    promised = thresholds.promise(Rule("accept_negatives", 1.0), t, 1000)
    assert promised.value == pytest.approx(20 / 21) and promised.low < 0.95 and promised.high == pytest.approx(1, abs=0.01)
    exact = stats.beta(20, 1).ppf(0.025)  # of the share of all others
    assert promised.low == pytest.approx(exact, abs=0.01)


def test_the_least_cost_promises_no_share():
    t = thresholds.Threshold(0.0, 0.0, 0.0, 10, 10, None)
    assert thresholds.promise(COST, t, 100) is None
    assert thresholds.promise(KEEP, thresholds.Threshold(0.0, 0.0, 0.0, 10, 0, 10), 0) is None


@pytest.mark.parametrize(
    ("rule", "m", "n", "says"),
    [
        (Rule("keep_all", 1.0), 5, 5, r"decision\.rule: 'keep_all' is not one of keep_knowns"),
        (KEEP, 0, 5, "no known images"),
        (ACCEPT, 5, 0, "accept_negatives needs negatives in the validation split"),
        (COST, 5, 0, "least_cost needs negatives"),
        (ACCEPT, 5, 99, "needs at least 100 negatives in the validation split; there are 99"),
    ],
)
def test_too_few_images_for_a_rule(rule, m, n, says):
    with pytest.raises(UserError, match=says):
        choose(rule, *scores(m, n))


def test_the_class_of_least_expected_cost():
    costs = prior_and_costs.cost_matrix({"accept_none": 5, "confuse_knowns": 2}, CLASSES)
    posterior = np.array([[0.5, 0.3, 0.2]])
    assert thresholds.cheapest_class(posterior, costs) == 0
    assert thresholds.cheapest_class(posterior, np.array([[0, 1, 0], [9, 0, 0], [0, 0, 0]])) == 1
    far = np.array([[1e-20, 5e-18, 1.0]])
    assert thresholds.cheapest_class(far, prior_and_costs.cost_matrix(None, CLASSES)) == 1, "nothing may round away"
