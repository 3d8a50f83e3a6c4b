"""Treatments: their order, the fields they differ in, and which fields are methods against class imbalance."""

from study import made_up

from openset_jax.study.answer.answer_markdown import answer
from openset_jax.study.stats.treatments import differing_only_in, field_names


def test_treatments_stand_from_the_least_to_the_most():
    values = ["3x", 0, None, 70, "0.5x", "10x"]
    order = [{} if value is None else {"sampling.negatives": value} for value in values]
    found = made_up.analysis(*((fields, {}) for fields in order), negatives=5_000, seeds=1).ordered()
    assert [t.get("sampling.negatives") for t in found] == [0, "0.5x", 70, "3x", "10x", None]
    layers = [{"trainable": value} for value in ("all", "conv3", "head", "fc")]
    found = made_up.analysis(*((fields, {}) for fields in [*layers, {}]), seeds=1).ordered()
    assert [t.get("trainable") for t in found] == ["head", "fc", "conv3", "all", None]
    assert differing_only_in(found, "trainable") == [found]
    assert field_names(found) == ("trainable",)


def test_imbalances_stand_from_the_least_to_the_most():
    texts = ["step:mu=0.8,rho=10", "linear:rho=1000", "", "step:mu=0.2,rho=10", "step:mu=0.5,rho=1", "step:mu=0.2,rho=1000"]
    fields = [{"sampling.imbalance": text} if text else {} for text in texts]
    found = made_up.analysis(*((f, {}) for f in fields), closed=True, seeds=1).ordered()
    assert [t.get("sampling.imbalance", "") for t in found] == [texts[i] for i in (2, 4, 3, 0, 1, 5)]


def test_imbalance_is_no_imbalance_method():
    cut = {"sampling.imbalance": "linear:rho=10"}
    text = answer(made_up.analysis((cut, {}), (cut | {"sampling.policy": "oversample"}, {}), closed=True, jitter=0.1))
    assert (
        "sampling.policy=oversample, trained again" in text and "sampling.imbalance=linear:rho=10, trained again" not in text
    )
