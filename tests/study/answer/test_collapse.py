"""Whether it always says none, and why: opposite networks, opposite answers."""

import re

from study import made_up
from study.reading import section

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import collapse
from openset_jax.study.answer.document import answer
from openset_jax.study.stats.analysis import Analysis

N = "sampling.negatives"


def always(**quality):
    plain = {"answered_none": 0.05}
    return section(answer(made_up.analysis(({N: "1x"}, plain), ({N: "10x"}, quality), jitter=0.02)), "none")


def test_always_none_because_of_the_threshold():
    found = always(answered_none=0.99)
    assert "**Yes, in 3 of 3 seeds**" in found and "With 700 negatives (10x)" in found
    assert found.count("the ranking is there") == 3 and found.count("moving it recovers them") == 3
    assert "nothing" not in found
    assert re.search(r"prior corrected \(prior\) the same network accepts 95\.0 % .*: \+93\.\d points", found)
    assert re.search(r"the same with 70 negatives \(1x\), .*: -93\.\d points", found)


def test_always_none_because_nothing_was_learned():
    found = always(answered_none=0.99, seen=0.0, unseen=0.0, accuracy=1 / 3)
    assert "**Yes, in 3 of 3 seeds**" in found
    assert found.count("the network learned nothing") == 3 and "recovers" not in found
    assert "a guess is right for 33.3 %" in found


def test_not_at_all():
    found = always()
    assert "**No, in none of 3 seeds**" in found and "Why?" not in found and "exactly as many" in found


def test_in_some_seeds():
    arms = [made_up.outcome({N: "10x"}, seed, answered_none=share) for seed, share in enumerate((0.05, 0.99, 0.05))]
    found = section(answer(Analysis(arms)), "none")
    assert "**Sometimes, in 1 of 3 seeds**" in found
    assert "Seed 1: the ranking is there" in found and "Seed 0" not in found


def test_a_network_that_cannot_say_none_cannot_collapse():
    found = section(answer(made_up.analysis(({"objective.name": "entropic"}, {}))), "none")
    assert "gives no answer" in found and "Yes" not in found


def test_without_negatives_it_is_not_asked():
    assert section(answer(made_up.analysis(({N: 0}, {}))), "none") is None


def test_causes_of_a_collapse():
    known = lambda auroc, accuracy, **corrected: collapse.Seed(
        3, Interval(auroc, auroc - 0.02, auroc + 0.02), Interval(accuracy, accuracy - 0.02, accuracy + 0.02), corrected
    )
    assert "the classes apart" in collapse.why(known(0.5, 0.9, prior=0.9), 0.1)
    assert "does not recover" in collapse.why(known(0.9, 0.9, prior=0.1, rule=0.2), 0.1)
    assert "nothing says whether it ranks" in collapse.why(known(0.9, 0.9)._replace(auroc=None), 0.1)
