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

from openset_jax import cli, lock, unattended
from openset_jax.errors import Stopped, UserError, needing_tensorflow
from openset_jax.text import printable, show

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
    from openset_jax.platforms import xla

    config, out = flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out)
    xla.check_platform()
    if "run" in config:  # an experiment, all of whose runs share these images
        prepare(config.run, out, section="config.run.data")
    else:
        prepare(config, out)


def prepare(config: ConfigDict, out: pathlib.Path, *, section: str = "config.data") -> dict[str, int]:
    """Writes OUT/images.npy, uint8 [n, S, S, 3] with S = data.stored_size, and OUT/index.json, which is written last.

    Unreadable files are named and left out. Images that are equal pixel by pixel are reported as leaks if they have
    different roles or splits, because a test image that is also in the training set makes every metric too optimistic, and
    as contradictions if they are of different known classes in one split. Continues an earlier call that did not finish.
    Returns the numbers of "images", "unreadable" images, "leaks" and "contradictions".

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
    if spec.stored_size is None:
        raise UserError(
            f"model.name: {spec.program.forward.network.name} takes vectors, which need no preparation; train on them"
        )
    if (out / "index.json").exists():
        raise UserError(f"--out: {str(out)!r} has packed arrays already; remove this folder, or choose another --out")
    with needing_tensorflow("prepare"):
        from openset_jax.data import pipeline  # noqa: F401  (before anything is written)
    data = dataclasses.replace(spec.data, negative_groups=None)  # all groups: each run selects some by its seed
    size = spec.images.stored_size
    pool = pool_builder.open_pool(data, stored_size=size, seed=spec.seed)
    if spec.objective.uses_negatives:
        pool_builder.check_negatives(pool)
    show(console.pool_table(pool))
    unreadable = Unreadable(pool, 1.0, data.max_pixels, report=lambda line: tqdm.write(printable(line)))
    with contextlib.closing(packed.Writer(out, pool, size)) as writer:
        for row in np.setdiff1d(np.arange(writer.done), writer.kept):
            unreadable.add(int(row), "an earlier call found it unreadable")
        bar = tqdm(initial=writer.done, total=len(pool), unit=" images", smoothing=0.1)
        with bar, unattended.stop_on_signal() as stopped:
            for done in decode(pool, writer, unreadable):
                bar.update(done - bar.n)
                if stopped() and done < len(pool):
                    raise Stopped(
                        f"Stopped by {stopped()} after {done:,} of {len(pool):,} images; to continue, run it again."
                    )
            images = writer.finish()
    if len(unreadable.rows) > data.max_bad_fraction * len(pool):
        writer.forget()  # the next call reads the images again, which may be repaired by then
        unreadable.check(data.max_bad_fraction)
    kept = np.array(writer.kept, np.int64)
    equal = {"leaks": list[str](), "contradictions": list[str]()}
    for kind, line in _equal_images(pool, kept, writer.checksums, images):
        equal[kind].append(line)
    for kind, lines in equal.items():
        for line in lines[:20]:
            show(f"{kind[:-1]}: {line}")
        if lines[20:]:
            show(f"... and {len(lines) - 20:,} more {kind}")
    counts = {kind: len(lines) for kind, lines in equal.items()}
    packed.write_index(
        out, stored_size=size, groups=list(zip(pool.roles, pool.groups, strict=True)), ids=pool.ids(kept),
        group=pool.group[kept], split=pool.split[kept], prepared_as=data.chosen_images(), **counts,
    )  # fmt: skip
    writer.forget()
    found = {"unreadable": len(unreadable.rows), **counts}
    text = ", ".join(f"{count:,} {kind}" for kind, count in found.items())
    show(f"{len(kept):,} images of {size}x{size} in {out}, {text}.")
    show(f"Use them with --{section}.packed={out}")
    return {"images": len(kept), **found}


def decode(pool: Pool, writer: Writer, unreadable: Unreadable) -> Iterator[int]:
    """Decodes and appends the rows that the writer does not have yet; after each chunk, yields the number of rows done."""
    from openset_jax.data import batches, streaming

    rows = np.arange(writer.done, len(pool))
    chunk = min(CHUNK, max(len(rows), 1))
    plan = batches.evaluation(pool, rows, batch_size=chunk, unreadable=unreadable)
    for batch in streaming.stream(pool, plan, unreadable=unreadable):
        count = min(len(pool) - writer.done, chunk)
        writer.append(batch["example"][:count], batch["mask"][:count])
        yield writer.done


def _equal_images(pool: Pool, rows: np.ndarray, checksums: Sequence[int], images: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yields ("leaks" or "contradictions", line) for each image that equals an earlier one of another use.

    A leak has another role or split than an equal image before it; a contradiction is in the role "known" and the split of
    one before it, but of another class.
    """
    from openset_jax.data.pools import SPLITS

    where = lambda row: f"{pool.ids([row])[0]!r} ({pool.groups[pool.group[row]]}, {SPLITS[pool.split[row]]})"
    different: dict[int, list[dict[tuple[str, int, int], int]]] = {}  # checksum -> {use: first index} of each picture
    for i, (row, checksum) in enumerate(zip(rows.tolist(), checksums, strict=True)):
        pictures = different.setdefault(checksum, [])
        equal = lambda uses, i=i: np.array_equal(images[i], images[next(iter(uses.values()))])
        uses = next(filter(equal, pictures), None)
        if uses is None:
            pictures.append(uses := {})
        role, split = pool.roles[pool.group[row]], int(pool.split[row])
        use = role, split, int(pool.group[row]) if role == "known" else -1
        for kind, found in (
            ("leaks", [j for other, j in uses.items() if other[:2] != use[:2]]),
            ("contradictions", [j for other, j in uses.items() if other[:2] == use[:2] and other != use]),
        ):
            if found:
                yield kind, f"{where(row)} is the same image as {where(rows[found[0]])}"
        uses.setdefault(use, i)


if __name__ == "__main__":
    cli.run(main, define_flags)
