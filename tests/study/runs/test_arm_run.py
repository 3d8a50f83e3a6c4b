"""Arms that train at once end as if each had trained alone; one that fails, or is stopped, leaves the others as they are."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import vectors
from small_run import ROOT, environment, shared_cache, small_config, train
from study import vector_grid
from study.vector_grid import study

from openset_jax import experiment, lock
from openset_jax.errors import Stopped, UserError
from openset_jax.study.runs import arm_folder, arm_run, check, grid
from openset_jax.training import checkpoints, devices, run_setup, together
from openset_jax.training.run_cache import RunCache


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return vectors.write(tmp_path_factory.mktemp("vectors"), *vectors.vectors())


def run_experiment(config, workdir, stop_requested=lambda: "", cache=None):
    experiment.experiment(config, workdir, stop_requested, cache or shared_cache())
    return outcomes(workdir)


def outcomes(workdir):
    """Name of the arm -> the arrays of its outcome."""
    found = {}
    for path in sorted(workdir.glob(f"arms/*/{arm_folder.OUTCOME}")):
        with np.load(path) as saved:
            found[path.parent.name] = {name: saved[name] for name in saved.files}
    return found


def assert_same(ours, theirs, count):
    assert len(ours) == count and ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        for key in ("logits", "validation_logits"):
            np.testing.assert_allclose(arrays[key], theirs[name][key], rtol=1e-4, atol=1e-5)
        about, other = json.loads(str(arrays["about"])), json.loads(str(theirs[name]["about"]))
        assert about.pop("training")["flops"] == other.pop("training")["flops"]
        assert about == other


@pytest.fixture(scope="module")
def together_run(source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("together")
    return run_experiment(vector_grid.get_config(source), workdir), workdir


def test_arms_at_once_end_as_each_alone(together_run, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(together, "shared_by", lambda spec, cache: None)
    alone = run_experiment(vector_grid.get_config(source), tmp_path)
    assert "at once" not in capsys.readouterr().out
    assert_same(together_run[0], alone, count=16)
    logits = [arrays["logits"] for arrays in alone.values()]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(logits) for b in logits[:i]), "the arms differ"


def test_arms_that_a_device_computes_side_by_side_end_the_same(together_run, source, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_over_runs", jax.vmap)  # as on accelerators
    assert_same(run_experiment(vector_grid.get_config(source), tmp_path, cache=RunCache()), together_run[0], count=16)


def test_each_has_its_log_its_checkpoints_and_its_decision(together_run):
    for folder in (together_run[1] / "arms").iterdir():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [10, 20]
        assert rows[0]["runs_at_once"] in (4, 12) and "validation_auroc" in rows[1]
        assert "step 20/20" in (folder / "log.txt").read_text()
        assert checkpoints.latest_step(folder) == 20 and (folder / "decision.json").exists()


def test_arms_that_were_stopped_at_different_steps_go_on_and_end_the_same(together_run, source, tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return "SIGTERM" if len(asked) > 100 else ""

    with pytest.raises(Stopped, match=r"Stopped by SIGTERM. The state at step \d+ is saved; .* \(arm "):
        run_experiment(vector_grid.get_config(source), tmp_path, stop)
    steps = {checkpoints.latest_step(folder) for folder in (tmp_path / "arms").iterdir()}
    assert len(steps) > 1 and None not in steps - {None}
    assert_same(run_experiment(vector_grid.get_config(source), tmp_path), together_run[0], count=16)


def test_an_arm_that_fails_does_not_end_the_others(together_run, source, tmp_path, monkeypatch, capsys):
    real = run_setup.Run.plateau_loss

    def fails(self, progress):
        if self.spec.seed and self.spec.learning_rate == 0.5 and self.spec.sampling.negatives is None:
            raise UserError("no such file")
        return real(self, progress)

    monkeypatch.setattr(run_setup.Run, "plateau_loss", fails)
    label = "optimizer.learning_rate=0.5, seed 1"
    with pytest.raises(UserError, match=f"1 of 16 arms failed; the first, '{label}': no such file. See .*log.txt"):
        run_experiment(vector_grid.get_config(source), tmp_path)
    assert f"{label} failed: no such file" in capsys.readouterr().out
    monkeypatch.undo()
    done = outcomes(tmp_path)
    assert len(done) == 15
    assert_same(done, {name: arrays for name, arrays in together_run[0].items() if name in done}, count=15)


def test_a_group_that_fails_does_not_end_the_other_arms(source, tmp_path, monkeypatch):
    real = together.Group.step

    def fails(self, batches):
        if len(batches) == 4:
            raise RuntimeError("out of memory")
        return real(self, batches)

    monkeypatch.setattr(together.Group, "step", fails)
    config = study(
        vectors.config(source), numbers={"sampling.negatives": (10, None)}, other={"objective.name": ("background",)}
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        run_experiment(config, tmp_path)
    assert len(outcomes(tmp_path)) == 2
    assert "4 of 6 arms are not included" in (tmp_path / "ANSWER.md").read_text()
    logs = [path.read_text() for path in tmp_path.glob("arms/*/log.txt")]
    assert sum("RuntimeError: out of memory" in log for log in logs) == 4


def test_an_arm_that_diverges_says_where_and_does_not_touch_the_others(source, tmp_path):
    config = study(vectors.config(source), rates={"optimizer.learning_rate": (0.02, 1e38)})
    with pytest.raises(UserError, match=r"2 of 4 arms failed; the first, .*training diverged at step \d.* rate was 9"):
        run_experiment(config, tmp_path)
    assert len(outcomes(tmp_path)) == 2
    assert all(np.isfinite(arrays["logits"]).all() for arrays in outcomes(tmp_path).values())


def test_arms_of_another_process_are_left_to_it(source, tmp_path, capsys):
    config = study(vectors.config(source), numbers={"sampling.negatives": (10, None)})
    first, *_ = grid.arms_of(config)
    with lock.claimed(tmp_path / "arms" / first.name):
        assert len(run_experiment(config, tmp_path)) == 3
    assert "    skipped: 1 of these arms are running in another process" in capsys.readouterr().out


@pytest.mark.slow
def test_heads_on_the_features_of_images_train_at_once(tmp_path, monkeypatch, capsys):
    same = {"augment.crop": False, "augment.pad": 0, "augment.flip": False, "eval.every": 12}
    base = tmp_path / "base"
    train(small_config(), base)
    config = study(
        small_config(**{"init_from": str(base), "trainable": "head"} | same),
        rates={"optimizer.learning_rate": (0.01, 0.03)}, numbers={"sampling.negatives": ("0.5x",)},
    )  # fmt: skip
    ours = run_experiment(config, tmp_path / "together", cache=RunCache(tmp_path / "features"))
    assert "and 5 other arms at once" in capsys.readouterr().out
    monkeypatch.setattr(together, "shared_by", lambda spec, cache: None)
    assert_same(ours, run_experiment(config, tmp_path / "alone", cache=RunCache(tmp_path / "features")), count=6)


def test_units(source, monkeypatch):
    """A group is at the place of its first arm; an arm that starts from another, or has two phases, trains alone."""
    config = study(
        vectors.config(source),
        amounts={"sampling.negatives": (0, 10)},
        start={"init_from": ("arm:sampling.negatives=10",), "optimizer.learning_rate": (0.02,)},
    )
    arms, cache = grid.arms_of(config), shared_cache()
    folders = {arm.treatment.label: f"/x/{arm.name}" for arm in arms}
    made = check.with_shared_steps(config.run, cache)
    phases = {arm: check.resolve_arm(arm, grid.config_of(arm, made, folders), "/x", cache) for arm in arms}
    alone = lambda arm: arm.starts_from(arms) is not None
    labels = lambda units: [[arm.label for arm in unit] for unit in units]
    start = "init_from=arm:sampling.negatives=10, optimizer.learning_rate=0.02, seed "
    expected = [["sampling.negatives=0, seed 0", "sampling.negatives=0, seed 1"]]
    expected += [["sampling.negatives=10, seed 0", "sampling.negatives=10, seed 1"], [f"{start}0"], [f"{start}1"]]
    assert labels(arm_run.units(arms, phases, alone, cache)) == expected
    monkeypatch.setattr(together, "most_at_once", lambda spec, cache: 1)
    assert all(len(unit) == 1 for unit in arm_run.units(arms, phases, alone, cache))


@pytest.mark.slow
def test_eight_devices_share_the_arms(together_run, source, tmp_path):
    command = [sys.executable, "-m", "openset_jax.experiment", f"--config=tests/study/vector_grid.py:{source}"]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    env = environment(devices=8) | paths
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "and 11 other arms at once" in done.stdout
    assert_same(outcomes(tmp_path), together_run[0], count=16)
