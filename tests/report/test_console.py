"""The printed tables are short, whatever the number of classes, and names cannot break them."""

import numpy as np
from small_run import not_packed, open_small_pool

from openset_jax.model import networks
from openset_jax.report import console


def number(value):
    return {"value": value, "low": value, "high": value}


def result(classes, groups):
    """The content of `metrics.json` with recalls and AUROCs in a mixed order."""
    mixed = lambda names: zip(names, np.random.default_rng(0).permutation(len(names)) / len(names), strict=True)
    row = {"images": 5, "auroc": number(0.5), "oscr": number(0.5)}
    kinds, shares = ("seen_negatives", "unseen_unknowns"), dict.fromkeys(("seen_negatives", "unseen_unknowns"), number(0.5))
    return {
        "step": 1, "scores": {}, "scores_left_out": {},
        "known": {"accuracy": number(0.5), "recall": {name: number(float(value)) for name, value in mixed(classes)}},
        "counts": {"known": dict.fromkeys(classes, 3), "skipped": 0, kinds[0]: dict.fromkeys(groups, 5), kinds[1]: {}},
        "open_set": {
            **dict.fromkeys(kinds, row),
            "by_group": {name: row | {"auroc": number(float(value))} for name, value in mixed(groups)},
        },
        "operating_point": {
            "rule": "least_cost", "target": None, "threshold": number(0.5), "promised": None,
            "validation": {"knowns": 1, "negatives": 1}, "known_recall": number(0.5), "known_accuracy": number(0.5),
            "rejected": shares, "expected_cost": shares,
            "prior": dict.fromkeys([*classes, "none"], 0.5),
        },
        "confusion": {"rows": classes, "columns": [*classes, "none"], "counts": [[0] * (len(classes) + 1) for _ in classes]},
    }  # fmt: skip


def test_of_very_many_classes_the_best_and_the_worst_ten_are_shown():
    classes, groups = [f"class {i}" for i in range(1000)], [f"group {i}" for i in range(500)]
    lines = console.result_table(result(classes, groups)).splitlines()
    assert len(lines) < 70
    shown = [float(line.split()[3]) for line in lines if line.strip().startswith("class ")]
    assert shown == sorted([*np.arange(990, 1000) / 1000, *np.arange(10) / 1000], reverse=True)
    of_groups = [float(line.split()[3]) for line in lines if line.strip().startswith("group ")]
    assert of_groups == sorted([*np.arange(490, 500) / 500, *np.arange(10) / 500], reverse=True)
    notes = [line.split(" in metrics.json")[0].strip() for line in lines if "more in metrics.json" in line]
    assert notes == ["... 980 more", "... 480 more"]


def test_few_classes_are_listed_in_their_order():
    classes = [f"class {i}" for i in range(20)]
    lines = console.result_table(result(classes, [])).splitlines()
    assert [line.strip().split("  ")[0] for line in lines if line.strip().startswith("class ")][:20] == classes


def test_one_known_class_has_no_accuracy_and_no_right_class():
    given = result(["cat"], ["n"])
    given["known"] = {"accuracy": None, "recall": {"cat": None}}
    lines = console.result_table(given).splitlines()
    assert [line.split() for line in lines[1:3]] == [["known", "classes", "images", "accuracy"], ["cat", "3", "-"]]
    assert any("With one known class" in line for line in lines) and not any("correct  " in line for line in lines)
    assert not any("With one known class" in line for line in console.result_table(result(["a", "b"], [])).splitlines())


def test_the_table_of_images_says_that_there_is_one_known_class():
    pool = open_small_pool(**{"data.known.classes": ("1",)})
    said = "One known class, '1': the network decides whether an image is of it or not."
    assert console.pool_table(pool).endswith(said), "digits are no folder"
    assert "each known/CLASS/ is one class" in console.pool_table(not_packed(pool))
    assert "One known class" not in console.pool_table(open_small_pool())


def test_names_cannot_break_a_table():
    assert console.columns([["name", "images"], ["a\x1b[2J\nb", 3]]).split("\n") == [
        "  name         images", "  a\\x1b[2J\\nb       3",
    ]  # fmt: skip


def test_names_of_classes_are_unchanged_in_the_confusion_matrix():
    counts = [[1, 0], [2, 3]]
    confusion = {"rows": ["p_none", "seen_negatives"], "columns": ["p_none", "none"], "counts": counts}
    table = console._confusion_lines(confusion)[1]
    assert [line.split()[0] for line in table.split("\n")] == ["p_none", "p_none", "seen"]


def test_the_groups_of_a_network_are_listed_with_their_parameters():
    lines = console.network_table(
        networks.make(3, name="alexnet", stem="small", width=0.0625, trainable="fc"), (16, 16, 3)
    ).splitlines()
    assert [line.split("  ")[1] for line in lines[1:4]] == ["conv1", "conv2", "conv3"]
    assert [line.split()[-1] for line in lines[1:-1]] == ["frozen"] * 5 + ["trained"] * 2
    assert lines[-3].split() == ["fc:", "fc6,", "fc7", f"{16 * 256 + 256 * 256 + 2 * 256:,}", "trained"]
    numbers = [int(line.replace(",", "").split()[-2]) for line in lines[1:-1]]
    assert int(lines[-1].replace(",", "").split()[-1]) == sum(numbers)
