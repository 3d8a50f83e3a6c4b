import numpy as np
import pytest

from openset_jax.errors import UserError
from openset_jax.openset.decision import prior_and_costs

CLASSES = ("a", "b")


def test_costs():
    costs = prior_and_costs.cost_matrix({"accept_none": 5, "confuse_knowns": 2}, CLASSES)
    assert costs.tolist() == [[0, 2, 1], [2, 0, 1], [5, 5, 0]]
    given = [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
    assert prior_and_costs.cost_matrix(given, CLASSES).tolist() == given
    assert prior_and_costs.cost_matrix(None, CLASSES).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    with pytest.raises(UserError, match=r"shape is \(2, 2\).*must be \(3, 3\).*a, b, none"):
        prior_and_costs.cost_matrix([[0, 1], [1, 0]], CLASSES)
    with pytest.raises(UserError, match="not a matrix of numbers"):
        prior_and_costs.cost_matrix([[0, 1], [1, 0, 3]], CLASSES)
    with pytest.raises(UserError, match="^decision.costs: 'a' for an image of 'none' costs -1; a cost must be"):
        prior_and_costs.cost_matrix({"accept_none": -1}, CLASSES)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"^--costs: 'none' for an image of 'b' costs {wrong}"):
            prior_and_costs.cost_matrix([[0, 1, 1], [1, 0, wrong], [1, 1, 0]], CLASSES, "--costs")
    with pytest.raises(UserError, match="every cost must be a number, not {'accept_none': 'x'}"):
        prior_and_costs.cost_matrix({"accept_none": "x"}, CLASSES)
    with pytest.raises(UserError, match="'accept' is not one of accept_none, confuse_knowns, reject_known"):
        prior_and_costs.cost_matrix({"accept": 1}, CLASSES)


@pytest.mark.parametrize("classes", [("a",), CLASSES, ("a", "b", "c")])
@pytest.mark.parametrize("given", [None, {"accept_none": 5}, {"reject_known": 0, "confuse_knowns": 2}])
def test_named_costs_make_the_same_matrix(classes, given):
    costs = prior_and_costs.cost_matrix(given, classes)
    named = prior_and_costs.named_costs(costs)
    assert prior_and_costs.cost_matrix(named, classes).tolist() == costs.tolist()
    if len(classes) > 1:
        costs[0, 1] += 1
        costs[1, 0] += 2
        assert prior_and_costs.named_costs(costs) is None


def test_priors_and_costs_as_flags_give_them():
    assert prior_and_costs.parse("", "x") is None
    assert prior_and_costs.parse("none=0.3, a=b=0.5", "x") == {"none": 0.3, "a=b": 0.5}
    assert prior_and_costs.parse('{"none": 0.3, "a,b": 0.7}', "x") == {"none": 0.3, "a,b": 0.7}
    assert prior_and_costs.parse("[[0, 1], [1, 0]]", "x") == [[0, 1], [1, 0]]
    for wrong in ("none", "none=", "none=much", "{none: 1}", "=", "a=1,,"):
        with pytest.raises(UserError, match="x: .* neither"):
            prior_and_costs.parse(wrong, "x")
    for twice in ("a=1, a=2", '{"a": 1, "a": 2}', '[{"a": 1, "a": 1}]'):
        with pytest.raises(UserError, match="^x: .* has the name 'a' twice"):
            prior_and_costs.parse(twice, "x")
    for deep in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(UserError, match="^x: .* has too many nested brackets$") as error:
            prior_and_costs.parse(deep, "x")
        assert len(str(error.value)) < 300


def test_numbers_of_any_size_and_truth_values():
    for size in (400, 5000):
        with pytest.raises(UserError, match="^x: 'a' for an image of 'none' costs inf"):
            prior_and_costs.cost_matrix(prior_and_costs.parse(f'{{"accept_none": 1{"0" * size}}}', "x"), CLASSES, "x")
    with pytest.raises(UserError, match="^x: every cost must be a number, not {'accept_none': True}"):
        prior_and_costs.cost_matrix(prior_and_costs.parse('{"accept_none": true}', "x"), CLASSES, "x")
    with pytest.raises(UserError, match="^x: every share of a class must be a number"):
        prior_and_costs.deployment_prior(prior_and_costs.parse('{"a": true}', "x"), CLASSES, [0.3, 0.1, 0.6], "x")


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
    np.testing.assert_allclose(prior_and_costs.deployment_prior(given, CLASSES, np.array([0.3, 0.1, 0.6])), expected)


def test_without_negatives_in_training_all_classes_are_taken_to_come_alike():
    np.testing.assert_allclose(prior_and_costs.deployment_prior(None, CLASSES, np.array([0.5, 0.5, 0])), [1 / 3] * 3)
    np.testing.assert_allclose(
        prior_and_costs.deployment_prior({"none": 0.5}, CLASSES, np.array([0.5, 0.5, 0])), [0.25, 0.25, 0.5]
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
        ({"none": "0.6"}, "every share of a class must be a number, not {'none'"),
        ([], "every share of a class must be a number, not "),
    ],
)
def test_priors_that_cannot_be(given, says):
    with pytest.raises(UserError, match=says):
        prior_and_costs.deployment_prior(given, CLASSES, np.array([0.3, 0.1, 0.6]))
