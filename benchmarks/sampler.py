"""The cost of the sampler: microseconds to draw a batch at several class sizes, and its share of the time of the input.

    python -m benchmarks.sampler --photos=DIR

Why: the sampler computes the images of a batch instead of storing permutations. Drawing from classes of two billion
images should take as long as from classes of seven thousand, batch 10,000,000 as long as batch 0, and the input should
not become slower. The input is compared with the same pipeline that reads a shuffled list of files; without --photos
this is left out.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.data.pools import Pool
    from openset_jax.data.sampler import Sampler

KNOWN_CLASSES, BATCH_SIZE = 10, 256
SIZES = (7_000, 70_000, 700_000, 7_000_000, 70_000_000, 700_000_000, 2_000_000_000)
LATE = 10_000_000  # number of a late batch
MAX_GROWTH, MIN_RATIO = 1.5, 0.97


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("photos", "", "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg; empty: drawing only.")
    flags.DEFINE_integer("draw_rounds", 15, "Rounds of drawing alone.", lower_bound=1)
    flags.DEFINE_integer("draws", 200, "Batches drawn of each class size in a round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Rounds of each pipeline; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round of the pipeline.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each of them that are not measured.", lower_bound=0.0)
    flags.DEFINE_integer("batch_size", 64, "Images of a batch of the pipeline.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args = flags.FLAGS
    file, machine = outputs.json_file(args.json), hardware.describe()
    hardware.print_description(machine)
    pool = inputs.photo_pool(args.photos) if args.photos else None
    result = {"machine": machine, "drawing": drawing(), "pipeline": through_pipeline(pool) if pool else None}
    outputs.write_json(file, result)


def drawing() -> dict[str, Any]:
    """Measures and prints the microseconds per batch, by class size."""
    from openset_jax.data.sampler import make_sampler

    def microseconds(size, step):
        sampler = make_sampler("natural", (size,) * (KNOWN_CLASSES + 1), batch_size=BATCH_SIZE, seed=0)
        return lambda: 1e6 * seconds_to_draw(sampler, step)

    contenders = {f"{size:,}": microseconds(size, 0) for size in SIZES}
    contenders[f"{SIZES[-1]:,}, from batch {LATE:,}"] = microseconds(SIZES[-1], LATE)
    values = {name: timing.summary(v) for name, v in timing.alternate(flags.FLAGS.draw_rounds, contenders).items()}
    medians = [v["median"] for v in values.values()]
    print(f"\nDrawing a batch of {BATCH_SIZE} from {KNOWN_CLASSES} known classes and negatives, in microseconds:")
    tables.print_table([["images per class", "median", "min", "max"], *(tables.row(k, v) for k, v in values.items())])
    print(tables.verdict("slowest / fastest", max(medians) / min(medians), MAX_GROWTH, at_most=True))
    return {"microseconds": values, "batch_size": BATCH_SIZE, "max_over_min": max(medians) / min(medians)}


def seconds_to_draw(sampler: Sampler, step: int = 0) -> float:
    """Seconds per batch, from batch `step` on."""
    sampler.batch(step)  # fills the tables that all batches share
    start = time.perf_counter()
    for n in range(step, step + flags.FLAGS.draws):
        sampler.batch(n)
    return (time.perf_counter() - start) / flags.FLAGS.draws


def through_pipeline(pool: Pool) -> dict[str, Any]:
    """Measures and prints the images per second of the pipeline, with the sampler and with a list."""
    import numpy as np

    from openset_jax.data import batches, streaming
    from openset_jax.data.sampler import make_sampler
    from openset_jax.data.unreadable import Unreadable

    args = flags.FLAGS
    size = args.batch_size
    rows_by_class = pool.training_rows()
    sampler = make_sampler("natural", tuple(map(len, rows_by_class)), batch_size=size, seed=0)
    # every image with the same frequency; `resize` repeats the list, so that the slice of a batch never wraps around
    order = np.random.default_rng(0).permutation(np.concatenate(rows_by_class))
    repeated = np.resize(order, len(order) + size)
    from_list = lambda n: repeated[n * size % len(order) :][:size]

    unreadable = Unreadable(pool)
    from_sampler = batches.training(pool, rows_by_class, sampler, start=0, stop=10**9, unreadable=unreadable)
    plans = {"sampler": from_sampler, "list": dataclasses.replace(from_sampler, rows=from_list)}

    def rate(plan):
        stream = streaming.stream(pool, plan, unreadable=unreadable)
        return timing.stream_rate(stream, size, warmup=args.warmup, seconds=args.seconds)

    values = timing.alternate(args.rounds, {name: lambda plan=plan: rate(plan) for name, plan in plans.items()})
    summaries = {name: timing.summary(v) for name, v in values.items()}
    paired = timing.ratios(values["sampler"], values["list"])
    print(f"\nThe pipeline over {len(order):,} photographs, in images/s, with rows from the")
    tables.print_table([["", "median", "min", "max"], *(tables.row(k, v) for k, v in summaries.items())])
    tables.print_table([["ratio", "median", "min", "max"], tables.row("round by round", paired, 3)])
    print(tables.verdict("sampler / list, median of the rounds", paired["median"], MIN_RATIO))
    # the share of the time between two batches that drawing one takes; noise of the machine hardly changes it
    share = seconds_to_draw(sampler) * summaries["sampler"]["median"] / size
    print(f"drawing a batch takes {share:.2%} of the time between two batches")
    return {"images_per_second": summaries, "paired_ratio": paired, "drawing_share": share}


if __name__ == "__main__":
    cli.run(main, define_flags)
