"""Studies: runs are not trained twice, tables have the numbers of the runs, and the coverage of intervals is counted."""

import json
import sys

import jax
import numpy as np
import pytest
from small_run import run, shared_cache, small_config

from benchmarks import deployment, objectives, promise, runs
from openset_jax import config as configs
from openset_jax import train as training
from openset_jax.openset.decision import thresholds
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.training import run_length

SIZE = {"steps": 60, "eval.every": 60, "batch_size": 64, "model.width": 0.125, "log_every": 20, "checkpoint.every": 60}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, the workdir of its run, its metrics.json)."""
    config, workdir = small_config(**SIZE), tmp_path_factory.mktemp("runs") / "background-3"
    return config, workdir, runs.trained(config, {}, seed=3, workdir=workdir)


def test_a_run_that_is_done_is_not_trained_again_and_another_is(trained, monkeypatch):
    config, workdir, result = trained
    assert json.loads((workdir / "config.json").read_text())["seed"] == 3
    assert config.seed == 0, "the config that was given is left alone"
    asked = []
    monkeypatch.setattr(training, "train", lambda config, workdir: asked.append((config.seed, config.steps)))
    assert runs.trained(config, {}, seed=3, workdir=workdir) == result
    assert not asked
    kept = (workdir / "metrics.json").read_text()
    runs.trained(config, {"steps": 80}, seed=3, workdir=workdir)
    assert asked == [(3, 80)]
    assert not (workdir / "metrics.json").exists(), "an interrupted run must not have the old result"
    (workdir / "metrics.json").write_text(kept)


def test_a_run_that_is_done_in_another_dtype_is_trained_again_only_if_that_is_asked_for(trained, monkeypatch):
    config, workdir, result = trained
    config, asked = config.copy_and_resolve_references(), []
    monkeypatch.setattr(training, "train", lambda config, workdir: asked.append(config.model.dtype))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config.model.dtype = "auto"
    assert runs.trained(config, {}, seed=3, workdir=workdir) == result
    assert not asked
    kept = (workdir / "metrics.json").read_text()
    config.model.dtype = "bfloat16"
    runs.trained(config, {}, seed=3, workdir=workdir)
    assert asked == ["bfloat16"]
    (workdir / "metrics.json").write_text(kept)


def test_a_run_in_epochs_that_is_done_is_not_trained_again(tmp_path, monkeypatch):
    config = small_config(epochs=0.3)
    spec = configs.resolve(run_length.with_steps(config, shared_cache()), tmp_path)[-1]
    (tmp_path / "config.json").write_text(json.dumps(spec.record))
    (tmp_path / "metrics.json").write_text("{}")
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    assert runs.trained(config, {}, seed=0, workdir=tmp_path) == {}


def test_means_over_seeds_have_students_interval():
    mean = runs.over_seeds([0.8, 0.9, 1.0])
    assert mean == pytest.approx((0.9, 0.9 - 4.3027 * 0.1 / 3**0.5, 0.9 + 4.3027 * 0.1 / 3**0.5), abs=1e-4)
    assert runs.over_seeds([0.8])[1:] == (-np.inf, np.inf)
    assert runs.mean_text([0.8, 0.9, 1.0]) == "0.900 (0.652 to 1.148)"
    assert runs.mean_text([0.8, None]) == "-"
    assert runs.difference_text([0.8, 0.9], [0.7, 0.8]) == "+0.100 (+0.100 to +0.100)"


def test_the_table_of_objectives_is_of_their_metrics(tmp_path, trained, capsys):
    _, _, result = trained
    worse = json.loads(json.dumps(result))
    worse["open_set"]["unseen_unknowns"]["auroc"]["value"] -= 0.25
    objectives.write(tmp_path, {"background": [result, result], "entropic": [worse, worse]})
    means, differences = (tmp_path / "objectives.md").read_text().split("\n\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (means + "\n" + differences).splitlines()]
    column = cells[0].index("AUROC, unseen")
    assert cells[2][0] == "background"
    assert float(cells[2][column].split()[0]) == pytest.approx(
        result["open_set"]["unseen_unknowns"]["auroc"]["value"], abs=6e-4
    )
    assert cells[-1][column].startswith("-0.250"), cells[-1]
    assert cells[-1][1].startswith("+0.000")
    assert capsys.readouterr().out.strip() == (tmp_path / "objectives.md").read_text().strip()


def test_every_objective_has_an_arm():
    from openset_jax.openset.losses import objectives as losses

    assert {changes.get("objective.name", "background") for changes in objectives.ARMS.values()} == set(losses.OBJECTIVES)


def test_a_mix_that_is_that_of_training_needs_no_correction_and_another_gains_from_it(trained):
    _, workdir, _ = trained
    network = deployment.Network(workdir)
    prior = json.loads((workdir / "decision.json").read_text())["classifier"]["fitted_prior"]
    assert network.prior == pytest.approx(prior)
    same = network.deployed(assumed=None, mix=prior[-1], shares=prior)
    assert network.deployed(assumed=prior[-1], mix=prior[-1], shares=prior) == pytest.approx(same)
    saved = []
    for mix in (0.02, 0.95):
        before, after = (network.deployed(assumed=assumed, mix=mix, shares=prior) for assumed in (None, mix))
        assert after["negative_log_likelihood"] < before["negative_log_likelihood"]
        saved.append(before["cost_seen"] - after["cost_seen"])
    assert min(saved) >= 0
    assert max(saved) > 0.1


@pytest.mark.slow
def test_promises_are_counted(monkeypatch):
    rng = np.random.default_rng(0)
    validation, test = rng.normal(size=300), rng.normal(size=500)
    for rule in (thresholds.Rule("keep_knowns", 0.9), thresholds.Rule("accept_negatives", 0.05)):
        found = promise.coverage(rule, validation, test, splits=60)
        assert found["inside"] >= 52
        assert (found["validation"], found["test"], found["splits"]) == (300, 500, 60)
    monkeypatch.setattr(thresholds, "promise", lambda *_: Interval(0.9, 0.95, 1.0))
    broken = promise.coverage(thresholds.Rule("keep_knowns", 0.9), validation, test, splits=60)
    assert broken["inside"] < 15
    assert broken["below"] == 60 - broken["inside"]


def test_the_promise_of_a_run_is_looked_at_by_the_command(trained, tmp_path):
    _, workdir, _ = trained
    out = tmp_path / "promise.json"
    done = run([sys.executable, "-m", "benchmarks.promise", f"--workdir={workdir}", "--splits=3", f"--json={out}"])
    assert done.returncode == 0, done.stderr
    assert "keep_knowns=0.95" in done.stdout
    assert "accept_negatives: decision.accept_negatives: a share of 0.01 needs at least 100" in done.stdout
    assert json.loads(out.read_text())["keep_knowns"]["splits"] == 3
