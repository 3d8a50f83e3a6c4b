"""The features of frozen layers: computed once for each image, kept in a file, and the input of the training of the head.

This suits a run that trains only the head, on images that are the same each time. The features are float16; every pass
over them, in training and in evaluation, takes the same numbers. At the end the run is a whole network, with the frozen
layers as they were.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import IO, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from openset_jax.data import array_file
from openset_jax.data.pools import Pool, Source
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import Stopped
from openset_jax.files import write_whole
from openset_jax.spec import RunSpec, VectorSpec
from openset_jax.training import devices
from openset_jax.training.inference import Inference
from openset_jax.training.pace import Pace
from openset_jax.training.run_log import say
from openset_jax.training.state import Variables

FOLDER = "features"  # in the workdir of a run, or of an experiment
_DTYPE = np.dtype("<f2")


class Features(NamedTuple):
    """The features of a pool of images: a pool of vectors with the same rows, and the unreadable images."""

    pool: Pool
    unreadable: Unreadable


def suits(spec: RunSpec) -> bool:
    """True if a run trains only the head, in one process, and every image is the same each time."""
    program = spec.program
    of_images = not isinstance(program.forward.inputs, VectorSpec)
    return program.trainable == "head" and of_images and not program.augments and jax.process_count() == 1


def load(
    spec: RunSpec, pool: Pool, variables: Variables, folder: pathlib.Path, *, inference: Callable[[], Inference],
    stop_requested: Callable[[], str] = lambda: "",
) -> Features | None:  # fmt: skip
    """Returns the features of all images of a pool, from their file in `folder`, or else computes them and writes it.

    The file is named after a hash of the frozen layers, of the images and of their preprocessing, so that a file of other
    ones is never used.

    Args:
      variables: of the whole network.
      inference: returns the forward pass over the pool; called only to compute features.
      stop_requested: returns the reason to stop before the next batch, "" to continue.

    Returns None, with a printed line, if a feature is too large for float16.

    Raises:
      Stopped: `stop_requested` returned a reason.
    """
    path = folder / f"{_fingerprint(spec, pool, variables)}.npy"
    if not (kept := _read(path, len(pool))):
        say(f"The layers below the head are frozen: computing the features of {len(pool):,} images once.")
        folder.mkdir(parents=True, exist_ok=True)
        made = inference()
        try:
            with write_whole(path, "wb") as file:
                write(file, made, devices.replicate(variables), len(pool), stop_requested, blanks=True)
        except OverflowError as error:
            say(f"{error} The head is trained from the images instead.")
            return None
        with write_whole(path.with_suffix(".json")) as file:
            file.write(json.dumps({str(row): reason for row, reason in made.unreadable.rows.items()}))
        kept = _read(path, len(pool))
        assert kept is not None
    array, rows = kept
    unreadable = Unreadable(pool, spec.data.max_bad_fraction, spec.data.max_pixels)
    unreadable.rows = rows
    return Features(_pool_of(pool, array), unreadable)


def _read(path: pathlib.Path, count: int) -> tuple[array_file.ArrayFile, dict[int, str]] | None:
    """(the features of `count` images, the unreadable rows with the reasons); None if the files are absent or damaged."""
    try:
        file = array_file.open_array(path)
        rows = {int(row): str(reason) for row, reason in json.loads(path.with_suffix(".json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return None
    return (file, rows) if file.rows == count else None


def write(
    file: IO[bytes], inference: Inference, variables: Variables, count: int, stop_requested: Callable[[], str], *,
    blanks: bool = False,
) -> np.ndarray:  # fmt: skip
    """Writes the features of the first `count` rows of a pool as a .npy file, float16 [n, F]; prints its progress.

    Args:
      variables: of the whole network, replicated.
      blanks: whether unreadable images have vectors of zeros, so that n is `count`; otherwise they are left out.

    Returns the rows in the file that were read, int64.

    Raises:
      OverflowError: a feature is too large for float16.
      Stopped: `stop_requested` returned a reason.
    """
    size, pace = inference.network.feature_size, Pace("features of the images:", count)
    inference, rows_read, done = dataclasses.replace(inference, stop_requested=stop_requested), list[np.ndarray](), 0
    header = lambda rows: {"descr": _DTYPE.str, "fortran_order": False, "shape": (rows, size)}
    np.lib.format.write_array_header_1_0(file, header(count))
    try:
        for rows, out in inference.run("features", variables, np.arange(count)):
            with np.errstate(over="ignore"):
                features = out["features"].astype(_DTYPE)
            if not np.isfinite(features).all():
                raise OverflowError(f"A feature of {np.abs(out['features']).max():.3g} is too large for float16.")
            if blanks and len(rows):
                whole = np.zeros((int(rows[-1]) + 1 - done, size), _DTYPE)
                whole[rows - done] = features
                features = whole
            file.write(features.tobytes())
            rows_read.append(rows)
            done = int(rows[-1]) + 1 if len(rows) else done
            pace.at(done)
    except Stopped as stopped:
        text = f"Stopped by {stop_requested()} while features were computed; run the same command again to start over."
        raise Stopped(text) from stopped
    read = np.concatenate([*rows_read, np.zeros(0, np.int64)])
    if blanks:
        file.write(np.zeros((count - done, size), _DTYPE).tobytes())  # of the last images, if they are unreadable
    else:
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header(len(read)))  # as long as before
    return read


def _fingerprint(spec: RunSpec, pool: Pool, variables: Variables) -> str:
    """A hash of the frozen layers, of the images in their order, and of their preprocessing."""
    forward = spec.program.forward
    network = forward.network.make(1)
    found = hashlib.blake2b(repr((forward.network, forward.inputs, spec.data.max_pixels)).encode(), digest_size=16)
    for name, values in sorted(flatten_dict(variables, sep="/").items()):
        if not name.startswith(f"params/{network.head}/"):
            found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    found.update(np.ascontiguousarray(pool.key).data)
    for number, source in enumerate(pool.sources):
        found.update(source.name.encode("utf-8", "surrogateescape") + source.format.encode())
        if source.format == "path":
            for path in source.fetch(pool.record[pool.source == number]):
                found.update(repr(_stamp(path)).encode())
    return found.hexdigest()


def _stamp(path: bytes | str) -> tuple[int, int] | None:
    """Size and time of change of a file; None if it is not there."""
    try:
        there = pathlib.Path(path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")).stat()
    except OSError:
        return None
    return there.st_size, there.st_mtime_ns


def _pool_of(pool: Pool, file: array_file.ArrayFile) -> Pool:
    """A pool of the same rows whose examples are the vectors of a file."""
    source = Source(
        name=str(file.path), classes=pool.groups, roles=pool.roles, label=pool.group, split=pool.split, format="array",
        ids=pool.ids, fetch=file.fetcher(), array=file.array,
    )  # fmt: skip
    rows = np.arange(len(pool))
    return dataclasses.replace(pool, sources=(source,), source=np.zeros(len(pool), np.int32), record=rows, array=file.array)
