"""Packed arrays of random images, for benchmarks without photographs. Nothing can be learned from them.

python -m benchmarks.synthetic --images=8192 --size=256 --out=DIR
"""

import json
import os
import pathlib

from absl import flags

from openset_jax import cli

CLASSES, DISTINCT = 10, 1024


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("images", None, "Number of images.", lower_bound=1, required=True)
    flags.DEFINE_integer("size", 256, "Side of the images.", lower_bound=1)
    flags.DEFINE_string("out", None, "Folder for the arrays; created if necessary.", required=True)


def main() -> None:
    """Runs the command."""
    write_packed(cli.make_workdir(flags.FLAGS.out), images=flags.FLAGS.images, size=flags.FLAGS.size)


def write_packed(root: pathlib.Path, *, images: int, size: int) -> None:
    """Writes packed arrays as `openset_jax.prepare` does: half known images of ten classes, half negatives of ten groups.

    Of ten images of a group eight are for training, one for validation and one for testing. The same `DISTINCT` random
    images are written repeatedly, because drawing images takes longer than writing them. A folder that already has such
    images is not changed.

    Raises:
      UserError: the disk has too little space.
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
