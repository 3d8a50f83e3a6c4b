"""scores.csv: the probabilities of all classes, or of the most probable ones if there are many."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

from openset_jax.openset.scored import Scored
from openset_jax.report import run_files


def written(num_classes, *, images=3, posterior=True):
    """(the rows of scores.csv as dicts, the posterior)."""
    rng, nothing = np.random.default_rng(0), np.zeros(images, int)
    p = rng.dirichlet(np.ones(num_classes + 1), images)
    classes = tuple(f"c{k}" for k in range(num_classes))
    pool = SimpleNamespace(classes=classes, ids=lambda rows: [f"{row}.png" for row in rows])
    scored = Scored(nothing, np.array(["g"] * images, object), rng.normal(size=images), nothing, None, nothing)
    scores = SimpleNamespace(rows=np.arange(images), values={"energy": rng.normal(size=images)})
    file = io.StringIO()
    measurement = SimpleNamespace(scored=scored, posterior=p if posterior else None, scores=scores)
    run_files._write_scores(file, pool, measurement)
    return list(csv.DictReader(file.getvalue().splitlines())), p


def test_the_probabilities_of_all_classes_are_written():
    rows, p = written(run_files.MOST_CLASSES)
    for row, expected in zip(rows, p, strict=True):
        assert [float(row[f"p_c{k}"]) for k in range(run_files.MOST_CLASSES)] == expected[:-1].tolist()
        assert float(row["p_none"]) == expected[-1] and float(row["energy"])


def test_of_1000_classes_the_most_probable_are_written():
    rows, p = written(1_000)
    for row, expected in zip(rows, p, strict=True):
        order = np.argsort(-expected[:-1])[: run_files.TOP]
        assert [row[f"class_{i}"] for i in range(1, run_files.TOP + 1)] == [f"c{k}" for k in order]
        assert [float(row[f"p_{i}"]) for i in range(1, run_files.TOP + 1)] == expected[order].tolist()
        assert float(row["p_none"]) == expected[-1] and float(row["energy"])
        assert sum(map(len, row.values())) < 400


@pytest.mark.parametrize("num_classes", [2, 1_000])
def test_without_probabilities_the_cells_are_empty(num_classes):
    rows, _ = written(num_classes, posterior=False)
    assert {row[column] for row in rows for column in row if column.startswith(("p_", "class_"))} == {""}
