"""The files that an evaluation writes to the workdir: report.html, scores.csv and metrics.json."""

import math
from typing import IO

import numpy as np

from openset_jax.data.pools import Pool
from openset_jax.files import write_whole
from openset_jax.json_text import json_text
from openset_jax.report import csv_rows, mistakes, page
from openset_jax.training import hosts
from openset_jax.training.measurement import Measurement
from openset_jax.training.trained_network import TrainedNetwork

MOST_CLASSES, TOP = 100, 5  # scores.csv has the probabilities of all classes, or, of more classes, of the most probable


def write(network: TrainedNetwork, measurement: Measurement) -> None:
    """Writes the files in the first process of the run. metrics.json is written last, when the others are complete."""
    classifier, logits, workdir = network.classifier, measurement.scores.logits, network.spec.workdir
    found = _mistakes(network, measurement)
    if not hosts.is_first_process():
        return
    html = page.render(
        measurement.metrics, measurement.scored, kinds=measurement.kinds, classifier=classifier,
        fitted_posterior=classifier.fitted_posterior(logits), mistakes=found,
    )  # fmt: skip
    with write_whole(workdir / "report.html") as file:
        file.write(html)
    with write_whole(workdir / "scores.csv") as file:
        _write_scores(file, network.pool, measurement)
    with write_whole(workdir / "metrics.json") as file:
        file.write(json_text(measurement.metrics))


def _mistakes(network: TrainedNetwork, measurement: Measurement) -> dict[str, list[mistakes.Mistake]]:
    """Returns the mistakes that the page shows, with their images: title -> mistakes."""
    scored, posterior, pool = measurement.scored, measurement.posterior, network.pool
    chosen, names = mistakes.worst(scored, posterior, measurement.kinds), [*pool.classes, "none"]
    decision = scored.decision
    assert decision is not None  # otherwise `worst` raises
    every = np.unique(np.concatenate(list(chosen.values())))
    if not len(every):
        return {}
    rows = measurement.scores.rows[every]
    if pool.array.is_vector:
        images = [mistakes.picture(path) for path in pool.pictures(rows)]
        if all(image is None for image in images):
            return {}
    else:
        images = list(network.inference.run_all("images", network.variables, rows)[1])
    shown = {i: (image, id_) for i, image, id_ in zip(every.tolist(), images, pool.ids(rows), strict=True)}

    def mistake(i: int) -> mistakes.Mistake:
        (image, id_), answer = shown[i], decision[i]
        p = None if posterior is None else float(posterior[i, answer])
        return mistakes.Mistake(image, id_, scored.group[i], names[answer], float(scored.score[i]), p)

    return {title: [mistake(i) for i in found.tolist()] for title, found in chosen.items()}


def _write_scores(file: IO[str], pool: Pool, measurement: Measurement) -> None:
    scored, posterior, scores = measurement.scored, measurement.posterior, measurement.scores
    names = [*pool.classes, "none"]
    assert scored.decision is not None
    write_row = csv_rows.row_writer(file)
    if posterior is None:
        posterior = np.full((len(scores.rows), len(names)), np.nan)
    columns_of_classes, probabilities = _of_classes(pool.classes, posterior[:, :-1])
    write_row(["id", "group", "label", "decision", "score", "p_none", *columns_of_classes, *scores.values])
    numbers = np.column_stack([scored.score, posterior[:, -1], probabilities, *scores.values.values()])
    columns = zip(pool.ids(scores.rows), scored.group, scored.label, scored.decision, numbers, strict=True)
    for id_, group, label, k, values in columns:
        row = (x if isinstance(x, str) or math.isfinite(x) else None for x in values.tolist())
        write_row([csv_rows.path_cell(id_), group, int(label), names[k], *row])


def _of_classes(classes: tuple[str, ...], probabilities: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns the columns of the known classes in scores.csv, and their cells [n, columns].

    With more than `MOST_CLASSES`, the `TOP` most probable classes and their probabilities: class_1, p_1, class_2, ...
    """
    if len(classes) <= MOST_CLASSES:
        return [f"p_{name}" for name in classes], probabilities
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    cells = np.empty((len(best), 2 * TOP), object)
    cells[:, 1::2] = p = np.take_along_axis(probabilities, best, axis=1)
    cells[:, ::2] = np.where(np.isnan(p), "", np.array(classes, object)[best])
    return [f"{column}_{place}" for place in range(1, TOP + 1) for column in ("class", "p")], cells
