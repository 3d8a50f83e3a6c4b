"""Packed arrays of the digits of `configs/digits.py`, as `openset_jax.prepare` writes them, made without TensorFlow.

python -m benchmarks.packed_digits --out=DIR
python -m openset_jax.train --config=configs/digits.py --config.data.packed=DIR --workdir=...
"""

import pathlib

from absl import flags

from openset_jax import cli


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("size", 28, "Side of the images, data.stored_size of the runs.", lower_bound=8)
    flags.DEFINE_string("out", None, "Folder for the arrays; created if necessary.", required=True)


def main() -> None:
    """Runs the command."""
    write_digits(cli.make_workdir(flags.FLAGS.out), size=flags.FLAGS.size)


def write_digits(root: pathlib.Path, *, size: int = 28) -> None:
    """Writes the images, roles and splits of `configs/digits.py` as a folder for `data.packed`.

    Args:
      root: the folder, which is created if necessary.
      size: side of the images.
    """
    import numpy as np

    from benchmarks import inputs
    from configs import digits
    from openset_jax.data import packed, pool_builder

    spec = inputs.resolve(digits.get_config())
    pool = pool_builder.open_pool(spec.data, stored_size=size, seed=spec.seed)
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "images.npy", packed.read(pool, np.arange(len(pool))))
    packed.write_index(
        root,
        stored_size=size,
        groups=list(zip(pool.roles, pool.groups, strict=True)),
        ids=pool.ids(np.arange(len(pool))),
        group=pool.group,
        split=pool.split,
        prepared_as=spec.data.chosen_images(),
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
