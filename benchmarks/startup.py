"""Seconds from the command to the end of the first step, by stage.

    python -m benchmarks.startup --config=configs/digits.py --config.data.packed=PACKED

Why: every user waits for it. Each round is a new process of `python -m openset_jax.train` with this config. Its
compiled programs are on disk from a first start, which is reported separately; with --cold every start compiles.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import hardware, outputs, tables, timing
from openset_jax import cli
from openset_jax.errors import UserError

STAGES = ("imports", "data", "network", "images to devices", "compilation", "first step", "all")


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("rounds", 5, "Measured starts.", lower_bound=1)
    flags.DEFINE_bool("cold", False, "Compile at every start.")
    flags.DEFINE_float("seconds", 0, "Time limit: starts that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file, limit = flags.FLAGS, outputs.json_file(flags.FLAGS.json), timing.Limit(flags.FLAGS.seconds)
    machine = hardware.describe()
    hardware.print_description(machine)
    config = [word for word in sys.argv[1:] if word.startswith("--config")]
    result: dict[str, Any] = {
        "seconds": None,
        "first": None,
        "cold": args.cold,
        "config": config,
        "machine": machine,
        "left_out": {},
    }
    with tempfile.TemporaryDirectory() as cache:
        if not args.cold:
            result["first"] = start(config, cache)
            outputs.write_json(file, result)
        rounds, longest = list[dict[str, Any]](), (result["first"] or {"all": 0.0})["all"]
        while len(rounds) < args.rounds and limit.left() > longest:
            rounds.append(start(config, "" if args.cold else cache))
            longest = rounds[-1]["all"]
    if len(rounds) < args.rounds:
        result["left_out"][f"{args.rounds - len(rounds)} of {args.rounds} starts"] = f"each takes about {longest:.0f} s"
    if rounds:
        result["seconds"] = {stage: timing.summary([r[stage] for r in rounds]) for stage in STAGES}
        result["tensorflow"] = rounds[-1]["tensorflow"]
        print("seconds from the command to the end of the first step, " + ("cold" if args.cold else "compiled before"))
        rows = [tables.row(k, v, 2) for k, v in result["seconds"].items()]
        tables.print_table([["", "median", "min", "max"], *rows])
        print(f"TensorFlow {'was' if rounds[-1]['tensorflow'] else 'was not'} loaded.")
    if first := result["first"]:
        print(f"the first start, compiled cold: {first['all']:.1f} s, of which compilation took {first['compilation']:.1f}")
    outputs.write_json(file, result)


def start(config: list[str], cache: str) -> dict[str, Any]:
    """Seconds of each stage of one start of the train command, and "tensorflow": True if it was loaded.

    Args:
      config: the words of the command line that define the config.
      cache: folder of compiled programs; "" for none.

    Raises:
      UserError: the run ended before its first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "times.json")
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache or str(pathlib.Path(folder, "cache"))}
        command = [
            sys.executable,
            "-m",
            "benchmarks.startup",
            str(out),
            str(time.time()),
            f"--workdir={folder}/run",
            *config,
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if not out.exists():
            raise UserError(f"the run ended before its first step: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
        return json.loads(out.read_text())


def train_one_step(out: str, spawned: float) -> None:
    """Runs the train command to the end of its first step, and writes the seconds of each stage.

    The functions between the stages are replaced by others that note the time.

    Args:
      out: file to write to.
      spawned: time (`time.time`) at which the process was started.
    """
    times: dict[str, float] = {}
    since = spawned

    def over(stage):
        nonlocal since
        now = time.time()
        times[stage] = times.get(stage, 0) + now - since
        since = now

    import jax

    from openset_jax import train as command
    from openset_jax.data import pool_builder
    from openset_jax.training import devices, input_choice

    open_pool, make_image_input, pmap_train = pool_builder.open_pool, input_choice.make_image_input, devices.pmap_train

    def timed_open_pool(*args, **options):
        over("imports")
        pool = open_pool(*args, **options)
        over("data")
        return pool

    def timed_make_image_input(*args, **options):
        over("network")
        images = make_image_input(*args, **options)
        over("images to devices")
        return images

    def timed_pmap_train(*args):
        step = pmap_train(*args)

        def first(*arguments):
            over("data")  # the first batches
            result = step(*arguments)
            over("compilation")
            jax.block_until_ready(result)
            over("first step")
            times["all"], times["tensorflow"] = since - spawned, "tensorflow" in sys.modules
            pathlib.Path(out).write_text(json.dumps(times))
            os._exit(0)

        return first

    pool_builder.open_pool, input_choice.make_image_input = timed_open_pool, timed_make_image_input
    devices.pmap_train = timed_pmap_train
    cli.run(command.main, command.define_flags)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1].endswith("times.json"):
        arguments = sys.argv[1:3]
        del sys.argv[1:3]
        train_one_step(arguments[0], float(arguments[1]))
    else:
        cli.run(main, define_flags)
