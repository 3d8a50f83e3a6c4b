"""The sentences at the top follow from the numbers: opposite numbers give opposite sentences."""

from study import made_up

from openset_jax.study.answer import summary
from openset_jax.study.stats.comparisons import Comparisons

N, POLICY = "sampling.negatives", "sampling.policy"


def short(*arms, **options):
    said = list(summary.sentences(Comparisons(made_up.analysis(*arms, **options))))
    return {text.split("** ")[0].strip("*"): text.split("** ", 1)[1] for text in said}


def test_it_says_whether_the_network_always_says_none():
    ask = lambda share: short(({N: "1x"}, {}), ({N: "10x"}, {"answered_none": share}))['Always "none"?']
    assert ask(0.99).startswith("Yes: with 700 negatives (10x) the network's own answer accepts 1.")
    assert ask(0.05).startswith("No: with 700 negatives (10x) the network's own answer accepts 9")


def test_it_says_how_many_are_enough():
    more_helps = short(({N: "1x"}, {"seen": 0.5}), ({N: "10x"}, {"seen": 4.0}))["How many negatives?"]
    assert "By AUROC against seen negatives, it takes 700 negatives (10x), with a mean of " in more_helps
    assert "with 70 negatives (1x) the mean is worse by" in more_helps
    alike = short(({N: "1x"}, {}), ({N: "10x"}, {}))["How many negatives?"]
    assert "By AUROC against seen negatives, 70 negatives (1x) may be enough, with a mean of " in alike
    assert "; with more the mean is not significantly better" in alike
    more_hurts = short(({N: "1x"}, {"seen": 4.0}), ({N: "10x"}, {"seen": 0.5}))["How many negatives?"]
    assert "By AUROC against seen negatives, it is best with 70 negatives (1x), with a mean of " in more_hurts
    assert "; with 700 negatives (10x) the mean is worse by" in more_hurts
    assert "it is unknown which number is enough" in short(({N: "1x"}, {}), ({N: "10x"}, {}), seeds=1)["How many negatives?"]


def test_it_says_whether_training_again_is_better_than_moving_the_threshold():
    ask = lambda **again: short(({N: "10x"}, {}), ({N: "10x", POLICY: "undersample"}, again), jitter=0.02)[
        "Resample, reweight, or move the threshold?"
    ]
    assert "1 imbalance method trained again" in ask(
        seen=4.0
    ) and "significantly better: `sampling.negatives=10x, sampling.policy=undersample` by" in ask(seen=4.0)
    assert "none is significantly better; 1 significantly worse, 0 not significantly different" in ask(seen=0.5)


def test_it_says_how_much_of_the_network_must_be_trained():
    ask = lambda seeds=3, **head: short(
        ({"init_from": "arm:x"}, {}), ({"init_from": "arm:x", "trainable": "head"}, head), seeds=seeds
    )["How much of the network?"]
    assert "; retraining all layers may be enough for AUROC against seen negatives and OSCR against seen" in ask(seen=0.5)
    assert "Starting from the network of the arm x, retraining the last layer (head) may be enough for known" in ask()
    assert "it is unknown which layers are enough (one seed)" in ask(seeds=1)
