"""Decodes the images of a config once into packed arrays for later runs; reports unreadable images and leaks.

python -m openset_jax.prepare --config=configs/folder.py --config.data.root=DIR --out=PACKED
python -m openset_jax.train --config=configs/folder.py --config.data.packed=PACKED --workdir=...

The config may also be an experiment; then its fields begin with --config.run.

If the command is stopped or killed, run it again: it continues, and writes the same files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from openset_jax import cli, lock
from openset_jax.errors import Stopped, UserError, needing_tensorflow

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict

    from openset_jax.data.packed import Writer
    from openset_jax.data.pools import Pool
    from openset_jax.data.unreadable import Unreadable

CHUNK = 256  # images that are decoded, written and added to the journal together


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder for the packed arrays; created if necessary.", required=True)


def main() -> None:
    """Runs the command."""
    config, out = flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    if "run" in config:  # an experiment, all of whose runs share these images
        prepare(config.run, out, section="config.run.data")
    else:
        prepare(config, out)


def prepare(config: ConfigDict, out: pathlib.Path, *, section: str = "config.data") -> dict[str, int]:
    """Writes OUT/images.npy, uint8 [n, S, S, 3] with S = data.stored_size, and OUT/index.json, which is written last.

    Unreadable files are named and left out. Images that are equal pixel by pixel but have different roles or splits are
    reported as leaks, because a test image that is also in the training set makes every metric too optimistic. Continues
    an earlier call that did not finish. Returns the numbers of "images", "unreadable" images and "leaks".

    Args:
      section: the name of `data` on the command line, for the message at the end.

    Raises:
      UserError: the config or the data must be changed, OUT has other packed arrays already, or another process writes OUT.
      Stopped: a signal arrived; raised at the end of a chunk.
    """
    with lock.claimed(out):
        return _prepare(config, out, section)


def _prepare(config, out, section):
    from tqdm import tqdm

    from openset_jax import config as configs
    from openset_jax.data import packed, pool_builder
    from openset_jax.data.unreadable import Unreadable
    from openset_jax.report import console

    spec = configs.resolve(config, out)[-1]
    if (out / "index.json").exists():
        raise UserError(f"--out: {str(out)!r} has packed arrays already; remove this folder, or choose another --out")
    with needing_tensorflow("prepare"):
        from openset_jax.data import pipeline  # noqa: F401  (before anything is written)
    data = dataclasses.replace(spec.data, negative_groups=None)  # all groups: each run selects some by its seed
    size = spec.images.stored_size
    pool = pool_builder.open_pool(data, stored_size=size, seed=spec.seed)
    if spec.objective.uses_negatives:
        pool_builder.check_negatives(pool)
    print(console.pool_table(pool), flush=True)
    unreadable = Unreadable(pool, data.max_bad_fraction, report=tqdm.write)
    writer = packed.Writer(out, pool, size)
    for row in np.setdiff1d(np.arange(writer.done), writer.kept):
        unreadable.add(int(row), "an earlier call found it unreadable")
    bar = tqdm(initial=writer.done, total=len(pool), unit=" images", smoothing=0.1)
    with contextlib.closing(writer), bar, cli.stop_on_signal() as stopped:
        for done in decode(pool, writer, size, unreadable):
            bar.update(done - bar.n)
            if stopped() and done < len(pool):
                raise Stopped(f"Stopped by {stopped()} after {done:,} of {len(pool):,} images; to continue, run it again.")
        images = writer.finish()
    kept = np.array(writer.kept, np.int64)
    leaks = _leaks(pool, kept, writer.checksums, images)
    for line in leaks[:20]:
        print(f"leak: {line}")
    if leaks[20:]:
        print(f"... and {len(leaks) - 20} more leaks")
    packed.write_index(
        out, stored_size=size, groups=list(zip(pool.roles, pool.groups, strict=True)), ids=pool.ids(kept),
        group=pool.group[kept], split=pool.split[kept], prepared_as=data.chosen_images(),
    )  # fmt: skip
    writer.forget()
    print(f"{len(kept):,} images of {size}x{size} in {out}, {len(unreadable.rows)} unreadable, {len(leaks)} leaks.")
    print(f"Use them with --{section}.packed={out}")
    return {"images": len(kept), "unreadable": len(unreadable.rows), "leaks": len(leaks)}


def decode(pool: Pool, writer: Writer, stored_size: int, unreadable: Unreadable) -> Iterator[int]:
    """Decodes and appends the rows that the writer does not have yet; after each chunk, yields the number of rows done."""
    from openset_jax.data import batches, pipeline

    rows = np.arange(writer.done, len(pool))
    chunk = min(CHUNK, max(len(rows), 1))
    plan = batches.evaluation(pool, rows, batch_size=chunk, unreadable=unreadable)
    for batch in pipeline.stream(pool, plan, stored_size=stored_size, unreadable=unreadable):
        count = min(len(pool) - writer.done, chunk)
        writer.append(batch["image"][:count], batch["mask"][:count])
        yield writer.done


def _leaks(pool: Pool, rows: np.ndarray, checksums: Sequence[int], images: np.ndarray) -> list[str]:
    """One line for each image that equals an earlier one of another role or split."""
    from openset_jax.data.pools import SPLITS

    seen: dict[int, list[int]] = {}  # checksum -> indices of the different images with it
    lines = []
    where = lambda row: f"{pool.ids([row])[0]!r} ({pool.groups[pool.group[row]]}, {SPLITS[pool.split[row]]})"
    use = lambda row: (pool.roles[pool.group[row]], pool.split[row])
    for i, checksum in enumerate(checksums):
        others = seen.setdefault(checksum, [])
        same = next((j for j in others if np.array_equal(images[i], images[j])), None)
        if same is None:
            others.append(i)
        elif use(rows[same]) != use(rows[i]):
            lines.append(f"{where(rows[i])} is the same image as {where(rows[same])}")
    return lines


if __name__ == "__main__":
    cli.run(main, define_flags)
