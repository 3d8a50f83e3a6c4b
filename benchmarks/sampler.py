"""What the sampler costs: microseconds to draw a batch at any class size, and its weight in the input as a whole.

    python -m benchmarks.sampler --photos=DIR

Why: the sampler computes which images are in a batch instead of storing orders, and claims that two billion images of a
class cost what seven thousand do, batch 10,000,000 what batch 0 does, and that nobody notices beside reading images. The
second is measured against the same pipeline fed from one shuffled list of files; without --photos it is left out.
"""

import dataclasses
import time
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli

KNOWN_CLASSES, BATCH_SIZE = 10, 256
SIZES = (7_000, 70_000, 700_000, 7_000_000, 70_000_000, 700_000_000, 2_000_000_000)
LATE = 10_000_000
MAX_GROWTH, MIN_RATIO = 1.5, 0.97


def define_flags() -> None:
    flags.DEFINE_string("photos", "", "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg; empty: drawing only.")
    flags.DEFINE_integer("draw_rounds", 15, "Rounds of drawing alone.", lower_bound=1)
    flags.DEFINE_integer("draws", 200, "Batches drawn of each class size in a round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Rounds of the pipeline, of each kind; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of a round of the pipeline.", lower_bound=0.1)
    flags.DEFINE_float("warmup", 2.0, "Seconds at the start of each of them that do not count.", lower_bound=0.0)
    flags.DEFINE_integer("batch_size", 64, "Images of a batch of the pipeline.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args = flags.FLAGS
    file, machine = common.json_file(args.json), common.machine()
    common.print_machine(machine)
    pool = common.photo_pool(args.photos) if args.photos else None
    result = {"machine": machine, "drawing": drawing(), "pipeline": through_pipeline(pool) if pool else None}
    common.write_json(file, result)


def drawing() -> dict[str, Any]:
    """Microseconds per batch, by class size."""
    from openset_jax.data import sampler

    def microseconds(size, step):
        drawn = sampler.make_sampler("natural", (size,) * (KNOWN_CLASSES + 1), batch_size=BATCH_SIZE, seed=0)
        return lambda: 1e6 * seconds_to_draw(drawn, step)

    contenders = {f"{size:,}": microseconds(size, 0) for size in SIZES}
    contenders[f"{SIZES[-1]:,}, from batch {LATE:,}"] = microseconds(SIZES[-1], LATE)
    values = {name: common.summary(v) for name, v in common.alternate(flags.FLAGS.draw_rounds, contenders).items()}
    medians = [v["median"] for v in values.values()]
    print(f"\nDrawing a batch of {BATCH_SIZE} from {KNOWN_CLASSES} known classes and negatives, in microseconds:")
    common.print_table([["images per class", "median", "min", "max"], *(common.row(k, v) for k, v in values.items())])
    print(common.verdict("slowest / fastest", max(medians) / min(medians), MAX_GROWTH, at_most=True))
    return {"microseconds": values, "batch_size": BATCH_SIZE, "max_over_min": max(medians) / min(medians)}


def seconds_to_draw(drawn: Any, step: int = 0) -> float:
    """Seconds per batch of a `Sampler`, from batch `step` on."""
    drawn.batch(step)  # what is computed once, not for each batch
    start = time.perf_counter()
    for n in range(step, step + flags.FLAGS.draws):
        drawn.batch(n)
    return (time.perf_counter() - start) / flags.FLAGS.draws


def through_pipeline(pool: Any) -> dict[str, Any]:
    """Images per second of the pipeline, with the sampler and with a plain list."""
    import numpy as np

    from openset_jax.data import batches, pipeline, sampler
    from openset_jax.data.unreadable import Skipped

    args = flags.FLAGS
    size = args.batch_size
    members = pool.training_members()
    drawn = sampler.make_sampler("natural", tuple(map(len, members)), batch_size=size, seed=0)
    # the same images as often; `resize` repeats the list so that a slice of one batch never wraps
    order = np.random.default_rng(0).permutation(np.concatenate(members))
    repeated = np.resize(order, len(order) + size)
    from_list = lambda n: repeated[n * size % len(order) :][:size]

    skipped = Skipped(pool)
    from_sampler = batches.training(pool, members, drawn, start=0, stop=10**9, skipped=skipped)
    plans = {"sampler": from_sampler, "list": dataclasses.replace(from_sampler, rows=from_list)}

    def rate(plan):
        stream = pipeline.stream(pool, plan, stored_size=256, skipped=skipped)
        return common.stream_rate(stream, size, warmup=args.warmup, seconds=args.seconds)

    values = common.alternate(args.rounds, {name: lambda plan=plan: rate(plan) for name, plan in plans.items()})
    summaries = {name: common.summary(v) for name, v in values.items()}
    paired = common.ratios(values["sampler"], values["list"])
    print(f"\nThe pipeline over {len(order):,} photographs, in images/s, with rows from the")
    common.print_table([["", "median", "min", "max"], *(common.row(k, v) for k, v in summaries.items())])
    common.print_table([["ratio", "median", "min", "max"], common.row("round by round", paired, 3)])
    print(common.verdict("sampler / list, median of the rounds", paired["median"], MIN_RATIO))
    # a bound that noise of the machine does not reach: how long a batch takes to draw, of how long it takes to come
    share = seconds_to_draw(drawn) * summaries["sampler"]["median"] / size
    print(f"drawing a batch takes {share:.2%} of the time in which one comes")
    return {"images_per_second": summaries, "paired_ratio": paired, "drawing_share": share}


if __name__ == "__main__":
    cli.run(main, define_flags)
