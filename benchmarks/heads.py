"""Many heads at once: the seconds of one arm of an experiment on vectors, of many at once, and of many one after the other.

    python -m benchmarks.heads

Why: a step of one head is too small for a device. `openset_jax.experiment` trains the arms of one program at once; the
measure of that is the time of the same arms one after the other. Each experiment is a process of the command, timed from
its start. The vectors are synthetic, 1,280 features of 12,000 examples.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from benchmarks import hardware, outputs, tables
from openset_jax import cli
from openset_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
ROLES = {**{f"known{i}": "known" for i in range(6)}, **{f"other{i}": "negatives" for i in range(4)}, "new": "unknown"}
EXAMPLES, FEATURES = 12_000, 1_280
ALONE = (  # the command, with each arm alone
    "from openset_jax import cli, experiment; from openset_jax.training import together; "
    "together.shared_by = lambda *_: None; cli.run(experiment.main, experiment.define_flags)"
)


def get_config(asked: str) -> ml_collections.ConfigDict:
    """The experiment `ROOT,ARMS,STEPS`: numbers of negatives and seeds, on batches of 256."""
    from configs import features

    root, arms, steps = asked.split(",")
    config = ml_collections.ConfigDict()
    config.run = features.get_config("known+negatives+unknown")
    config.run.update_from_flattened_dict({"data.root": root, "epochs": None, "steps": int(steps)})
    treatments = min(int(arms), 10)
    config.seeds = tuple(range(int(arms) // treatments))
    numbers = tuple(100 * (i + 1) for i in range(treatments))
    config.grid = {"numbers": {"sampling": {"negatives": numbers}}}
    return config.lock()


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("arms", 100, "Number of arms, a multiple of 10.", lower_bound=10)
    flags.DEFINE_integer("steps", 1_000, "Steps of each arm, a multiple of 10.", lower_bound=10)
    flags.DEFINE_integer(
        "rounds", 3, "Rounds of one arm, and of all at once; one after the other is run once.", lower_bound=1
    )
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file, machine = flags.FLAGS, outputs.json_file(flags.FLAGS.json), hardware.describe()
    for name in ("arms", "steps"):
        if getattr(args, name) % 10:
            raise UserError(f"--{name}: {getattr(args, name)} is not a multiple of 10")
    hardware.print_description(machine)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_vectors(folder / "vectors")
        names = {"one arm": 1, f"{args.arms} arms at once": args.arms}
        contenders = {name: lambda arms=arms: experiment(folder, arms, args.steps) for name, arms in names.items()}
        found = {name: [each() for _ in range(args.rounds)] for name, each in contenders.items()}
        found[f"{args.arms} arms, one after the other"] = [experiment(folder, args.arms, args.steps, alone=True)]
    rows = [["seconds from the command", "trained", "all arms evaluated", "answered"]]
    for name, runs in found.items():
        spans = [[run[key] for run in runs] for key in ("trained", "evaluated", "answered")]
        rows.append([name, *(" to ".join(dict.fromkeys(f"{v:.1f}" for v in (min(s), max(s)))) for s in spans)])
    print(f"\n{args.steps:,} steps of 256 vectors of {FEATURES:,} features:")
    tables.print_table(rows)
    outputs.write_json(file, {"seconds": found, "arms": args.arms, "steps": args.steps, "machine": machine})


def write_vectors(root: pathlib.Path) -> None:
    """Writes vectors of Gaussian classes as a folder of `features:PATH`."""
    root.mkdir()
    rng, names = np.random.default_rng(0), list(ROLES)
    centres = rng.normal(0, 0.2, (len(names), FEATURES)).astype(np.float32)
    label = np.arange(EXAMPLES) % len(names)
    vectors = centres[label] + rng.standard_normal((EXAMPLES, FEATURES), np.float32)
    np.save(root / "features.npy", vectors.astype(np.float16))
    rows = [f"{i},{names[k]},{ROLES[names[k]]}\n" for i, k in enumerate(label)]
    (root / "index.csv").write_text("id,class,role\n" + "".join(rows))


def experiment(folder: pathlib.Path, arms: int, steps: int, *, alone: bool = False) -> dict[str, Any]:
    """Runs an experiment in a new folder; returns the seconds until all arms are "trained", "evaluated" and "answered".

    An arm is trained when the line of its last step is written, which has the metrics on validation vectors.

    Raises:
      UserError: it failed; the message has its last line.
    """
    workdir = pathlib.Path(tempfile.mkdtemp(dir=folder))
    how = ["-c", ALONE] if alone else ["-m", "openset_jax.experiment"]
    config = f"--config={pathlib.Path(__file__)}:{folder / 'vectors'},{arms},{steps}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.time()
    command = [sys.executable, *how, config, f"--workdir={workdir}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    answered = time.time() - start
    finished = [path.stat().st_mtime for path in workdir.glob("arms/*/outcome.npz")]
    if done.returncode or len(finished) < arms:
        raise UserError(f"openset_jax.experiment ended with exit code {done.returncode}: {done.stderr.splitlines()[-1:]}")
    lines = [path.stat().st_mtime for path in workdir.glob("arms/*/metrics.jsonl")]
    return {"trained": max(lines) - start, "evaluated": max(finished) - start, "answered": answered}


if __name__ == "__main__":
    cli.run(main, define_flags)
