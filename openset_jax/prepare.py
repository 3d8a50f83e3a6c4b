"""Audits the images of a config, and decodes them once into packed arrays that any later run reads without decoding.

python -m openset_jax.prepare --config=configs/folder.py --config.data.root=DIR --out=PACKED
python -m openset_jax.train --config=configs/folder.py --config.data.packed=PACKED --workdir=...

Of an experiment's config, too: then its flags begin with --config.run.

Stopped or killed, the same command goes on where it was, and ends with the same files.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import Stopped, UserError, needing_tensorflow

CHUNK = 256  # images decoded, written and entered into the journal at once


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder for the packed arrays; made if need be.", required=True)


def main() -> None:
    config, out = flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    if "run" in config:  # an experiment: what all its arms read
        prepare(config.run, out, section="config.run.data")
    else:
        prepare(config, out)


def prepare(config: Any, out: pathlib.Path, *, section: str = "config.data") -> dict[str, int]:
    """Writes OUT/images.npy, uint8 [n, S, S, 3] with S = data.stored_size, and OUT/index.json, which is written last.

    Unreadable files are named and left out. Images that are equal pixel by pixel, but in different roles or splits, are
    reported: a test image that was trained on flatters every number. What an earlier call left unfinished is gone on with.

    Args:
      section: where `data` is on the command line, for what is said at the end.

    Returns:
      {"images", "unreadable", "leaks"}: how many of each.

    Raises:
      UserError: the config or the data must be changed, or OUT has packed arrays already, or the beginning of others.
      Stopped: by a signal, at the end of a chunk.
    """
    from tqdm import tqdm

    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.data import packed
    from openset_jax.data.unreadable import Skipped
    from openset_jax.report import console

    configs.check(config)
    if (out / "index.json").exists():
        raise UserError(f"--out: {str(out)!r} has packed arrays already; remove it, or choose another folder")
    with needing_tensorflow("prepare"):
        from openset_jax.data import pipeline  # noqa: F401  (before anything is written)
    config = config.copy_and_resolve_references()
    config.data.negative_groups = None  # all of them: which ones a run keeps, its own seed says
    pool = build.open_pool(config)
    print(console.pool_table(pool), flush=True)
    size = config.data.stored_size
    skipped = Skipped(pool, config.data.max_bad_fraction, report=tqdm.write)
    writer = packed.Writer(out, pool, size)
    for row in np.setdiff1d(np.arange(writer.done), writer.kept):
        skipped.add(int(row), "it was found before")
    bar = tqdm(initial=writer.done, total=len(pool), unit=" images", smoothing=0.1)
    with contextlib.closing(writer), bar, cli.stop_on_signal() as stopped:
        for done in decode(pool, writer, size, skipped):
            bar.update(done - bar.n)
            if stopped() and done < len(pool):
                raise Stopped(f"stopped by {stopped()} after {done:,} of {len(pool):,} images; the same command goes on")
        images = writer.finish()
    kept = np.array(writer.kept, np.int64)
    leaks = _leaks(pool, kept, writer.checksums, images)
    for line in leaks[:20]:
        print(f"leak: {line}")
    if leaks[20:]:
        print(f"... and {len(leaks) - 20} more leaks")
    packed.write_index(
        out,
        stored_size=size,
        groups=list(zip(pool.roles, pool.groups, strict=True)),
        ids=pool.ids(kept),
        group=pool.group[kept],
        split=pool.split[kept],
        prepared_as=configs.chosen_images(config),
    )
    writer.forget()
    print(f"{len(kept):,} images of {size}x{size} in {out}, {len(skipped.rows)} unreadable, {len(leaks)} leaks.")
    print(f"Use them with --{section}.packed={out}")
    return {"images": len(kept), "unreadable": len(skipped.rows), "leaks": len(leaks)}


def decode(pool: Any, writer: Any, stored_size: int, skipped: Any) -> Iterator[int]:
    """Decodes what the `packed.Writer` does not have yet; yields the number of rows done after each chunk."""
    from openset_jax.data import batches, pipeline

    rows = np.arange(writer.done, len(pool))
    chunk = min(CHUNK, max(len(rows), 1))
    plan = batches.evaluation(pool, rows, batch_size=chunk, skipped=skipped)
    for batch in pipeline.stream(pool, plan, stored_size=stored_size, skipped=skipped):
        count = min(len(pool) - writer.done, chunk)
        writer.append(batch["image"][:count], batch["mask"][:count])
        yield writer.done


def _leaks(pool, rows, checksums, images) -> list[str]:
    """One line for each image that is the same as an earlier one of another role or split."""
    from openset_jax.data.pools import SPLITS

    seen, lines = {}, []  # by checksum, the different images that have it
    where = lambda row: f"{pool.ids([row])[0]!r} ({pool.groups[pool.group[row]]}, {SPLITS[pool.split[row]]})"
    for i, checksum in enumerate(checksums):
        others = seen.setdefault(checksum, [])
        same = next((j for j in others if np.array_equal(images[i], images[j])), None)
        if same is None:
            others.append(i)
            continue
        row, other = rows[i], rows[same]
        if (pool.roles[pool.group[other]], pool.split[other]) != (pool.roles[pool.group[row]], pool.split[row]):
            lines.append(f"{where(row)} is the same image as {where(other)}")
    return lines


if __name__ == "__main__":
    cli.run(main, define_flags)
