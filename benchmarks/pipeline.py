"""Images per second of the streaming input, beside a PyTorch DataLoader that does the same with PIL, on the same machine.

    python -m benchmarks.pipeline --photos=DIR --peer_python=ENV/bin/python

Why: a step can only be as fast as its input. Both sides read JPEGs of DIR/{known,negatives}/CLASS/, decode them, scale the
shorter side to 256, cut the centre square, and hand out shuffled uint8 batches; rounds alternate, the other side is idle
meanwhile, and start-up is left out on both. Without PyTorch the peer is left out.
"""

import base64
import contextlib
import functools
import importlib.util
import os
import sys
from typing import Any

from absl import flags

from benchmarks import common
from benchmarks.peer import Peer, open_peer
from openset_jax import cli

OURS, LOOP, TORCH = "openset_jax", "bare loop", "torch DataLoader"
PEERS = {  # its script, what it needs beside NumPy, and how many times its rate ours is to be
    LOOP: ("jpeg_loop.py", ("simplejpeg", "PIL"), 0.9),
    TORCH: ("torch_loader.py", ("torch", "PIL"), 1.6),
}
SAMPLE = 64


def define_flags() -> None:
    flags.DEFINE_string("photos", None, "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg.", required=True)
    flags.DEFINE_string("peer_python", "", "Python with torch, pillow and numpy; empty for this one, if it has torch.")
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each side; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each round that do not count.", lower_bound=0.0)
    flags.DEFINE_integer("workers", 0, "The peer's worker processes; 0 for one on each core.", lower_bound=0)
    flags.DEFINE_integer("batch_size", 64, "Images of a batch.", lower_bound=1)
    flags.DEFINE_integer("size", 256, "Side of the squares.", lower_bound=8)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args = flags.FLAGS
    file, machine = common.json_file(args.json), common.machine()
    pool = common.photo_pool(args.photos)
    from openset_jax.data import sampler

    members = pool.training_members()
    sizes = tuple(map(len, members))
    drawn = sampler.make_sampler("natural", sizes, batch_size=args.batch_size, seed=0)
    common.print_machine(machine)
    print(f"{sum(sizes):,} photographs, batches of {args.batch_size} x {args.size}x{args.size}x3 uint8")

    workers = args.workers or machine["cores"]
    rows = [row for member in members for row in member.tolist()]
    paths = [os.fsdecode(path) for path in pool.sources[0].fetch(pool.record[rows])]
    job = {
        "files": [[path, max(int(pool.label[row]), -1)] for row, path in zip(rows, paths, strict=True)],
        "batch_size": args.batch_size,
        "size": args.size,
        "workers": workers,
    }
    contenders = {OURS: lambda: our_rate(pool, members, drawn)}
    result = {"machine": machine, "peers": {}, "paired_ratio": {}}
    with contextlib.ExitStack() as stack:
        for name, (script, packages, _) in PEERS.items():
            python = args.peer_python if name == TORCH else ""
            if not python and not all(map(importlib.util.find_spec, packages)):
                print(f"{name}: left out, because this Python lacks {' or '.join(packages)}")
                continue
            peer = stack.enter_context(open_peer(python or sys.executable, script, job))
            print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in peer.versions.items()))
            result["peers"][name] = {"versions": peer.versions, "workers": workers}
            contenders[name] = functools.partial(peer.rate, warmup=args.warmup, seconds=args.seconds)
            if name == LOOP:
                result["grey_levels_apart"] = grey_levels_apart(pool, rows[:SAMPLE], peer)
                print(f"{name}: {result['grey_levels_apart']:.2f} grey levels from ours on average")
        values = common.alternate(args.rounds, contenders)

    result["images_per_second"] = {k: common.summary(v) for k, v in values.items()}
    common.print_table(
        [["images/s", "median", "min", "max"], *(common.row(k, v) for k, v in result["images_per_second"].items())]
    )
    for name in result["peers"]:
        result["paired_ratio"][name] = common.ratios(values[OURS], values[name])
    if result["peers"]:
        rows = [common.row(f"{OURS} / {name}", ratio, 3) for name, ratio in result["paired_ratio"].items()]
        common.print_table([["ratio, round by round", "median", "min", "max"], *rows])
    for name, ratio in result["paired_ratio"].items():
        print(common.verdict(f"{OURS} / {name}, median of the rounds", ratio["median"], PEERS[name][2]))
    common.write_json(file, result)


def our_rate(pool: Any, members: list[Any], sampler: Any) -> float:
    """One round of ours: the pipeline is built, warmed up, measured and taken down."""
    from openset_jax.data import batches, pipeline
    from openset_jax.data.skipped import Skipped

    args, skipped = flags.FLAGS, Skipped(pool)
    plan = batches.training(pool, members, sampler, start=0, stop=10**9, skipped=skipped)
    stream = pipeline.stream(pool, plan, stored_size=args.size, skipped=skipped)
    return common.stream_rate(stream, sampler.batch_size, warmup=args.warmup, seconds=args.seconds)


def grey_levels_apart(pool: Any, rows: list[int], peer: Peer) -> float:
    """Mean absolute difference of our pixels and the peer's: that both do the same work."""
    import numpy as np

    from openset_jax.data import pipeline

    ours = pipeline.read_images(pool, np.array(rows), flags.FLAGS.size)
    theirs = np.frombuffer(base64.b64decode(peer.ask({"sample": len(rows)})["images"]), np.uint8)
    return float(np.abs(ours.ravel().astype(int) - theirs).mean())


if __name__ == "__main__":
    cli.run(main, define_flags)
