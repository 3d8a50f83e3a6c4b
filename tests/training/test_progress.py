"""The progress that is saved with a run, and the warning that training is stuck."""

import json

import numpy as np
import pytest
from small_run import lines, small_config, train

from openset_jax.training.progress import PLATEAU_LINES, Progress, plateau_warning

PRIOR = np.array([0.05] * 10 + [0.5])
CLASSES = [*map(str, range(10)), "none"]
PLATEAU = 1.844  # nats, the entropy of this prior
STUCK = {"loss": 1.85, "plateau_loss": PLATEAU, "top_rate": 1.0, "none_rate": 1.0}


def metrics_of(*steps):
    """The metrics of a call, from the (loss, predicted) of each step."""
    loss, predicted = (np.array(values, np.float32) for values in zip(*steps, strict=True))
    alike = np.ones(len(loss), np.float32)
    return {"loss": loss, "correct": alike / 2, "predicted": predicted, "grad_norm": alike}


def test_means_are_over_the_steps_since_the_last_line():
    progress = Progress()
    progress.add_steps(metrics_of((1.0, [0.75, 0.25]), (3.0, [0.25, 0.75])))
    means = progress.means()
    assert means.pop("plateau_loss") == 0
    assert means == {"loss": 2.0, "accuracy": 0.5, "none_rate": 0.5, "top_rate": 0.75, "grad_norm": 1.0}
    progress.add_steps(metrics_of((5.0, [1.0, 0.0])))
    assert progress.means()["loss"] == 5.0


def test_calls_of_any_length_give_the_same_sums():
    steps = [(0.1 * i + 1 / 3, [i / 7, 1 - i / 7]) for i in range(7)]
    sums = []
    for per_call in (1, 7):
        progress = Progress()
        for first in range(0, 7, per_call):
            progress.add_steps(metrics_of(*steps[first : first + per_call]))
        sums.append(progress.means())
    assert sums[0] == sums[1]


def test_progress_survives_json_exactly():
    progress = Progress()
    progress.add_steps(metrics_of((1 / 3, [1 / 3, 2 / 3])))
    progress.add_evaluation(10, 0.1 + 0.2)
    assert Progress(**json.loads(json.dumps(vars(progress)))) == progress


def test_the_first_of_equal_evaluations_is_the_best_and_patience_counts_the_rest():
    progress = Progress()
    assert [progress.add_evaluation(i, v) for i, v in enumerate([0.5, 0.7, 0.7, None, 0.6])] == [True, True] + [False] * 3
    assert (progress.best_step, progress.best_value, progress.since_best) == (1, 0.7, 3)
    assert progress.out_of_patience(3)
    assert not progress.out_of_patience(4)
    assert not progress.out_of_patience(0)


def warning(progress, ending=False, **means):
    return plateau_warning(progress, STUCK | means, PRIOR, CLASSES, ending=ending)


def test_the_plateau_warning_comes_once_per_plateau():
    progress = Progress()
    said = [warning(progress) for _ in range(PLATEAU_LINES + 3)]
    assert [bool(s) for s in said] == [False] * (PLATEAU_LINES - 1) + [True] + [False] * 3
    for word in ("none", "1.844", "Likely cause", "learning_rate"):
        assert word in said[PLATEAU_LINES - 1]
    assert warning(progress, loss=1.0) == ""
    assert progress.plateau == 0


@pytest.mark.parametrize(
    "healthy",
    [{"loss": 0.5}, {"top_rate": 0.6}, {"loss": 2.4}],  # it has learned; predictions differ; the initial loss, log 11
)
def test_a_healthy_run_gets_no_warning(healthy):
    progress = Progress()
    assert not any(warning(progress, **healthy) for _ in range(10))


@pytest.mark.parametrize(
    ("means", "learned"), [({"loss": 2.4}, False), ({"top_rate": 0.3}, False), ({"loss": 1.7, "top_rate": 0.3}, True)]
)
def test_a_run_that_ends_above_the_plateau_is_said_to_have_learned_nothing(means, learned):
    said = warning(Progress(), ending=True, **means)
    assert said.startswith("Nothing learned: ") != learned
    assert learned or ("1.844" in said and "optimizer.learning_rate" in said)


def test_the_plateau_of_a_line_is_the_mean_over_its_steps():
    progress = Progress(plateau_loss=1.0)
    progress.add_steps(metrics_of((1.0, [0.75, 0.25])))
    progress.plateau_loss = 2.0  # margins were measured
    progress.add_steps(metrics_of((1.0, [0.75, 0.25])))
    assert progress.means()["plateau_loss"] == 1.5


def test_a_run_with_dead_relus_warns(tmp_path, capsys):
    # a learning rate so large that after a few steps every image gets the same prediction
    config = small_config(**{
        "optimizer.learning_rate": 0.3, "optimizer.schedule": "constant", "optimizer.grad_clip": 0.0, "steps": 100,
        "log_every": 10, "eval.every": 100, "checkpoint.every": 100, "batch_size": 64,
    })  # fmt: skip
    train(config, tmp_path)
    assert lines(tmp_path)[-1]["top_rate"] > 0.99
    assert "Stuck: every image gets the same answer" in capsys.readouterr().out
