"""results.csv and comparisons.csv have the numbers of the analysis, independent of the order of the arms."""

import csv
import random

import numpy as np
import pytest
from study import made_up

from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.csv_tables import write_comparisons, write_results
from openset_jax.study.stats.measurements import KNOWN, Measurement

NATURAL, MANY, UNDERSAMPLED = (
    {"sampling.negatives": 0},
    {"sampling.negatives": "10x", "model.width": 0.5},
    {"sampling.negatives": "10x", "model.width": 0.5, "sampling.policy": "undersample"},
)


@pytest.fixture(scope="module")
def arms():
    return made_up.arms((UNDERSAMPLED, {"seen": 1.0}), (MANY, {}), (NATURAL, {}), seeds=2, images=30, jitter=0.1)


def written(write, outcomes, tmp_path):
    path = tmp_path / "table.csv"
    write(Analysis(outcomes), path)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    with path.open(newline="") as file:
        return path.read_bytes(), list(csv.DictReader(file))


def test_a_row_for_each_arm_decision_and_group(arms, tmp_path):
    _, rows = written(write_results, arms, tmp_path)
    assert len(rows) == 3 * 2 * 4 * 6
    assert [row["group"] for row in rows[:6]] == ["seen_negatives", "unseen_unknowns", "n1", "n2", "u1", "u2"]
    assert [row["decision"] for row in rows[:24:6]] == ["argmax", "prior", "rule", "least_cost"]
    assert [row["seed"] for row in rows[::24]] == ["0", "1"] * 3
    assert [row["sampling.negatives"] for row in rows[::48]] == ["0", "10x", "10x"]
    assert [row["model.width"] for row in rows[::48]] == ["", "0.5", "0.5"]
    assert [row["sampling.policy"] for row in rows[::48]] == ["", "", "undersample"]
    assert [(row["objective"], row["negatives"], row["negative_groups"]) for row in rows[::48]] == [
        ("softmax", "0", "0"), ("background", "700", "2"), ("background", "700", "2"),
    ]  # fmt: skip
    assert {row["arm"] for row in rows} == {arm.name for arm in arms}
    assert [row["images"] for row in rows[:3]] == ["60", "60", "30"]
    assert not [name for name in rows[0] if "one_vs_rest" in name]


def test_numbers_are_those_of_the_analysis_to_the_last_bit(arms, tmp_path):
    _, rows = written(write_results, arms, tmp_path)
    analysis, many = Analysis(arms), made_up.treatment(MANY)
    row = next(r for r in rows if r["arm"] == "model.width=0.5, sampling.negatives=10x, seed 1" and r["decision"] == "rule")
    for column, measurement in {
        "auroc": Measurement("auroc", "seen_negatives"),
        "oscr": Measurement("oscr", "seen_negatives"),
        "known_accuracy": Measurement("accuracy", KNOWN),
        "known_recall": Measurement("recall", KNOWN, "rule"),
        "known_correct": Measurement("correct", KNOWN, "rule"),
        "rejected": Measurement("rejected", "seen_negatives", "rule"),
        "balanced_accuracy": Measurement("balanced_accuracy", "seen_negatives", "rule"),
        "expected_cost": Measurement("expected_cost", "seen_negatives", "rule"),
    }.items():
        found = tuple(float(row[column + end]) for end in ("", "_low", "_high"))
        assert found == tuple(analysis.arm_interval(many, 1, measurement)), column
        assert found[1] < found[2], column
    group = next(row for row in rows if row["group"] == "n1")
    assert group["balanced_accuracy"] == group["expected_cost"] == "" and group["auroc"]


def test_of_a_closed_set_there_is_a_row_for_each_decision(tmp_path):
    _, rows = written(write_results, [made_up.outcome({}, 0, closed=True)], tmp_path)
    assert [(row["group"], row["images"]) for row in rows] == [(KNOWN, "180")] * 4
    assert all(row["one_vs_rest_auc"] and row["balanced_accuracy"] and row["known_accuracy"] for row in rows)
    assert all(row["auroc"] == row["rejected"] == row["expected_cost"] == "" for row in rows)


@pytest.mark.parametrize("write", [write_results, write_comparisons])
def test_the_order_of_the_arms_does_not_matter(arms, tmp_path, write):
    found = set()
    for i in range(3):
        (folder := tmp_path / str(i)).mkdir()
        found.add(written(write, random.Random(i).sample(arms, len(arms)), folder)[0])
    assert len(found) == 1


def test_comparisons_have_means_and_the_differences_of_treatments_that_differ_in_one_field(arms, tmp_path):
    _, rows = written(write_comparisons, arms, tmp_path)
    pairs = {(row["treatment"], row["reference"], row["differs_in"]) for row in rows if row["comparison"] == "difference"}
    many, undersampled = made_up.treatment(MANY), made_up.treatment(UNDERSAMPLED)
    assert pairs == {(undersampled.label, many.label, "sampling.policy")}, "the others differ in two"
    assert {row["group"] for row in rows} == {KNOWN, "seen_negatives", "unseen_unknowns"}
    analysis, asked = Analysis(arms), Measurement("auroc", "seen_negatives")
    mine = [row for row in rows if (row["metric"], row["group"]) == ("auroc", "seen_negatives")]
    mean = next(row for row in mine if row["treatment"] == many.label and row["comparison"] == "mean")
    difference = next(row for row in mine if row["comparison"] == "difference")
    for row, expected in (
        (mean, analysis.mean(many, asked)),
        (difference, analysis.difference(undersampled, many, asked)),
    ):
        assert tuple(float(row[name]) for name in ("value", "low", "high")) == tuple(expected)
        assert (row["seeds"], row["seed"]) == ("2", "0;1")
        assert np.mean([float(value) for value in row["per_seed"].split(";")]) == pytest.approx(expected.value)
    assert float(difference["value"]) < 0, "treatment less reference"
    assert (difference["reference_value"], difference["sampling.policy"]) == ("", "undersample")


def test_the_interval_of_one_seed_is_empty(tmp_path):
    _, rows = written(write_comparisons, [made_up.outcome({"a": value}) for value in (1, 2)], tmp_path)
    assert {row["low"] + row["high"] for row in rows} == {""}
    assert {row["seeds"] for row in rows} == {"1"} and all(row["value"] for row in rows)


def test_values_are_no_formulas(tmp_path):
    arms = made_up.arms(({"init_from": "=1+1"}, {}), ({"init_from": "-1"}, {}), seeds=1, images=30)
    _, rows = written(write_results, arms, tmp_path)
    assert {row["init_from"] for row in rows} == {"'=1+1", "-1"}
