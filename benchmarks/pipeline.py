"""Images per second of the streaming input, beside a PyTorch DataLoader that does the same with PIL, on the same machine.

    python -m benchmarks.pipeline --photos=DIR --peer_python=ENV/bin/python

Why: a step is never faster than its input, and an input never faster than the decoder. A bare loop over libjpeg-turbo
(simplejpeg) measures the decoder, for the input and for `prepare`, which decodes and writes. All contenders read the
JPEGs in DIR/{known,negatives}/CLASS/, decode them, scale the shorter side to 256, cut the centre square, and make uint8
batches. Rounds alternate; the other contenders are idle meanwhile; start-up is not measured. Peers that are not
installed are left out.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from benchmarks.peer import Peer, open_peer
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    import numpy as np

    from openset_jax.data.pools import Pool
    from openset_jax.data.sampler import Sampler

OURS, PREPARE, LOOP, TORCH = timing.OURS, "prepare", "bare loop", "torch DataLoader"
PEERS = {  # its script, the packages it needs besides NumPy, and the target for our rate over its rate
    LOOP: ("jpeg_loop.py", ("simplejpeg", "PIL"), 0.9),
    TORCH: ("torch_loader.py", ("torch", "PIL"), 1.6),
}
SAMPLE, MOST_PACKED = 64, 10**6  # images compared with the peer's; more images than a round of prepare decodes


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("photos", None, "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg.", required=True)
    flags.DEFINE_string("peer_python", "", "Python with torch, pillow and numpy; empty for this one, if it has torch.")
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each side; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each round that are not measured.", lower_bound=0.0)
    flags.DEFINE_integer("workers", 0, "Worker processes of the peers; 0 for one on each core.", lower_bound=0)
    flags.DEFINE_integer("batch_size", 64, "Images of a batch.", lower_bound=1)
    flags.DEFINE_integer("size", 256, "Side of the squares.", lower_bound=8)
    flags.DEFINE_string("scratch", "", "Folder for the files of `prepare`, about 1 GB; empty for the system's.")
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args = flags.FLAGS
    file, machine = outputs.json_file(args.json), hardware.describe()
    pool = inputs.photo_pool(args.photos)
    from openset_jax.data.sampler import make_sampler

    rows_by_class = pool.training_rows()
    sizes = tuple(map(len, rows_by_class))
    sampler = make_sampler("natural", sizes, batch_size=args.batch_size, seed=0)
    hardware.print_description(machine)
    print(f"{sum(sizes):,} photographs, batches of {args.batch_size} x {args.size}x{args.size}x3 uint8")

    workers = args.workers or machine["cores"]
    rows = [row for of_class in rows_by_class for row in of_class.tolist()]
    paths = [os.fsdecode(path) for path in pool.sources[0].fetch(pool.record[rows])]
    job = {
        "files": [[path, max(int(pool.label[row]), -1)] for row, path in zip(rows, paths, strict=True)],
        "batch_size": args.batch_size,
        "size": args.size,
        "workers": workers,
    }
    contenders = {OURS: lambda: our_rate(pool, rows_by_class, sampler), PREPARE: lambda: prepare_rate(pool)}
    result: dict[str, Any] = {"machine": machine, "peers": {}, "paired_ratio": {}}
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
        values = timing.alternate(args.rounds, contenders)

    result["images_per_second"] = {k: timing.summary(v) for k, v in values.items()}
    tables.print_table(
        [["images/s", "median", "min", "max"], *(tables.row(k, v) for k, v in result["images_per_second"].items())]
    )
    compared = [(ours, name) for name in result["peers"] for ours in (OURS, PREPARE) if (ours, name) != (PREPARE, TORCH)]
    result["paired_ratio"] = {f"{a} / {b}": timing.ratios(values[a], values[b]) for a, b in compared}
    if compared:
        cells = [tables.row(name, ratio, 3) for name, ratio in result["paired_ratio"].items()]
        tables.print_table([["ratio, round by round", "median", "min", "max"], *cells])
    for (_, peer), (name, ratio) in zip(compared, result["paired_ratio"].items(), strict=True):
        print(tables.verdict(f"{name}, median of the rounds", ratio["median"], PEERS[peer][2]))
    outputs.write_json(file, result)


def our_rate(pool: Pool, rows_by_class: list[np.ndarray], sampler: Sampler) -> float:
    """Images per second of one round of our pipeline, which is built, warmed up, measured and closed."""
    from openset_jax.data import batches, streaming
    from openset_jax.data.unreadable import Unreadable

    args, unreadable = flags.FLAGS, Unreadable(pool)
    plan = batches.training(pool, rows_by_class, sampler, start=0, stop=10**9, unreadable=unreadable)
    stream = streaming.stream(pool, plan, unreadable=unreadable)
    return timing.stream_rate(stream, sampler.batch_size, warmup=args.warmup, seconds=args.seconds)


def prepare_rate(pool: Pool) -> float:
    """Images per second of one round of `prepare`, from files to packed arrays on the disk; the images are repeated."""
    import numpy as np

    from openset_jax import prepare
    from openset_jax.data import packed
    from openset_jax.data.unreadable import Unreadable

    args = flags.FLAGS
    again = np.tile(np.arange(len(pool)), -(-MOST_PACKED // len(pool)))[:MOST_PACKED]
    columns = {field.name: getattr(pool, field.name) for field in dataclasses.fields(pool)}
    longer = {name: column[again] for name, column in columns.items() if np.shape(column) == (len(pool),)}
    pool = dataclasses.replace(pool, **longer)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=args.scratch or None))
        writer = stack.enter_context(contextlib.closing(packed.Writer(pathlib.Path(folder), pool, args.size)))
        chunks = prepare.decode(pool, writer, args.size, Unreadable(pool))
        return timing.stream_rate(chunks, prepare.CHUNK, warmup=args.warmup, seconds=args.seconds)


def grey_levels_apart(pool: Pool, rows: list[int], peer: Peer) -> float:
    """Mean absolute difference of our pixels and the peer's, which shows that both do the same work."""
    import numpy as np

    from openset_jax.data import pipeline

    ours = pipeline.read_images(pool, np.array(rows))
    theirs = np.frombuffer(base64.b64decode(peer.ask({"sample": len(rows)})["images"]), np.uint8)
    return float(np.abs(ours.ravel().astype(int) - theirs).mean())


if __name__ == "__main__":
    cli.run(main, define_flags)
