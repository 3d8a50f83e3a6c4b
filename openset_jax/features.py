"""Computes the features of all images of a config with the network that its runs start from, and writes them as vectors.

python -m openset_jax.features --config=configs/folder_pretrained.py --config.data.root=ROOT --out=FEATURES
python -m openset_jax.train --config=configs/features.py --config.data.root=FEATURES --workdir=runs/mine
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from openset_jax import cli, lock, unattended
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.text import show

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from ml_collections import ConfigDict


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder for the vectors; created if necessary.", required=True)


def main() -> None:
    """Runs the command."""
    from openset_jax.platforms import xla

    out = cli.make_workdir(flags.FLAGS.out)
    xla.check_platform()
    xla.cache_compilations()
    with unattended.stop_on_signal() as stop_requested, lock.claimed(out):
        write_features(flags.FLAGS.config, out, stop_requested)


def write_features(config: ConfigDict, out: pathlib.Path, stop_requested: Callable[[], str] = lambda: "") -> int:
    """Writes OUT/features.npy, float16 [n, F], and OUT/index.csv, for all readable images of a config; returns n.

    The features are the inputs of the head. The files are as `data.vector_files` reads them.

    Raises:
      UserError: the config or the data must be changed, or OUT has vectors already.
      Stopped: a signal arrived; the next call starts again.
    """
    from openset_jax import config as configs
    from openset_jax.data import vector_files
    from openset_jax.data.pools import SPLITS
    from openset_jax.report import console, csv_rows
    from openset_jax.training import devices, frozen_features, run_cache, run_length, run_setup

    cache, index = run_cache.RunCache(), out / vector_files.INDEXES[0]
    spec = configs.resolve(run_length.with_steps(config, cache), out)[-1]
    if index.exists():
        raise UserError(f"--out: {str(out)!r} has vectors already; remove this folder, or choose another --out")
    if spec.stored_size is None:
        raise UserError(f"model.name: {spec.program.forward.network.name} takes vectors; choose a network for images")
    if not spec.init_from:
        raise UserError("init_from: features of random parameters are useless; set it, for example to pretrained")
    run = run_setup.make_run(spec, cache)
    show(console.pool_table(run.pool))
    pool, variables = run.pool, devices.replicate(run_setup.initial_state(run).variables)
    inference = cache.inference(spec, pool, cache.images(spec, pool))
    with write_whole(out / vector_files.VECTORS, "wb") as array:
        kept = frozen_features.write(array, inference, variables, len(pool), stop_requested)
    with write_whole(index, newline="") as file:
        write_row = csv_rows.row_writer(file)
        write_row(["id", "class", "role", "split"])
        for row, id_ in zip(kept.tolist(), pool.ids(kept), strict=True):
            group = pool.group[row]
            write_row([csv_rows.path_cell(id_), pool.groups[group], pool.roles[group], SPLITS[pool.split[row]]])
    skipped = f", {len(pool) - len(kept):,} unreadable images left out" if len(kept) < len(pool) else ""
    show(f"{len(kept):,} vectors of {inference.network.feature_size:,} features in {out}{skipped}.")
    show(f"Use them with --config=configs/features.py --config.data.root={out}")
    return len(kept)


if __name__ == "__main__":
    cli.run(main, define_flags)
