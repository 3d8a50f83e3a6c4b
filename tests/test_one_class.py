"""One known class, "is it one of mine or not": from training to predictions."""

import csv
import json

import numpy as np
import pytest
from small_run import lines, open_small_pool, restore_and_evaluate, small_config, train

from openset_jax.data.pools import TEST
from openset_jax.openset.scores.feature_scores import SCORES
from openset_jax.predict import Predictor

ONE = {"data.known.classes": ("1",), "data.negatives.classes": ("0", "2", "3", "4", "5", "6"), "input": "resident"}


@pytest.mark.parametrize("objective", ["background", pytest.param("one_vs_rest", marks=pytest.mark.slow)])
def test_one_known_class_is_trained_evaluated_and_predicted(tmp_path, objective, capsys):
    compare = objective == "one_vs_rest"
    config = small_config(**ONE, **{"objective.name": objective, "eval.compare_scores": compare, "steps": 24})
    metrics = train(config, tmp_path)
    printed = capsys.readouterr().out
    assert "One known class, '1'" in printed and "With one known class its accuracy" in printed

    assert metrics["known"]["accuracy"] is None and metrics["known"]["recall"] == {"1": None}
    assert metrics["known"]["accuracy_with_none"]["value"] >= 0
    for kind in ("seen_negatives", "unseen_unknowns"):
        row = metrics["open_set"][kind]
        assert row["oscr"]["value"] == pytest.approx(row["auroc"]["value"]), "every known image has the right class"
        assert metrics["calibration"][kind]["after"]["brier"]["value"] < 2
    point = metrics["operating_point"]
    assert point["known_recall"] == point["known_accuracy"] and point["accuracy_of_accepted_knowns"] is None
    assert np.shape(metrics["confusion"]["counts"]) == (3, 2)
    logged = [row for row in lines(tmp_path) if "validation_auroc" in row]
    assert logged and not any("validation_accuracy" in row for row in logged)
    assert all("validation_balanced_accuracy" in row for row in logged)
    assert metrics["scores_left_out"] == ({n: s.one_class for n, s in SCORES.items() if s.one_class} if compare else {})

    assert restore_and_evaluate(tmp_path) == json.loads((tmp_path / "metrics.json").read_text()) == metrics
    pool = open_small_pool(**ONE)
    rows = pool.rows(TEST)[::40]
    predicted = list(
        Predictor(tmp_path, priors="none=0.3", costs="confuse_knowns=5")(list(pool.sources[0].fetch(pool.record[rows])))
    )
    with (tmp_path / "scores.csv").open() as file:
        scored = {row["id"]: row for row in csv.DictReader(file)}
    assert [row["decision"] for row in predicted] == [scored[id_]["decision"] for id_ in pool.ids(rows)]
    assert {row["best_class"] for row in predicted} == {"1"}
    np.testing.assert_allclose([row["p_best"] + row["p_none"] for row in predicted], 1)
