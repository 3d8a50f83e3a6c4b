"""An epoch of the founding problem from device memory: the training loop beside its step alone.

    python -m benchmarks.epoch --config=configs/folder.py --config.batch_size=1024 --config.model.dtype=bfloat16

Why: 140,000 images of 256x256 (10 known classes of 7,000, and 70,000 negatives) are the problem that this package was made
for, and 27.5 GB. The images are random bytes, drawn on the devices, so that the benchmark waits for no disk. The rest is as
in `openset_jax.train` with input=resident: the sampler's plan, the gather in the step, and metrics that are fetched when the
next step is under way. The step alone has one batch, which is on the devices already.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli
from openset_jax.errors import UserError

CLASSES, FOUNDING_IMAGES, IMAGES_ON_CPU = 10, 140_000, 640
TARGET, STEP_ALONE = 0.95, "step alone"


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer(
        "images", 0, f"0 for {FOUNDING_IMAGES:,} or as many as fit; {IMAGES_ON_CPU} on a CPU.", lower_bound=0
    )
    flags.DEFINE_integer("rounds", 5, "Measured epochs of loop and step alone; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 0, "Time limit: rounds that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, file, limit = flags.FLAGS, common.json_file(flags.FLAGS.json), common.Limit(flags.FLAGS.seconds)
    config = common.checked(args.config)
    import jax

    from benchmarks.step import Step
    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.data import batches, resident
    from openset_jax.data.unreadable import Skipped
    from openset_jax.training import devices, progress
    from openset_jax.training.feed import Feed

    devices.check_batch_size("batch_size", config.batch_size)
    images = args.images or default_images(jax.default_backend(), config.data.stored_size)
    machine, size, per_call = common.machine(), config.data.stored_size, config.batch_size * config.steps_per_call
    common.print_machine(machine)
    start = time.perf_counter()
    store = random_images(images, size)
    generate_s = time.perf_counter() - start
    pool = founding_pool(images)
    members = build.training_members(config, pool)
    sampler, skipped = build.make_sampler(config, members), Skipped(pool)
    load = lambda store, batch: batch | {"image": resident.gather(store, batch["row"])}
    feed = Feed(read=resident.rows, store=store, store_axis=None, load=load)
    plan = batches.training(pool, members, sampler, start=0, stop=10**9, skipped=skipped)
    bare, fed = Step(config, pool.num_classes), Step(config, pool.num_classes, feed)
    so_far, calls = progress.Progress(), math.ceil(images / per_call)

    def send():
        return devices.prefetch_steps(feed.read(plan), config.steps_per_call)

    def together():
        rate = calls_per_second(fed, send(), lambda metrics: so_far.add_steps(jax.device_get(metrics)), calls)
        return per_call * rate

    def step_alone():
        return per_call * calls_per_second(bare, itertools.repeat(bare.batch), jax.block_until_ready, calls)

    fed.batch = next(send())
    compiled = {"compile_s": fed.compile(), "cold": fed.cold}
    compiled |= {"step_alone_compile_s": bare.compile(), "step_alone_cold": bare.cold}
    rounds = common.alternate(args.rounds, {common.OURS: together, STEP_ALONE: step_alone}, limit=limit)
    result = {
        "images": images,
        "size": size,
        "epoch_s": common.summary([images / rate for rate in rounds[common.OURS]]),
        "rates": {name: common.summary(values) for name, values in rounds.items()},
        "ratio": common.ratios(rounds[common.OURS], rounds[STEP_ALONE]),
        **compiled,
        "generate_s": generate_s,
        "memory": common.peak_memory(),
        "left_out": common.missing_rounds(args.rounds, rounds),
        "config": configs.to_json(config),
        "machine": machine,
    }
    report(result)
    common.write_json(file, result)


def founding_pool(images: int) -> Any:
    """A pool of training images without pixels: half of them known, of ten classes, half of them negatives."""
    import numpy as np

    from openset_jax.data import pools

    known = images // 2
    group = np.where(np.arange(images) < known, np.arange(images) % CLASSES, CLASSES).astype(np.int32)
    groups = (*(f"class {i}" for i in range(CLASSES)), "negatives")
    split, nowhere = np.full(images, pools.TRAIN, np.uint8), np.zeros(images, np.int64)
    read = lambda records: []
    source = pools.Source("random", groups, None, group, split, "pixels:0", read, read)
    return pools.Pool(
        sources=(source,),
        groups=groups,
        roles=(*["known"] * CLASSES, "negatives"),
        num_classes=CLASSES,
        source=nowhere,
        record=np.arange(images),
        group=group,
        split=split,
        key=np.arange(images, dtype=np.uint64),
    )


def default_images(platform: str, size: int) -> int:
    """140,000, or as many as fit a device beside the network; few on a CPU."""
    from openset_jax.auto import IMAGE_SHARE
    from openset_jax.training import devices

    if platform == "cpu":
        return IMAGES_ON_CPU
    needed, free, _ = devices.room_for(FOUNDING_IMAGES, (size, size, 3), sharded=False)
    if free is None or needed <= IMAGE_SHARE * free:
        return FOUNDING_IMAGES
    images = int(FOUNDING_IMAGES * IMAGE_SHARE * free / needed)
    print(f"{FOUNDING_IMAGES:,} images need {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free: {images:,} images")
    return images


def random_images(images: int, size: int) -> Any:
    """uint8 [images, size, size, 3] on each device, drawn there in chunks.

    Raises:
      UserError: they do not fit the memory.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    from openset_jax.training import devices

    shape = (size, size, 3)
    needed, free, where = devices.room_for(images, shape, sharded=False)
    if free is not None and needed > free:
        raise UserError(
            f"--images: {images:,} of {size}x{size} are {needed / 1e9:,.2f} GB, and {where} has {free / 1e9:,.2f} GB free; "
            f"{int(images * free / needed * 0.9):,} would fit"
        )

    @functools.partial(jax.jit, static_argnums=1)
    def draw(start, count):
        key, size = jax.random.fold_in(jax.random.key(0), start), count * math.prod(shape)
        words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
        return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(count, *shape)

    return devices.hold(lambda start, stop: draw(np.uint32(start), stop - start), images, shape, sharded=False)


def calls_per_second(step: Any, calls: Iterable[Any], fetch: Callable[[Any], Any], count: int) -> float:
    """Of so many calls of the training loop, from the end of one call to the end of another."""
    import jax

    from benchmarks.end_to_end import run_loop

    ends = list(itertools.islice(run_loop(step, calls, fetch), count + 1))
    jax.block_until_ready(step.state)
    return count / (ends[-1] - ends[0])


def report(result: dict[str, Any]) -> None:
    """Prints seconds, rates, and their ratio."""
    print(f"{result['images']:,} images of {result['size']}x{result['size']}, drawn in {result['generate_s']:.1f} s")
    common.print_table([["", "median", "min", "max"], common.row("epoch, s", result["epoch_s"], 3)])
    common.print_table([["images/s", "median", "min", "max"], *(common.row(k, v) for k, v in result["rates"].items())])
    common.print_table([["loop / step alone", "median", "min", "max"], common.row("round by round", result["ratio"], 3)])
    print(f"first step, with compilation: {common.first_step_text(result)}")
    print(common.verdict("loop / step alone, median of the rounds", result["ratio"]["median"], TARGET))


if __name__ == "__main__":
    cli.run(main, define_flags)
