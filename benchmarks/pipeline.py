"""Images per second of the streaming input, beside a PyTorch DataLoader that does the same with PIL, on the same machine.

    python -m benchmarks.pipeline --photos=DIR --peer_python=ENV/bin/python

Why: a step can only be as fast as its input. Both sides read JPEGs of DIR/{known,negatives}/CLASS/, decode them, scale the
shorter side to 256, cut the centre square, and hand out shuffled uint8 batches; rounds alternate, the other side is idle
meanwhile, and start-up is left out on both. Without PyTorch the peer is left out.
"""

import contextlib
import os
from typing import Any

from absl import flags

from benchmarks import common
from benchmarks.peer import open_peer, peer_python
from openset_jax import cli

TARGET = 1.6


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
    contenders = {"openset_jax": lambda: our_rate(pool, members, drawn)}
    with contextlib.ExitStack() as stack:
        python = peer_python(args.peer_python)
        peer = stack.enter_context(open_peer(python, "torch_loader.py", job)) if python else None
        if peer:
            name = f"torch DataLoader, {workers} workers"
            print("peer: " + ", ".join(f"{k} {v}" for k, v in peer.versions.items()))
            contenders[name] = lambda: peer.rate(warmup=args.warmup, seconds=args.seconds)
        else:
            print("peer: left out, because this Python has no torch; --peer_python=PATH names one that has")
        values = common.alternate(args.rounds, contenders)

    result = {"machine": machine, "images_per_second": {k: common.summary(v) for k, v in values.items()}, "peer": None}
    common.print_table(
        [["images/s", "median", "min", "max"], *(common.row(k, v) for k, v in result["images_per_second"].items())]
    )
    if peer:
        ours, theirs = values["openset_jax"], values[name]
        result["peer"] = {"versions": peer.versions, "workers": workers}
        result["paired_ratio"] = common.ratios(ours, theirs)
        result["ratio"] = common.summary(ours)["median"] / common.summary(theirs)["median"]
        print(f"ratio of the medians: {result['ratio']:.3f}")
        common.print_table([["ratio", "median", "min", "max"], common.row("round by round", result["paired_ratio"], 3)])
        print(common.verdict("ratio, median of the rounds", result["paired_ratio"]["median"], TARGET))
    common.write_json(file, result)


def our_rate(pool: Any, members: list[Any], sampler: Any) -> float:
    """One round of ours: the pipeline is built, warmed up, measured and taken down."""
    from openset_jax.data import pipeline

    args = flags.FLAGS
    skipped = pipeline.Skipped(pool)
    batches = pipeline.training_batches(pool, members, sampler, start=0, stop=10**9, stored_size=args.size, skipped=skipped)
    return common.stream_rate(batches, sampler.batch_size, warmup=args.warmup, seconds=args.seconds)


if __name__ == "__main__":
    cli.run(main, define_flags)
