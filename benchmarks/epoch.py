"""An epoch of 140,000 images from device memory: the training loop beside its step alone.

    python -m benchmarks.epoch --config=configs/folder.py --config.batch_size=1024 --config.model.dtype=bfloat16

Why: the package was made for 140,000 images of 256x256 (10 known classes of 7,000, and 70,000 negatives), which are 27.5 GB.
The images are random bytes, drawn on the devices, so that the benchmark does not wait for a disk. Everything else is as in
`openset_jax.train` with input=resident: the sampler, the gather in the step, and metrics that are fetched when the next call
has been dispatched. The step alone has one batch, which is already on the devices.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    import jax

    from openset_jax.data.pools import Pool

CLASSES, FOUNDING_IMAGES, IMAGES_ON_CPU = 10, 140_000, 640
TARGET, STEP_ALONE = 0.95, "step alone"


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer(
        "images", 0, f"0 for {FOUNDING_IMAGES:,}, or for the most that fit; {IMAGES_ON_CPU} on a CPU.", lower_bound=0
    )
    flags.DEFINE_integer("rounds", 5, "Measured epochs of loop and step alone; one more comes before.", lower_bound=1)
    flags.DEFINE_float("seconds", 0, "Time limit: rounds that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file, limit = flags.FLAGS, outputs.json_file(flags.FLAGS.json), timing.Limit(flags.FLAGS.seconds)
    spec = inputs.resolve(args.config)
    import jax

    from benchmarks import training_loop
    from benchmarks.bare_step import Step
    from openset_jax.data import batches, resident, training_set
    from openset_jax.data.sampler import make_sampler
    from openset_jax.data.unreadable import Unreadable
    from openset_jax.training import devices
    from openset_jax.training.image_input import ImageInput
    from openset_jax.training.progress import Progress

    size, batch_size, steps_per_call = spec.images.stored_size, spec.program.batch_size, spec.program.steps_per_call
    devices.check_batch_size("batch_size", batch_size)
    count = args.images or default_images(jax.default_backend(), size)
    machine = hardware.describe()
    hardware.print_description(machine)
    start = time.perf_counter()
    store = random_images(count, size)
    generate_s = time.perf_counter() - start
    pool, sampling = founding_pool(count), spec.sampling
    rows = training_set.training_rows(pool, sampling, seed=spec.seed, uses_negatives=spec.objective.uses_negatives)
    sampler = make_sampler(
        sampling.policy,
        tuple(map(len, rows)),
        batch_size=batch_size,
        seed=spec.seed,
        negative_fraction=sampling.negative_fraction,
    )
    plan = batches.training(pool, rows, sampler, start=0, stop=training_loop.ENDLESS, unreadable=Unreadable(pool))
    load = lambda store, batch: batch | {"example": resident.gather(store, batch["row"])}
    image_input = ImageInput(read=resident.rows, store=store, store_axis=None, load=load)
    bare, fed = Step(spec, pool.num_classes), Step(spec, pool.num_classes, image_input)
    progress, calls = Progress(), math.ceil(count / (batch_size * steps_per_call))

    def send():
        return devices.prefetch_steps(image_input.read(plan), steps_per_call)

    def together():
        fetch = lambda metrics: progress.add_steps(jax.device_get(metrics))
        return batch_size * steps_per_call * training_loop.rate_of_calls(fed, send(), fetch, calls)

    def step_alone():
        rate = training_loop.rate_of_calls(bare, itertools.repeat(bare.batch), jax.block_until_ready, calls)
        return batch_size * steps_per_call * rate

    fed.batch = next(send())
    compiled = {"compile_s": fed.compile(), "cold": fed.cold}
    compiled |= {"step_alone_compile_s": bare.compile(), "step_alone_cold": bare.cold}
    rounds = timing.alternate(args.rounds, {timing.OURS: together, STEP_ALONE: step_alone}, limit=limit)
    result = {
        "images": count,
        "size": size,
        "epoch_s": timing.summary([count / rate for rate in rounds[timing.OURS]]),
        "rates": {name: timing.summary(values) for name, values in rounds.items()},
        "ratio": timing.ratios(rounds[timing.OURS], rounds[STEP_ALONE]),
        **compiled,
        "generate_s": generate_s,
        "memory": hardware.peak_memory(),
        "left_out": timing.missing_rounds(args.rounds, rounds),
        "config": spec.record,
        "machine": machine,
    }
    report(result)
    outputs.write_json(file, result)


def founding_pool(images: int) -> Pool:
    """A pool of training images without pixels: half of them are known, of ten classes, and half are negatives."""
    import numpy as np

    from openset_jax.data import pools

    known = images // 2
    group = np.where(np.arange(images) < known, np.arange(images) % CLASSES, CLASSES).astype(np.int32)
    groups = (*(f"class {i}" for i in range(CLASSES)), "negatives")
    split, zeros = np.full(images, pools.TRAIN, np.uint8), np.zeros(images, np.int64)
    nothing = lambda records: []
    source = pools.Source("random", groups, None, group, split, "array", nothing, nothing)
    return pools.Pool(
        sources=(source,),
        groups=groups,
        roles=(*["known"] * CLASSES, "negatives"),
        num_classes=CLASSES,
        array=pools.image_type(0),
        source=zeros,
        record=np.arange(images),
        group=group,
        split=split,
        key=np.arange(images, dtype=np.uint64),
    )


def default_images(platform: str, size: int) -> int:
    """140,000, or the most that fit a device beside the network; 640 on a CPU.

    Args:
      size: side of the images.
    """
    from openset_jax.data.pools import image_type
    from openset_jax.training import device_memory
    from openset_jax.training.input_choice import IMAGE_SHARE

    if platform == "cpu":
        return IMAGES_ON_CPU
    needed, free, _ = device_memory.memory_for(FOUNDING_IMAGES, image_type(size), sharded=False)
    if free is None or needed <= IMAGE_SHARE * free:
        return FOUNDING_IMAGES
    images = int(FOUNDING_IMAGES * IMAGE_SHARE * free / needed)
    print(f"{FOUNDING_IMAGES:,} images need {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free: {images:,} images")
    return images


def random_images(images: int, size: int) -> jax.Array:
    """Random images uint8 [images, size, size, 3] on each device, drawn there in chunks.

    Raises:
      UserError: they do not fit the memory.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    from openset_jax.data.pools import image_type
    from openset_jax.training import device_memory

    array = image_type(size)
    needed, free, where = device_memory.memory_for(images, array, sharded=False)
    if free is not None and needed > free:
        raise UserError(
            f"--images: {images:,} of {size}x{size} are {needed / 1e9:,.2f} GB, and {where} has {free / 1e9:,.2f} GB free; "
            f"{int(images * free / needed * 0.9):,} would fit"
        )

    @functools.partial(jax.jit, static_argnums=1)
    def draw(start, count):
        key, size = jax.random.fold_in(jax.random.key(0), start), count * array.nbytes
        words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
        return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(count, *array.shape)

    read: Any = lambda start, stop: draw(np.uint32(start), stop - start)  # jax arrays, which the copy takes, too
    return device_memory.copy_to_devices(read, images, array, sharded=False)


def report(result: dict[str, Any]) -> None:
    """Prints seconds, rates, and their ratio."""
    print(f"{result['images']:,} images of {result['size']}x{result['size']}, drawn in {result['generate_s']:.1f} s")
    tables.print_table([["", "median", "min", "max"], tables.row("epoch, s", result["epoch_s"], 3)])
    tables.print_table([["images/s", "median", "min", "max"], *(tables.row(k, v) for k, v in result["rates"].items())])
    tables.print_table([["loop / step alone", "median", "min", "max"], tables.row("round by round", result["ratio"], 3)])
    print(f"first step, with compilation: {tables.first_step_text(result)}")
    print(tables.verdict("loop / step alone, median of the rounds", result["ratio"]["median"], TARGET))


if __name__ == "__main__":
    cli.run(main, define_flags)
