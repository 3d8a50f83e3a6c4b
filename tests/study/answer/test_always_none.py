"""The section on networks that always answer "none": opposite networks give opposite answers."""

import re

from study import made_up
from study.reading import section

from openset_jax.openset.metrics.intervals import Interval
from openset_jax.study.answer import always_none
from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.stats.analysis import Analysis

N = "sampling.negatives"


def always(**quality):
    plain = {"answered_none": 0.05}
    return section(answer(made_up.analysis(({N: "1x"}, plain), ({N: "10x"}, quality), jitter=0.02)), "none")


def test_always_none_because_of_the_threshold():
    found = always(answered_none=0.99)
    assert "**Yes, in 3 of 3 seeds**" in found and "With 700 negatives (10x)" in found
    assert found.count("the ranking is informative") == 3 and found.count("moving it recovers the known images") == 3
    assert "nothing" not in found
    assert re.search(r"prior correction \(prior\) the same network accepts 95\.0 % .*: \+93\.\d points", found)
    assert re.search(r"Compared with 70 negatives \(1x\), .*: -93\.\d points", found)


def test_always_none_because_nothing_was_learned():
    found = always(answered_none=0.99, seen=0.0, unseen=0.0, accuracy=1 / 3)
    assert "**Yes, in 3 of 3 seeds**" in found
    assert found.count("the network learned nothing") == 3 and "recovers" not in found
    assert "where chance is 33.3 %" in found


def test_not_at_all():
    found = always()
    assert "**No, in none of 3 seeds**" in found and "Why?" not in found and "no change" in found


def test_of_one_seed_seeds_are_not_counted():
    found = section(answer(made_up.analysis(({N: "10x"}, {}), seeds=1)), "none")
    assert '**No** ("always" means' in found and "of 1 seed" not in found and "by seed" not in found


def test_in_some_seeds():
    arms = [made_up.outcome({N: "10x"}, seed, answered_none=share) for seed, share in enumerate((0.05, 0.99, 0.05))]
    found = section(answer(Analysis(arms)), "none")
    assert "**Sometimes, in 1 of 3 seeds**" in found
    assert "Seed 1: the ranking is informative" in found and "Seed 0" not in found


def test_a_network_that_cannot_say_none_cannot_collapse():
    found = section(answer(made_up.analysis(({"objective.name": "entropic"}, {}))), "none")
    assert "has no output for" in found and "Yes" not in found


def test_without_negatives_it_is_not_asked():
    assert section(answer(made_up.analysis(({N: 0}, {}))), "none") is None


def test_causes_of_a_collapse():
    known = lambda auroc, accuracy, **recalls: always_none.CollapsedNetwork(
        3, Interval(auroc, auroc - 0.02, auroc + 0.02), Interval(accuracy, accuracy - 0.02, accuracy + 0.02), recalls
    )
    assert "separates the known classes" in always_none.cause(known(0.5, 0.9, prior=0.9), 0.1)
    assert "does not recover" in always_none.cause(known(0.9, 0.9, prior=0.1, rule=0.2), 0.1)
    assert "its ranking is unknown" in always_none.cause(known(0.9, 0.9)._replace(auroc=None), 0.1)


def test_causes_of_a_collapse_with_one_known_class():
    network = lambda auroc: always_none.CollapsedNetwork(3, Interval(auroc, auroc - 0.02, auroc + 0.02), None, {"rule": 0.9})
    assert always_none.cause(network(0.5), 1.0).startswith("Seed 3: the network learned nothing: its AUROC is 0.500")
    assert "the ranking is informative (its AUROC is 0.900 (0.880 to 0.920)), so" in always_none.cause(network(0.9), 1.0)
    unknown = 'Seed 3: without test images of "none" its ranking is unknown.'
    assert always_none.cause(network(0.9)._replace(auroc=None), 1.0) == unknown
    assert not any("K classes" in always_none.cause(network(auroc), 1.0) for auroc in (0.5, 0.9))
