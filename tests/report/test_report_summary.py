"""The sentences follow from the numbers: opposite numbers, opposite sentences."""

import pytest

from openset_jax.report.summary import summary


def number(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high}


def result(
    *,
    objective="background",
    recall=0.95,
    accuracy=0.9,
    seen=0.99,
    unseen=0.4,
    rule="keep_knowns",
    promised=(0.93, 0.97),
    scores=None,
):
    optional = lambda value: None if value is None else number(value)
    return {
        "objective": objective,
        "operating_point": {
            "rule": rule,
            "promised": promised and number(0.95, *promised),
            "known_recall": optional(recall),
            "known_accuracy": optional(accuracy),
            "prior": {"a": 0.3, "b": 0.3, "none": 0.4},
            "rejected": {"seen_negatives": optional(seen), "unseen_unknowns": optional(unseen)},
        },
        "scores": scores,
    }


def score(*, seen=None, unseen=None):
    """(value, low, high) of each."""
    cell = lambda given: given and {"auroc": number(*given)}
    return {"seen_negatives": cell(seen), "unseen_unknowns": cell(unseen)}


def test_there_are_three_and_they_hold_the_numbers():
    knowns, none, last = summary(result())
    assert "90.0 % (90.0 to 90.0 %) are accepted with the right class; 95.0 %" in knowns
    assert "99.0 % (99.0 to 99.0 %) of seen negatives and 40.0 %" in none and "never trained on" in none
    assert last.startswith("Accepted known images: ") and "threshold, 93.0 to 97.0 %" in last and last.endswith(".")


def test_one_known_class_has_no_right_class():
    one = result()
    one["operating_point"]["prior"] = {"a": 0.6, "none": 0.4}
    assert summary(one)[0] == "Of the test images of the known class, 95.0 % (95.0 to 95.0 %) are accepted."


@pytest.mark.parametrize(
    ("recall", "verdict"),
    [(0.95, "within the"), (0.97, "within the"), (0.92, "below the"), (0.99, "above the")],
)
def test_whether_the_promise_was_kept(recall, verdict):
    assert verdict in summary(result(recall=recall))[2]


@pytest.mark.parametrize(("seen", "verdict"), [(0.99, "within the"), (0.9, "above the")])
def test_the_promise_about_negatives_is_about_those_accepted(seen, verdict):
    last = summary(result(rule="accept_negatives", promised=(0.0, 0.02), seen=seen))[2]
    assert "Accepted seen negatives: " in last and verdict in last


def test_nothing_promised():
    assert "has no target share" in summary(result(rule="least_cost", promised=None))[2]
    assert "no prediction interval" in summary(result(promised=None))[2]
    assert "no prediction interval" in summary(result(rule="accept_negatives", seen=None))[2]


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ({"unseen": None}, "no test images of unseen unknowns"),
        ({"seen": None}, "no test images of seen negatives"),
        ({"seen": None, "unseen": None}, "was not measured: there are no test images of seen negatives or unseen unknowns."),
    ],
)
def test_kinds_without_images_are_said_to_be_missing(absent, said):
    sentence = summary(result(**absent))[1]
    assert said in sentence
    assert ("never trained on" in sentence) == ("unseen" not in absent)


def test_no_known_images():
    assert "no test images of known classes" in summary(result(recall=None, accuracy=None))[0]


def test_a_better_score_is_named_only_beyond_the_intervals():
    own = score(seen=(0.99, 0.98, 1.0), unseen=(0.8, 0.75, 0.85))
    better, alike = score(unseen=(0.9, 0.87, 0.93)), score(unseen=(0.86, 0.82, 0.9))
    last = summary(result(scores={"own": own, "energy": better, "msp": alike}))[2]
    assert "the score energy separates unseen unknowns from known images clearly better" in last
    last = summary(result(scores={"own": own, "msp": alike}))[2]
    assert "msp, is not clearly better at separating unseen unknowns from known images" in last
    last = summary(result(scores={"own": own}))[2]
    assert "AUROC" not in last


def test_seen_negatives_are_compared_where_there_are_no_unknowns():
    own, other = score(seen=(0.8, 0.75, 0.85)), score(seen=(0.9, 0.87, 0.93))
    assert "separates seen negatives from known images clearly better" in summary(result(scores={"own": own, "x": other}))[2]


def test_the_score_in_use_is_no_other_score():
    """`softmax` ranks by msp: the table has it twice."""
    same, worse = score(unseen=(0.9, 0.88, 0.92)), score(unseen=(0.8, 0.78, 0.82))
    last = summary(result(objective="softmax", scores={"own": same, "msp": same, "energy": worse}))[2]
    assert "msp" not in last
    assert "the other score, energy, is not clearly better" in last
