"""sampling.policy=two_phase: a run of all layers on resampled data, then one of the last layers on natural data."""

import json
import shutil

import numpy as np
import pytest
from small_run import assert_same_run, lines, make_small_run, restore_and_evaluate, saved_arrays, small_config, train

from openset_jax.errors import Stopped, UserError
from openset_jax.training import checkpoints

CHANGES = {
    "sampling.policy": "two_phase", "trainable": "head", "steps": 16, "steps_per_call": 2, "sampling.first_share": 0.4,
    "eval.every": 4, "checkpoint.every": 2, "data.negatives.limit": 30, "model.norm": "batch",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two_phases")
    return workdir, train(small_config(**CHANGES), workdir)


def records(workdir):
    saved = checkpoints.open_checkpoints(workdir)
    found = {step: saved.record(step) for step in saved.steps()}
    saved.close()
    return found


def test_the_steps_add_up_and_each_phase_saves_its_own_config(whole):
    workdir, result = whole
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (workdir / "first_phase", workdir))
    assert (first["steps"], first["sampling"]["policy"], first["trainable"]) == (6, "oversample", "all")
    assert (second["steps"], second["sampling"]["policy"], second["trainable"]) == (10, "natural", "head")
    assert second["optimizer"]["learning_rate"] == pytest.approx(first["optimizer"]["learning_rate"] / 10)
    assert [row["step"] for row in lines(workdir / "first_phase")] == [2, 4, 6]
    assert [row["step"] for row in lines(workdir)] == [2, 4, 6, 8, 10]
    assert result == json.loads((workdir / "metrics.json").read_text())
    assert not (workdir / "first_phase/metrics.json").exists()


def test_the_second_phase_changes_the_head_of_the_firsts_best_network_and_nothing_else(whole):
    workdir, _ = whole
    best = records(workdir / "first_phase")[6]["progress"]["best_step"]
    before, after = saved_arrays(workdir / "first_phase", best), saved_arrays(workdir)
    for name, values in after.items():
        if name.startswith((".params", ".batch_stats")):
            assert np.array_equal(values, before[name]) != ("fc8" in name), name
    assert any("bn5" in name for name in after)


def test_the_prior_of_the_run_is_the_natural_one(whole):
    workdir, _ = whole
    counts = np.array(list(map(len, make_small_run(**CHANGES).rows_by_class)))
    assert len(set(counts)) > 1
    np.testing.assert_allclose(records(workdir)[10]["prior"], counts / counts.sum())
    np.testing.assert_allclose(records(workdir / "first_phase")[6]["prior"], 1 / 6)


@pytest.mark.parametrize("stops", [pytest.param((3,), marks=pytest.mark.slow), (2, 2)])
def test_stopped_in_either_phase_it_ends_the_same(tmp_path, whole, stops):
    # stop_requested is called before each of the first phase's three calls: a stop at 3 comes before the first step of the
    # second phase; with stops at 2 and 2 both phases are stopped
    for stop in stops:
        asked = iter(range(10**6))
        with pytest.raises(Stopped, match="at step"):
            train(small_config(**CHANGES), tmp_path, lambda: "it" if next(asked) >= stop else "")  # noqa: B023
    train(small_config(**CHANGES), tmp_path)
    for folder in (".", "first_phase"):
        for name in ("config.json", "decision.json"):
            ours = (tmp_path / folder / name).read_text().replace(str(tmp_path), str(whole[0]))
            assert ours == (whole[0] / folder / name).read_text()
    assert_same_run(tmp_path, whole[0])
    assert lines(tmp_path / "first_phase") == lines(whole[0] / "first_phase")


def test_once_the_second_phase_has_a_checkpoint_the_first_is_not_needed(tmp_path, whole):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/first_phase")
    assert train(small_config(**CHANGES), tmp_path / "run") == whole[1]
    assert restore_and_evaluate(tmp_path / "run") == whole[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainable": "all"}, "trainable: "),
        ({"trainable": "last"}, "trainable: 'last' is not one of"),
        ({"sampling.first_policy": "smote"}, "sampling.first_policy: 'smote'"),
        ({"sampling.first_policy": "two_phase"}, "sampling.first_policy: 'two_phase'"),
        ({"sampling.first_share": 1.0}, "sampling.first_share: 1.0 is not above 0 and below 1"),
    ],
)
def test_a_config_that_one_phase_refuses_is_refused_before_the_first_is_trained(tmp_path, changes, says):
    with pytest.raises(UserError, match=f"^{says}"):
        train(small_config(**CHANGES | changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_first_phase_is_another_run(tmp_path, whole):
    shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(UserError, match="sampling.first_policy: the run .* has 'oversample', but this config 'undersample'"):
        train(small_config(**CHANGES | {"sampling.first_policy": "undersample"}), tmp_path / "run")
