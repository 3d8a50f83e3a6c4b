import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.openset.decision import thresholds
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
    costs = thresholds.cost_matrix({"accept_none": 5, "confuse_knowns": 2}, CLASSES)
    prior = np.array([0.2, 0.5, 0.3])
    truth = np.append(truth, np.full(30, 2))
    gains = thresholds.gains(taken_for, truth, costs, prior)
    t = choose(COST, known, negative, known_gain=gains[:40], negative_gain=gains[40:])

    def expected(threshold):
        answer = np.where(np.append(known, negative) <= threshold, taken_for, 2)
        return sum(prior[y] * costs[y, answer[truth == y]].mean() for y in range(3))

    tried = [expected(threshold) for threshold in [-np.inf, *known, *negative]]
    assert expected(t.value) == pytest.approx(min(tried))


def test_where_accepting_never_pays_all_are_rejected():
    known, negative = scores(20, 20)
    t = choose(COST, known, negative, known_gain=np.full(20, 0.1), negative_gain=np.full(20, 0.1))
    assert t.value == -np.inf
    assert (thresholds.decide(np.append(known, negative), np.zeros(40, int), t.value, 2) == 2).all()


@pytest.mark.parametrize(("rule", "side"), [(KEEP, 0), (Rule("accept_negatives", 0.05), 1)])
@pytest.mark.parametrize(("validation", "test"), [(200, 1000), (1000, 300)])
def test_the_promise_holds_in_about_95_of_100_splits(rule, side, validation, test):
    """Whatever the scores are distributed like: here with two modes and heavy tails."""
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


def test_costs():
    costs = thresholds.cost_matrix({"accept_none": 5, "confuse_knowns": 2}, CLASSES)
    assert costs.tolist() == [[0, 2, 1], [2, 0, 1], [5, 5, 0]]
    given = [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
    assert thresholds.cost_matrix(given, CLASSES).tolist() == given
    assert thresholds.cost_matrix(None, CLASSES).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    posterior = np.array([[0.5, 0.3, 0.2]])
    assert thresholds.cheapest_class(posterior, costs) == 0
    assert thresholds.cheapest_class(posterior, np.array([[0, 1, 0], [9, 0, 0], [0, 0, 0]])) == 1
    with pytest.raises(UserError, match=r"shape is \(2, 2\).*must be \(3, 3\).*a, b, none"):
        thresholds.cost_matrix([[0, 1], [1, 0]], CLASSES)
    with pytest.raises(UserError, match="not a table of numbers"):
        thresholds.cost_matrix([[0, 1], [1, 0, 3]], CLASSES)
    with pytest.raises(UserError, match="^decision.costs: 'a' for an image of 'none' costs -1; a cost must be"):
        thresholds.cost_matrix({"accept_none": -1}, CLASSES)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"^--costs: 'none' for an image of 'b' costs {wrong}"):
            thresholds.cost_matrix([[0, 1, 1], [1, 0, wrong], [1, 1, 0]], CLASSES, "--costs")
    with pytest.raises(UserError, match="does not give a number"):
        thresholds.cost_matrix({"accept_none": "x"}, CLASSES)
    far = np.array([[1e-20, 5e-18, 1.0]])
    assert thresholds.cheapest_class(far, thresholds.cost_matrix(None, CLASSES)) == 1, "nothing may round away"
    with pytest.raises(UserError, match="'accept' is not one of accept_none, confuse_knowns, reject_known"):
        thresholds.cost_matrix({"accept": 1}, CLASSES)


def test_priors_and_costs_as_flags_give_them():
    assert thresholds.parse("", "x") is None
    assert thresholds.parse("none=0.3, a=b=0.5", "x") == {"none": 0.3, "a=b": 0.5}
    assert thresholds.parse('{"none": 0.3, "a,b": 0.7}', "x") == {"none": 0.3, "a,b": 0.7}
    assert thresholds.parse("[[0, 1], [1, 0]]", "x") == [[0, 1], [1, 0]]
    for wrong in ("none", "none=", "none=much", "{none: 1}", "=", "a=1,,"):
        with pytest.raises(UserError, match="x: .* neither"):
            thresholds.parse(wrong, "x")
    with pytest.raises(UserError, match="x: 'a=1, a=2' names something twice"):
        thresholds.parse("a=1, a=2", "x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0.3, 0.1, 0.6]),
        ({"none": 0.2}, [0.6, 0.2, 0.2]),
        ({"a": 0.5, "b": 0.25, "none": 0.25}, [0.5, 0.25, 0.25]),
        ({"a": 1.0}, [1.0, 0.0, 0.0]),
    ],
)
def test_the_deployment_prior(given, expected):
    np.testing.assert_allclose(thresholds.deployment_prior(given, CLASSES, np.array([0.3, 0.1, 0.6])), expected)


def test_without_negatives_in_training_all_classes_are_taken_to_come_alike():
    np.testing.assert_allclose(thresholds.deployment_prior(None, CLASSES, np.array([0.5, 0.5, 0])), [1 / 3] * 3)
    np.testing.assert_allclose(
        thresholds.deployment_prior({"none": 0.5}, CLASSES, np.array([0.5, 0.5, 0])), [0.25, 0.25, 0.5]
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"a": 0.5, "c": 0.5}, "no class 'c'; the classes are a, b, none"),
        ({"a": 0.5, "b": 0.5, "none": 0.5}, "sum to 1.5, not to 1"),
        ({"a": 0.1, "b": 0.1, "none": 0.1}, "sum to 0.3, not to 1"),
        ({"a": 0.9, "none": 0.9}, "sum to 1.8, not to 1"),
        ({"none": -0.1}, "none: -0.1 is not between 0 and 1"),
        ({"none": float("nan")}, "none: nan is not between 0 and 1"),
        ({"none": "0.6"}, "does not give a number for each class"),
        ([], "does not give a number for each class"),
    ],
)
def test_priors_that_cannot_be(given, says):
    with pytest.raises(UserError, match=says):
        thresholds.deployment_prior(given, CLASSES, np.array([0.3, 0.1, 0.6]))
