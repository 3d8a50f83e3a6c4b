"""Runs of the program on the digits: killed and resumed, evaluated on another device, and repeated.

    python -m benchmarks.correctness_runs WORKDIR COMMAND...

These are the checks of `benchmarks.correctness` that start the program's commands. As a process, this file runs
COMMAND, which trains in WORKDIR, and kills it after its first checkpoint.
"""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.children import ROOT, Children

STEPS, KNOWN_ACCURACY, SEEN_AUROC = 300, 0.9, 0.95
# The run is killed while its first evaluation compiles, long before its last step.
KILLED = {"steps": STEPS, "steps_per_call": 10, "checkpoint.every": 50, "eval.every": 100}

# Measured on a CPU with 617 test images: bfloat16 instead of float32 changes no decision, and p_none by up to 0.01; two
# programs in bfloat16 differ in p_none by up to 0.002.
SAME_DECISIONS, P_NONE, HEADLINE = 0.99, 0.03, 0.01

# A small network, because XLA's deterministic operations are slow on a GPU.
REPEATED = {
    "steps": 20, "steps_per_call": 10, "batch_size": 32, "log_every": 10, "eval.every": 10, "checkpoint.every": 20,
    "eval.compare_scores": False, "model.width": 0.0625, "optimizer.warmup_steps": 0,
}  # fmt: skip
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"  # has no effect on other devices


class Finding(NamedTuple):
    """The outcome of a check.

    Attributes:
      passed: True if the check passed.
      detail: one line with the values, the largest difference, and the limit.
      seconds: duration of the check; None for the time since the previous finding.
    """

    passed: bool
    detail: str
    seconds: float | None = None


def digits(children: Children) -> Iterator[Finding]:
    """Checks a run that is killed, resumed and evaluated; then the same run, evaluated on the CPU."""
    workdir, home = children.scratch / "digits", children.scratch / "digits_on_cpu"
    train = train_command(workdir, _pack(children), KILLED)
    children.run("digits, killed", [sys.executable, "-m", "benchmarks.correctness_runs", str(workdir), *train])
    output = children.run("digits, resumed", train)
    yield judge_run(output, json.loads((workdir / "metrics.json").read_text()))
    shutil.copytree(workdir, home)
    evaluate = [sys.executable, "-m", "openset_jax.evaluate", f"--workdir={home}"]
    children.run("digits, on the CPU", evaluate, JAX_PLATFORMS="cpu")
    yield compare_evaluations(workdir, home)


def repeated(children: Children) -> Iterator[Finding]:
    """Checks that two equal short runs leave equal files. They share no compiled programs: compilation is checked, too."""
    packed, workdirs = _pack(children), [children.scratch / f"repeated_{name}" for name in ("once", "twice")]
    flags = f"{children.environment.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
    children.together(
        {
            f"{workdir.name} run": (
                train_command(workdir, packed, REPEATED),
                {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": f"{workdir}_xla"},
            )
            for workdir in workdirs
        }
    )
    yield compare_files(*workdirs)


def train_command(workdir: pathlib.Path, packed: pathlib.Path, changes: Mapping[str, Any]) -> list[str]:
    """The train command with `configs/digits.py`, resident images, and changed fields."""
    fields = {"data.packed": packed, "input": "resident"} | dict(changes)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"--config={ROOT / 'configs/digits.py'}"
    return [sys.executable, "-m", "openset_jax.train", config, *flags, f"--workdir={workdir}"]


def judge_run(output: str, metrics: Mapping[str, Any]) -> Finding:
    """Checks that a run resumed from a checkpoint, and learned.

    Args:
      output: of its last start.
      metrics: its metrics.json.
    """
    resumed = re.search(r"^Resuming at step (\d+)\.$", output, re.MULTILINE)
    if not resumed:
        return Finding(False, "the second start did not print that it resumes from a checkpoint")
    step = int(resumed[1])
    accuracy, auroc = (_value(metrics, name) for name in ("known.accuracy", "open_set.seen_negatives.auroc"))
    detail = (
        f"resumed at step {step} of {STEPS}; accuracy of known classes {accuracy:.3f} (at least {KNOWN_ACCURACY}), AUROC of "
        f"seen negatives {auroc:.3f} (at least {SEEN_AUROC})"
    )
    return Finding(0 < step < STEPS and accuracy >= KNOWN_ACCURACY and auroc >= SEEN_AUROC, detail)


def compare_evaluations(there: pathlib.Path, here: pathlib.Path) -> Finding:
    """Compares two evaluations of one checkpoint on different devices.

    Args:
      there, here: workdirs of the device and of the CPU.
    """
    one, other = _scores(there), _scores(here)
    if one.keys() != other.keys() or not one:
        return Finding(False, f"scores.csv has {len(one)} images on the device and {len(other)} different ones on the CPU")
    same = sum(one[id_]["decision"] == other[id_]["decision"] for id_ in one) / len(one)
    moved = max(abs(float(one[id_]["p_none"]) - float(other[id_]["p_none"])) for id_ in one)
    names = ("known.accuracy", "open_set.seen_negatives.auroc", "open_set.unseen_unknowns.auroc")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (there, here)]
    apart = max(abs(_value(metrics[0], name) - _value(metrics[1], name)) for name in names)
    detail = (
        f"{len(one)} images: {same:.1%} of the decisions agree (at least {SAME_DECISIONS:.0%}), p_none differs by up to "
        f"{moved:.2g} (limit {P_NONE}), headline numbers by up to {apart:.2g} (limit {HEADLINE})"
    )
    return Finding(same >= SAME_DECISIONS and moved <= P_NONE and apart <= HEADLINE, detail)


def compare_files(one: pathlib.Path, other: pathlib.Path) -> Finding:
    """Compares the files of two equal runs, byte by byte; metrics.jsonl without the images per second."""
    equal = {name: (one / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.json", "scores.csv")}
    lines = [_lines(folder) for folder in (one, other)]
    equal["metrics.jsonl"] = lines[0] == lines[1] != []
    if all(equal.values()):
        last = lines[0][-1]
        return Finding(True, f"{', '.join(equal)} are equal after {last['step']} steps (loss {last['loss']!r})")
    detail = f"different: {', '.join(name for name, same in equal.items() if not same)}"
    pairs = zip(*lines, strict=False)
    first = next(((a, b) for a, b in pairs if a != b), None)
    if first:
        detail += f"; first at step {first[0]['step']}: losses {first[0]['loss']!r} and {first[1]['loss']!r}"
    return Finding(False, detail)


def _pack(children: Children) -> pathlib.Path:
    """Packs the digits in a new folder."""
    folder = children.folder("packed")
    pack = [sys.executable, "-m", "benchmarks.packed_digits", f"--out={folder}"]
    children.run(f"packing {folder.name}", pack, JAX_PLATFORMS="cpu")
    return folder


def _value(metrics: Any, name: str) -> float:
    for part in name.split("."):
        metrics = metrics[part]
    return metrics["value"]


def _scores(workdir: pathlib.Path) -> dict[str, dict[str, str]]:
    with (workdir / "scores.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def _lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def kill_after_checkpoint(workdir: pathlib.Path, command: list[str]) -> int:
    """Runs a train command, and kills it after its first checkpoint.

    Returns:
      0; if the command ends before, its exit code, or 1 if that is 0.
    """
    process = subprocess.Popen(command)
    while process.poll() is None:
        if any(file.parent.name.isdigit() for file in workdir.glob("checkpoints/*/_CHECKPOINT_METADATA")):
            process.kill()
            process.wait()
            return 0
        time.sleep(0.005)
    print(f"ended with exit code {process.returncode} before its first checkpoint")
    return process.returncode or 1


if __name__ == "__main__":
    sys.exit(kill_after_checkpoint(pathlib.Path(sys.argv[1]), sys.argv[2:]))
