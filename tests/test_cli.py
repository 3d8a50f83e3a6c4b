"""The commands from outside: help, exit codes, one clear line and no traceback."""

import os
import subprocess
import sys
import types

import pytest
from absl import flags
from ml_collections import config_flags
from small_run import ROOT, command, environment, run

from openset_jax import cli
from openset_jax.errors import UserError

COMMANDS = [f"openset_jax.{name}" for name in ("train", "evaluate", "predict", "prepare", "experiment")]
BENCHMARKS = [
    f"benchmarks.{name}"
    for name in (
        "step",
        "pipeline",
        "sampler",
        "end_to_end",
        "epoch",
        "evaluate",
        "experiment",
        "predict",
        "results",
        "roofline",
        "scaling",
        "suite",
        "synthetic",
    )
]


@pytest.mark.parametrize("module", COMMANDS + BENCHMARKS)
def test_help_answers_without_importing_anything_heavy(module):
    done = run([sys.executable, "-X", "importtime", "-m", module, "--help"])
    assert done.returncode == 0
    assert f"python -m {module}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"jax", "flax", "optax", "orbax", "tensorflow", "sklearn", "scipy"}
    if "Fields of --config" in done.stdout:
        assert "--config.optimizer.learning_rate=0.0001" in done.stdout.replace("--config.run.", "--config.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.learning_rate=1"], "there is no field 'learning_rate'"),
        (["--config.model.widht=1"], "there is no field 'widht' (did you mean 'width'?); --help"),
        (["--config.steps=many"], "steps"),
        (["--config.steps=1.5"], "steps"),
        (["--workdri=x"], "workdri"),
        (["--config.data.known.classes=" + "-" * 100_000 + "1"], "nested brackets or signs"),
        (["stray"], "stray"),
        (["--config.epochs=3"], "--config.steps and --config.epochs: give one"),  # the small run has steps
    ],
)
def test_a_mistake_in_the_flags_is_one_line_and_exit_code_2(tmp_path, arguments, says):
    done = run(command("train", f"--workdir={tmp_path / 'run'}", *arguments))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "config"),
        (["--config=configs/digits.py"], "workdir"),
        (["--config=configs/absent.py", "--workdir=x"], "absent.py"),
        (["--config=README.md", "--workdir=x"], "README.md"),
    ],
)
def test_missing_flags_and_files_are_named(flags, says):
    done = run([sys.executable, "-m", "openset_jax.train", *flags])
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("hat,shoes", ("hat", "shoes")),
        ("polar bear, T-shirt/top", ("polar bear", "T-shirt/top")),
        ("hat", ("hat",)),
        ("('hat', 'a,b')", ("hat", "a,b")),
        ("'a,b'", ("a,b",)),
        ("0,1", (0, 1)),
        ("0,", (0,)),
        ("01,02", ("01", "02")),
        ("1.10,1_000,1e3", ("1.10", "1_000", "1e3")),
        ("0.1x,1,None", ("0.1x", 1, None)),
        ("()", ()),
        (("a", "b"), ("a", "b")),
    ],
)
def test_a_tuple_on_the_command_line_needs_no_quotes(given, value):
    assert cli.TupleParser().parse(given) == value


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections reads config files so
@pytest.mark.parametrize(
    ("given", "steps", "epochs"),
    [([], 7, 3.0), (["steps=9"], 9, None), (["epochs=2"], 7, 2.0), (["seed=1"], 7, 3.0), (["steps=9", "epochs=2"], 0, 0)],
)
@pytest.mark.parametrize("section", ["config", "config.run"])
def test_steps_on_the_command_line_replace_epochs_of_the_file(tmp_path, monkeypatch, section, given, steps, epochs):
    text = "import ml_collections\nfrom configs import default\ndef get_config():\n  run = default.get_config()\n"
    text += "  run.steps, run.epochs = 7, 3.0\n"
    text += "  return run" if section == "config" else "  return ml_collections.ConfigDict({'run': run})"
    (tmp_path / "mine.py").write_text(text)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    arguments = ["it", f"--config={tmp_path / 'mine.py'}", *(f"--{section}.{one}" for one in given)]
    monkeypatch.setattr("sys.argv", arguments)
    values(arguments)
    if len(given) == 2:
        with pytest.raises(UserError, match=f"^--{section}.steps and --{section}.epochs: give one of them, not both$"):
            cli._prefer_given_steps(values["config"])
        return
    cli._prefer_given_steps(values["config"])
    run = values["config"].value.get("run", values["config"].value)
    assert (run.steps, run.epochs) == (steps, epochs)


def test_names_in_a_field_of_the_config_need_no_quotes(tmp_path):
    done = run(command("train", f"--workdir={tmp_path}", "--config.data.known.classes=0,hat,shoes", input="stream"))
    assert done.returncode == 2
    assert "data.known: no class 'hat' in digits" in done.stderr


@pytest.mark.parametrize(
    ("module", "flags", "says"),
    [
        ("train", ["--config=configs/digits.py", "--workdir="], "--workdir: is empty"),
        ("evaluate", ["--workdir="], "--workdir: is empty"),
        ("predict", ["--workdir=x", "--out="], "--out: is empty"),
        ("experiment", ["--config=configs/imbalance_digits.py", "--workdir="], "--workdir: is empty"),
        ("prepare", ["--config=configs/digits.py", "--out="], "--out: is empty"),
    ],
)
def test_an_empty_path_is_refused(module, flags, says):
    done = run([sys.executable, "-m", f"openset_jax.{module}", *flags])
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}")


def test_a_command_that_wrote_nothing_removes_the_folders_that_it_created(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in ("mine", "runs/deep"):
        done = run(command("train", f"--workdir={tmp_path / folder}", **{"data.known.classes": "('0', '11')"}))
        assert done.returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_mistake_inside_a_config_file_says_what_it_is(tmp_path):
    file = tmp_path / "mine.py"
    text = "from configs import default\ndef get_config():\n  config = default.get_config()\n  config.stepz = 3\n"
    file.write_text(text)
    done = run([sys.executable, "-m", "openset_jax.train", f"--config={file}", "--workdir=x"])
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: --config={file}: there is no field 'stepz' (did you mean 'steps'?); --help lists the fields\n"
    )
    assert "Traceback" not in done.stderr


def test_bad_data_is_exit_code_2_before_anything_is_trained(tmp_path):
    done = run(command("train", f"--workdir={tmp_path}", **{"data.known.classes": "('0', '11')"}))
    assert done.returncode == 2
    assert done.stderr == "error: data.known: no class '11' in digits; it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    assert not (tmp_path / "checkpoints").exists()


def raising(error):
    script = (
        "import sys; sys.argv = ['x']\nfrom openset_jax import cli\n"
        f"def main(): raise {error}\ncli.run(main, lambda: None)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )


def test_a_defect_of_ours_keeps_its_traceback_and_exits_with_1():
    done = raising("RuntimeError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            "RuntimeError('RESOURCE_EXHAUSTED: no room for 9 bytes.\\nmore')",
            "9 bytes.); use a smaller batch_size",
        ),
        ("OSError(28, 'No space left on device', 'images.npy')", "images.npy'); free some space"),
    ],
)
def test_memory_and_disks_that_are_too_small_are_no_defect_of_ours(error, says):
    done = raising(error)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", cli._REMEDIES)
def test_disks_that_cannot_be_written_are_no_defect_of_ours(number, capsys):
    with pytest.raises(SystemExit) as ended, cli._one_line_errors():
        raise OSError(number, os.strerror(number), "runs/mine")
    assert ended.value.code == 2
    assert os.strerror(number) in (said := capsys.readouterr().err)
    assert "'runs/mine'" in said
    assert "repeat the command" in said
    assert said.count("\n") == 1


def test_an_interrupt_in_a_callback_ends_the_command(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr("sys.__unraisablehook__", lambda error: None)
    cli._unraisable(types.SimpleNamespace(exc_value=KeyboardInterrupt()))
    assert codes == [3] and capsys.readouterr().err == "error: interrupted\n"
