"""From the command to the end of the first step: how long, and where the time goes.

    python -m benchmarks.startup --config=configs/digits.py --config.data.packed=PACKED

Why: the first thing anybody waits for. Each round is a fresh process of `python -m openset_jax.train` with this config,
whose compiled programs are on disk from a first start, which is reported by itself (`--cold`: it has none, every time).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli
from openset_jax.errors import UserError

STAGES = ("imports", "data", "network", "images to devices", "compilation", "first step", "all")


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("rounds", 5, "Starts to measure.", lower_bound=1)
    flags.DEFINE_bool("cold", False, "Compile anew at every start.")
    flags.DEFINE_float("seconds", 0, "Time limit: starts that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, file, limit = flags.FLAGS, common.json_file(flags.FLAGS.json), common.Limit(flags.FLAGS.seconds)
    machine = common.machine()
    common.print_machine(machine)
    config = [word for word in sys.argv[1:] if word.startswith("--config")]
    result = {"seconds": None, "first": None, "cold": args.cold, "config": config, "machine": machine, "left_out": {}}
    with tempfile.TemporaryDirectory() as cache:
        if not args.cold:
            result["first"] = start(config, cache)
            common.write_json(file, result)
        rounds, longest = [], (result["first"] or {"all": 0.0})["all"]
        while len(rounds) < args.rounds and limit.left() > longest:
            rounds.append(start(config, "" if args.cold else cache))
            longest = rounds[-1]["all"]
    if len(rounds) < args.rounds:
        result["left_out"][f"{args.rounds - len(rounds)} of {args.rounds} starts"] = f"each takes about {longest:.0f} s"
    if rounds:
        result["seconds"] = {stage: common.summary([r[stage] for r in rounds]) for stage in STAGES}
        result["tensorflow"] = rounds[-1]["tensorflow"]
        print("seconds from the command to the end of the first step, " + ("cold" if args.cold else "compiled before"))
        rows = [common.row(k, v, 2) for k, v in result["seconds"].items()]
        common.print_table([["", "median", "min", "max"], *rows])
        print(f"TensorFlow {'was' if rounds[-1]['tensorflow'] else 'was not'} loaded.")
    if first := result["first"]:
        print(f"the first start, compiled cold: {first['all']:.1f} s, of which compilation took {first['compilation']:.1f}")
    common.write_json(file, result)


def start(config: list[str], cache: str) -> dict[str, Any]:
    """Seconds of each stage of one start of the train command.

    Args:
      config: the words of the command line that describe the config.
      cache: folder of compiled programs, "" for none.

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


def instrumented(out: str, spawned: float) -> None:
    """Runs the train command up to the end of its first step, and writes when each stage was over."""
    times, since = {}, spawned

    def over(stage):
        nonlocal since
        now = time.time()
        times[stage] = times.get(stage, 0) + now - since
        since = now

    from openset_jax import build
    from openset_jax import train as command

    open_pool, make_feed, pmap_train = build.open_pool, build.make_feed, None

    def opened(*args, **options):
        over("imports")
        pool = open_pool(*args, **options)
        over("data")
        return pool

    def fed(*args, **options):
        nonlocal pmap_train
        over("network")
        from openset_jax.training import devices

        pmap_train, devices.pmap_train = devices.pmap_train, stepping
        feed = make_feed(*args, **options)
        over("images to devices")
        return feed

    def stepping(*args):
        import jax

        step = pmap_train(*args)

        def first(*arguments):
            over("data")  # the sampler, the first batches
            result = step(*arguments)
            over("compilation")
            jax.block_until_ready(result)
            over("first step")
            times["all"], times["tensorflow"] = since - spawned, "tensorflow" in sys.modules
            pathlib.Path(out).write_text(json.dumps(times))
            os._exit(0)

        return first

    build.open_pool, build.make_feed = opened, fed
    cli.run(command.main, command.define_flags)


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1].endswith("times.json"):
        arguments = sys.argv[1:3]
        del sys.argv[1:3]
        instrumented(arguments[0], float(arguments[1]))
    else:
        cli.run(main, define_flags)
