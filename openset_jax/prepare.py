"""Audits the images of a config, and decodes them once into packed arrays that any later run reads without decoding.

python -m openset_jax.prepare --config=configs/folder.py --config.data.root=DIR --out=PACKED
python -m openset_jax.train --config=configs/folder.py --config.data.packed=PACKED --workdir=...
"""

import hashlib
import pathlib
from typing import Any

import numpy as np
from absl import flags

from openset_jax import cli
from openset_jax.errors import UserError


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder for the packed arrays; made if need be.", required=True)


def main() -> None:
    prepare(flags.FLAGS.config, cli.make_workdir(flags.FLAGS.out))


def prepare(config: Any, out: pathlib.Path) -> dict[str, int]:
    """Writes OUT/images.npy, uint8 [n, S, S, 3] with S = data.stored_size, and OUT/index.json, which is written last.

    Unreadable files are named and left out. Images that are equal pixel by pixel, but in different roles or splits, are
    reported: a test image that was trained on flatters every number.

    Returns:
      {"images", "unreadable", "leaks"}: how many of each.

    Raises:
      UserError: the config or the data must be changed, or OUT has packed arrays already.
    """
    from tqdm import tqdm

    from openset_jax import config as configs
    from openset_jax.data import batches, packed, pipeline
    from openset_jax.data.skipped import Skipped
    from openset_jax.report import table

    configs.check(config)
    if (out / "index.json").exists():
        raise UserError(f"--out: {str(out)!r} has packed arrays already; remove it, or choose another folder")
    pool = configs.open_pool(config)
    print(table.pool_table(pool), flush=True)
    size, rows = config.data.stored_size, np.arange(len(pool))
    skipped = Skipped(pool, config.data.max_bad_fraction, report=tqdm.write)
    plan = batches.evaluation(pool, rows, batch_size=min(256, len(rows)), skipped=skipped)
    digests, kept = [], []
    with (out / "images.npy").open("wb") as file, tqdm(total=len(rows), unit=" images", smoothing=0.1) as bar:
        _write_header(file, len(rows), size)
        for batch in pipeline.stream(pool, plan, stored_size=size, skipped=skipped):
            images = batch["image"][batch["mask"]]
            file.write(images.tobytes())
            kept.append(batch["position"][batch["mask"]])
            digests.extend(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
            bar.update(len(images))
        kept = np.concatenate(kept)
        _write_header(file, len(kept), size)  # the header leaves room for any number
    leaks = _leaks(pool, kept, digests)
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
    )
    print(f"{len(kept):,} images of {size}x{size} in {out}, {len(skipped.rows)} unreadable, {len(leaks)} leaks.")
    print(f"Use them with --config.data.packed={out}")
    return {"images": len(kept), "unreadable": len(skipped.rows), "leaks": len(leaks)}


def _write_header(file, count, size):
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)


def _leaks(pool, rows, digests) -> list[str]:
    """One line for each image that is the same as an earlier one of another role or split."""
    from openset_jax.data.pools import SPLITS

    first, lines = {}, []
    where = lambda row: f"{pool.ids([row])[0]!r} ({pool.groups[pool.group[row]]}, {SPLITS[pool.split[row]]})"
    for row, digest in zip(rows, digests, strict=True):
        other = first.setdefault(digest, row)
        if (pool.roles[pool.group[other]], pool.split[other]) != (pool.roles[pool.group[row]], pool.split[row]):
            lines.append(f"{where(row)} is the same image as {where(other)}")
    return lines


if __name__ == "__main__":
    cli.run(main, define_flags)
