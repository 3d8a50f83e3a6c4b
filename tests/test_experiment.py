"""An experiment ends in the same files however it was run: at once, in two parts, killed and started again."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from small_run import ROOT, environment, run, shared_cache
from study import small_grid
from tiny_network import Tiny

from openset_jax import experiment, lock
from openset_jax.errors import Stopped, UserError
from openset_jax.model import networks
from openset_jax.study.runs import arm_folder, grid

FILES = ("results.csv", "comparisons.csv", "ANSWER.md", "figure.png", "report.html")
CONFIG = "--config=tests/study/small_grid.py"


# The command, in a process that kills itself in the middle of its second arm.
DIES = """
import os, signal
from openset_jax import cli, experiment
from openset_jax.training import run_log

logs = []

class Log(run_log.RunLog):
    def line(self, step, values):
        super().line(step, values)
        if self not in logs:
            logs.append(self)
        if len(logs) == 2 and step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

run_log.RunLog = Log
cli.run(experiment.main, experiment.define_flags)
"""


def command(workdir, *flags, dies=False):
    how = ["-c", DIES] if dies else ["-m", "openset_jax.experiment"]
    return [sys.executable, *how, CONFIG, f"--workdir={workdir}", *flags]


def start(workdir, part, *, dies=False):
    """The process of a part; its output is appended to a file next to the workdir."""
    env = environment() | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    with said(workdir).open("a") as log:
        return subprocess.Popen(command(workdir, f"--shard={part}", dies=dies), cwd=ROOT, env=env, stdout=log, stderr=log)


def said(workdir):
    return workdir.with_name("said.txt")


def outcomes(workdir):
    return {path.parent.name: path.stat().st_mtime_ns for path in workdir.glob(f"arms/*/{arm_folder.OUTCOME}")}


def without_speed(path):
    """The bytes of a file without the measured training speeds."""
    return re.sub(rb"[\d,.]+ images/s", b"", path.read_bytes())


def run_experiment(config, workdir, stop_requested=lambda: "", **options):
    """`experiment.experiment` with the shared cache."""
    experiment.experiment(config, workdir, stop_requested, shared_cache(), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an experiment that was run at once."""
    workdir = tmp_path_factory.mktemp("whole")
    run_experiment(small_grid.get_config(), workdir)
    return workdir


def test_an_arm_knows_which_layers_it_trained_from_where_and_what_a_step_costs(whole):
    arms, unfinished = arm_folder.read_outcomes(whole)
    found = {arm.treatment.label: arm.training for arm in arms if arm.seed == 0}
    plain, head = found["config.run unchanged"], found["init_from=arm:sampling.negatives=0, trainable=head"]
    assert not unfinished and len(found) == 4
    assert (plain.start, plain.trainable) == ("", "all") and plain.from_scratch
    assert (head.start, head.trainable, head.layers) == ("arm:sampling.negatives=0", "head", 1) and not head.trains_all
    assert 0 < head.flops < plain.flops and head.images_per_second > 0
    state, batch = 4 * 81_610, 16 * 16 * 16 * 3  # bytes of the parameters, and of the images
    assert 3 * state + batch < plain.memory < 12 * state and state + batch < head.memory < plain.memory
    row = next(
        row for row in (whole / "ANSWER.md").read_text().splitlines() if row.startswith("| retraining the last layer")
    )
    assert row.endswith(" images/s |") and f"| {head.memory / 2**20:,.1f} MiB |" in row


@pytest.mark.slow
def test_two_parts_of_which_one_is_killed_end_in_the_files_of_one(tmp_path, whole):
    workdir = tmp_path / "parts"
    first, second = start(workdir, "0/2", dies=True), start(workdir, "1/2")
    assert first.wait(timeout=240) == -signal.SIGKILL, said(workdir).read_text()
    assert second.wait(timeout=240) == 0, said(workdir).read_text()
    done = outcomes(workdir)
    assert len(done) == 5, "one arm of the first part, and the four of the second"
    begun = [path for path in workdir.glob("arms/*/metrics.jsonl") if path.parent.name not in done]
    assert [json.loads(path.read_text().splitlines()[-1])["step"] for path in begun] == [8]
    assert start(workdir, "0/2").wait(timeout=240) == 0, said(workdir).read_text()
    assert outcomes(workdir).items() >= done.items(), "a finished arm was run again"
    assert sorted(outcomes(workdir)) == sorted(outcomes(whole))
    for name in FILES:
        assert without_speed(workdir / name) == without_speed(whole / name), name


def test_a_finished_experiment_is_summed_up_again_and_nothing_is_trained(whole, capsys):
    before, done = {name: (whole / name).read_bytes() for name in FILES}, outcomes(whole)
    (whole / "results.csv").unlink()
    run_experiment(small_grid.get_config(), whole)
    assert outcomes(whole) == done
    assert {name: (whole / name).read_bytes() for name in FILES} == before
    assert "2 of 2" in capsys.readouterr().out


def test_a_dry_run_prints_the_sizes_and_a_time_and_leaves_nothing(tmp_path, capsys):
    config = small_grid.get_config()
    config.run.steps, config.run.epochs = 999, 0.22
    run_experiment(config, tmp_path, dry_run=True)
    printed = capsys.readouterr().out
    assert "12 steps of 16 images: 0.22 epochs of the 622 training images of the known classes." in printed
    assert "sampling.negatives=0.5x" in printed
    assert "8 arms to run; about " in printed
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_weights_that_are_not_there(tmp_path):
    config = small_grid.get_config()
    config.run.init_from = str(tmp_path / "none.pth")
    with pytest.raises(UserError, match="^grid.amounts, the arm '.*': init_from: .*none.pth: cannot be read"):
        run_experiment(config, tmp_path, dry_run=True)


@pytest.mark.parametrize("shared", [{}, {"sampling.policy": "two_phase"}, {"sampling.negatives": 0}])
def test_a_dry_run_of_arms_with_two_phases_or_without_negatives(tmp_path, capsys, shared):
    """`shared` are fields of `run` that not every config could have, but that all arms have or override."""
    config = small_grid.get_config()
    config.run.update_from_flattened_dict(shared)
    layers = {"trainable": ("head", "fc")}
    policy = {} if shared else {"sampling": {"policy": ("two_phase",)}}
    with config.unlocked():
        config.seeds, config.grid = (0,), {"layers": layers | policy}
    run_experiment(config, tmp_path, dry_run=True)
    printed = capsys.readouterr().out
    assert "trainable=fc" in printed
    assert "2 arms to run; about " in printed
    assert not list(tmp_path.iterdir())


def test_another_config_in_the_same_folder_is_refused_and_other_paths_and_decisions_are_not(whole):
    config = small_grid.get_config()
    config.run.steps = 24
    with pytest.raises(UserError, match=r"run.steps: the experiment in .* has 12, but this config has 24; restore"):
        run_experiment(config, whole)
    config = small_grid.get_config()
    config.run.decision.keep_knowns = 0.9
    config.run.log_every = 3
    run_experiment(config, whole, dry_run=True)


def test_all_arms_compute_in_the_dtype_that_the_experiment_began_with(tmp_path, whole, capsys):
    config = small_grid.get_config()
    config.run.model.dtype = "auto"
    run_experiment(config, whole, dry_run=True)
    assert "Computing in float32 (model.dtype=auto on a CPU), images resident" in capsys.readouterr().out
    note = json.loads((whole / arm_folder.EXPERIMENT).read_text())
    note["run"]["model"]["dtype"] = "bfloat16"  # as on a GPU
    (tmp_path / arm_folder.EXPERIMENT).write_text(json.dumps(note))
    run_experiment(config, tmp_path, dry_run=True)
    text = "Computing in bfloat16, as at the start of the run (model.dtype=auto would be float32 on a CPU)"
    assert text in capsys.readouterr().out
    with pytest.raises(UserError, match="run.model.dtype: the experiment .* has 'bfloat16', but this config has 'float32'"):
        run_experiment(small_grid.get_config(), tmp_path)
    config.seeds = (0,)
    (tmp_path / arm_folder.EXPERIMENT).unlink()
    run_experiment(config, tmp_path)
    saved = [
        json.loads(path.read_text()) for path in (tmp_path / arm_folder.EXPERIMENT, *tmp_path.glob("arms/*/config.json"))
    ]
    assert len(saved) == 5
    assert {config.get("run", config)["model"]["dtype"] for config in saved} == {"float32"}


def test_a_failed_arm_is_reported_the_rest_goes_on_and_the_next_start_mends_it(tmp_path, monkeypatch, capsys):
    from openset_jax import train

    real, config = train.fit, small_grid.get_config()
    config.seeds = (0,)

    def fails(phases, *args):
        if phases[-1].objective.name == "softmax":
            raise UserError("training diverged")
        return real(phases, *args)

    monkeypatch.setattr(train, "fit", fails)
    with pytest.raises(UserError, match="2 of 4 arms failed; the first, 'sampling.negatives=0, seed 0': training diverged"):
        run_experiment(config, tmp_path)
    assert len(outcomes(tmp_path)) == 2
    answer = (tmp_path / "ANSWER.md").read_text()
    assert "2 of 4 arms are not included" in answer
    assert "its base arm failed" in answer
    assert "training diverged" in next(iter(tmp_path.glob("arms/*/log.txt"))).read_text() + "".join(
        path.read_text() for path in tmp_path.glob("arms/*/log.txt")
    )
    monkeypatch.setattr(train, "fit", real)
    run_experiment(config, tmp_path)
    assert len(outcomes(tmp_path)) == 4
    assert "are not included" not in (tmp_path / "ANSWER.md").read_text()


@pytest.mark.slow
def test_a_signal_saves_the_arm_and_the_same_command_goes_on(tmp_path, whole):
    config, asked = small_grid.get_config(), []

    def stop():  # in the training of the second arm
        asked.extend([1] * bool(outcomes(tmp_path)))
        return "SIGTERM" if len(asked) > 5 else ""

    with pytest.raises(Stopped, match="Stopped by SIGTERM. The state at step .* .arm "):
        run_experiment(config, tmp_path, stop)
    assert 0 < len(outcomes(tmp_path)) < 8
    run_experiment(config, tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


def test_arms_that_begin_with_an_arm_of_another_process_are_left_to_it_and_are_no_failure(tmp_path, capsys):
    config = small_grid.get_config()
    config.seeds = (0,)
    arms = grid.arms_of(config)
    base = next(arm.starts_from(arms) for arm in arms if arm.starts_from(arms))
    with lock.claimed(tmp_path / "arms" / base.name):
        run_experiment(config, tmp_path)
    assert base.name not in outcomes(tmp_path)
    assert 0 < len(outcomes(tmp_path)) == sum(base not in (arm, arm.starts_from(arms)) for arm in arms)
    assert "skipped: its base arm is running in another process" in capsys.readouterr().out
    assert "not finished" in (tmp_path / "ANSWER.md").read_text()


def test_results_have_no_paths_and_no_times(whole):
    for name in ("results.csv", "comparisons.csv", "ANSWER.md"):
        text = (whole / name).read_text()
        assert str(whole) not in text
        assert not re.search(r"\b(seconds?|minutes?|hours?)\b|\b\d+:\d\d\b", text), name
        if name.endswith(".csv"):
            columns = csv.DictReader(text.splitlines()).fieldnames
            assert not [column for column in columns if re.search("second|time|date|path|folder", column)]


@pytest.mark.parametrize("text", ["2", "2/2", "-1/2", "a/b", "0/0"])
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(UserError, match="--shard: "):
        experiment._part(text)


def test_a_mistake_in_the_grid_ends_the_command_with_one_line(tmp_path):
    digits = [flag.replace(CONFIG, "--config=configs/imbalance_digits.py") for flag in command(tmp_path)]
    done = run([*digits, "--config.run.sampling.policy=ballanced"])
    assert done.returncode == 2
    assert "sampling.policy: 'ballanced' is not one of" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_shipped_grids_expand():
    from configs import imbalance, imbalance_digits

    assert len(grid.arms_of(imbalance_digits.get_config())) == 18
    assert len(grid.arms_of(imbalance.get_config())) == 75
    assert len(grid.arms_of(imbalance.get_config("fashion_open"))) == 66
    assert len(grid.arms_of(imbalance.get_config("cifar10_open"))) == 63
    assert len(grid.arms_of(imbalance.get_config("features:known+negatives+unknown"))) == 100
    amounts = {arm.treatment.get("sampling.negatives") for arm in grid.arms_of(imbalance.get_config("folder,2x,5x"))}
    assert amounts == {0, "2x", "5x", "1x", "0.5x", None}
    json.dumps(imbalance.get_config("folder").run.data.to_json_best_effort())


def test_the_grid_of_layers_has_the_groups_of_the_network_and_starts_where_the_run_does(monkeypatch):
    from configs import imbalance, layers

    labels = lambda config: {arm.treatment.label.removeprefix(without) for arm in grid.arms_of(config)}
    without = "init_from=arm:sampling.negatives=0, "
    plain = {"config.run unchanged", "sampling.negatives=0", without.removesuffix(", ")}
    spread = {"trainable=head", "trainable=fc", "trainable=conv5", "trainable=conv3"}
    assert labels(layers.get_config()) == plain | spread
    assert labels(layers.get_config("fashion_open,head,conv1")) == plain - {without.removesuffix(", ")} | {
        "trainable=head", "trainable=conv1",
    }  # fmt: skip

    monkeypatch.setitem(networks.NETWORKS, "efficientnet_lite0", Tiny)  # another network, whatever its name
    config = layers.get_config("folder_pretrained")
    depths = {"config.run unchanged", "trainable=second", "trainable=all"}
    assert labels(config) == depths
    config.blocks = ("layers", "scratch")
    assert labels(config) == depths | {"init_from=, trainable=all"}
    assert labels(imbalance.get_config("folder_pretrained")) >= depths
