"""The sentences at the top say what the numbers say: opposite numbers, opposite sentences."""

from study import made_up

from openset_jax.study.answer import summary
from openset_jax.study.stats.comparing import Comparing

N, POLICY = "sampling.negatives", "sampling.policy"


def short(*arms, **options):
    said = list(summary.sentences(Comparing(made_up.analysis(*arms, **options))))
    return {text.split("** ")[0].strip("*"): text.split("** ", 1)[1] for text in said}


def test_it_says_whether_the_network_always_says_none():
    ask = lambda share: short(({N: "1x"}, {}), ({N: "10x"}, {"answered_none": share}))['Always "none"?']
    assert ask(0.99).startswith("Yes: with 700 negatives (10x) the network accepts 1.")
    assert ask(0.05).startswith("No: with 700 negatives (10x) the network accepts 9")


def test_it_says_how_many_are_enough():
    more_helps = short(({N: "1x"}, {"seen": 0.5}), ({N: "10x"}, {"seen": 4.0}))["How many negatives?"]
    assert "By AUROC against seen negatives it takes 700 negatives (10x), " in more_helps
    assert "with 70 negatives (1x) it is worse by" in more_helps
    alike = short(({N: "1x"}, {}), ({N: "10x"}, {}))["How many negatives?"]
    assert "By AUROC against seen negatives 70 negatives (1x) may be enough, " in alike
    assert ": more cannot be told to be better" in alike
    more_hurts = short(({N: "1x"}, {"seen": 4.0}), ({N: "10x"}, {"seen": 0.5}))["How many negatives?"]
    assert "By AUROC against seen negatives it is best with 70 negatives (1x), " in more_hurts
    assert "; with 700 negatives (10x) it is worse by" in more_hurts
    assert "no number can be called enough" in short(({N: "1x"}, {}), ({N: "10x"}, {}), seeds=1)["How many negatives?"]


def test_it_says_whether_training_again_is_better_than_moving_the_threshold():
    ask = lambda **again: short(({N: "10x"}, {}), ({N: "10x", POLICY: "undersample"}, again), jitter=0.02)[
        "Resample, reweight, or move the threshold?"
    ]
    assert "of 1 remedies trained again" in ask(
        seen=4.0
    ) and "better: sampling.negatives=10x, sampling.policy=undersample" in ask(seen=4.0)
    assert "none is better; 1 worse, 0 cannot be told apart" in ask(seen=0.5)


def test_it_says_how_much_of_the_network_must_be_trained():
    ask = lambda **head: short(({"init_from": "arm:x"}, {}), ({"init_from": "arm:x", "trainable": "head"}, head))[
        "How much of the network?"
    ]
    assert "Retraining the last layer (head), against retraining all layers: AUROC against seen negatives worse by" in ask(
        seen=0.5
    )
    assert "AUROC against seen negatives cannot be told apart" in ask()
