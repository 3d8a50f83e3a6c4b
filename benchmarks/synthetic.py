"""Packed arrays of random images, for measuring where no photographs are at hand. Nothing can be learned from them.

python -m benchmarks.synthetic --images=8192 --size=256 --out=DIR
"""

import json
import os
import pathlib

from absl import flags

from openset_jax import cli

CLASSES, DISTINCT = 10, 1024


def define_flags() -> None:
    flags.DEFINE_integer("images", None, "How many.", lower_bound=1, required=True)
    flags.DEFINE_integer("size", 256, "Their side.", lower_bound=1)
    flags.DEFINE_string("out", None, "Folder for the arrays; made if need be.", required=True)


def main() -> None:
    write_packed(cli.make_workdir(flags.FLAGS.out), images=flags.FLAGS.images, size=flags.FLAGS.size)


def write_packed(root: pathlib.Path, *, images: int, size: int) -> None:
    """Writes what `openset_jax.prepare` would: half known images of ten classes, half negatives of ten groups.

    Of ten images of a group eight are for training, one for validation and one for testing. The same `DISTINCT` random
    images are written again and again, because drawing others takes longer than writing them. A folder that is as asked
    already is left as it is.
    """
    import numpy as np

    from openset_jax.data import packed
    from openset_jax.errors import UserError

    root.mkdir(parents=True, exist_ok=True)
    index, file = root / "index.json", root / "images.npy"
    if index.exists():
        there = json.loads(index.read_text())
        if (len(there["id"]), there["stored_size"]) == (images, size):
            return
        index.unlink()
    needed, free = images * size * size * 3, os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
    if needed > free:
        raise UserError(
            f"--images: {images:,} of {size}x{size} are {needed / 1e9:.1f} GB, and {str(root)!r} has {free / 1e9:.1f} GB"
        )
    block = np.random.default_rng(0).integers(0, 256, (min(DISTINCT, images), size, size, 3), np.uint8)
    with file.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size, 3)}
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, images, len(block)):
            out.write(block[: images - start].data)
    numbers = np.arange(images)
    packed.write_index(
        root,
        stored_size=size,
        groups=[(role, f"{role}{i}") for role in ("known", "negatives") for i in range(CLASSES)],
        ids=[f"random/{i}" for i in range(images)],
        group=numbers % (2 * CLASSES),
        split=np.maximum(numbers // (2 * CLASSES) % 10 - 7, 0),
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
