"""Chooses between streamed and resident images, and makes the `ImageInput`."""

import functools
from typing import NamedTuple

import jax

from openset_jax.data import resident, streaming
from openset_jax.data.pools import Pool
from openset_jax.data.unreadable import Unreadable
from openset_jax.spec import InputSpec
from openset_jax.training import device_memory, devices, hosts
from openset_jax.training.image_input import ImageInput, ReadBatches, streamed

IMAGE_SHARE = 0.75  # images may take this share of the free memory; parameters, gradients and activations need the rest


class InputChoice(NamedTuple):
    """The name "stream" or "resident", and the printed text with the reason of the choice."""

    name: str
    text: str


def choose(asked: InputSpec, pool: Pool) -> InputChoice:
    """Resolves input=auto: resident if the images are packed and fit `IMAGE_SHARE` of the free memory, else streamed."""
    packed, sharded, noun = pool.is_packed, asked.sharded, pool.array.noun
    if asked.name == "stream":
        return InputChoice("stream", f"{noun} streamed (input=stream)")
    if asked.name == "auto" and not packed:
        return InputChoice("stream", f"{noun} streamed: they are not packed")
    if asked.name == "auto" and (why := _too_large(pool, sharded)):
        shard = "" if sharded or jax.device_count() == 1 else "--config.shard_resident=True spreads them over the devices"
        return InputChoice("stream", f"{noun} streamed: {why}" + (f" ({shard})" if shard else ""))
    how = "" if pool.array.is_vector else " packed" if packed else " decoded at the start"
    spread = f", spread over {jax.device_count()} devices" if sharded and jax.device_count() > 1 else ""
    size = _size(len(pool) * pool.array.nbytes)
    return InputChoice("resident", f"{noun} resident on the devices: {size}{how}{spread}")


def _too_large(pool: Pool, sharded: bool) -> str:
    """The reason why packed images cannot be resident; "" if they can. The same in all processes of a run."""
    needed, free, where = device_memory.memory_for(len(pool), pool.array, sharded=sharded)
    fits = free is not None and needed <= IMAGE_SHARE * free
    if not hosts.any_process(not fits, communicate=True):
        return ""
    if free is None:
        limit = "and the free memory of this system is unknown"
    elif fits:
        limit = "which is more than another process of this run has free"
    else:
        limit = f"more than {IMAGE_SHARE:.0%} of the {_size(free)} that {where} has free"
    return f"resident {pool.array.noun} would need {_size(needed)}, {limit}"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def make_image_input(name: str, pool: Pool, *, unreadable: Unreadable, sharded: bool = False) -> ImageInput:
    """Makes the `ImageInput` named "stream" or "resident": decodes resident images if necessary, and copies them.

    Args:
      sharded: whether to shard resident images over all devices, instead of a copy on each.

    Raises:
      UserError: TensorFlow, which decodes, is not installed; or resident images do not fit; or a run of several processes
        has resident images that are not packed.
    """
    if name == "stream":
        return streamed(_stream(pool, unreadable))
    if pool.is_packed or hosts.host_part() != (0, 1):  # processes do not exchange unreadable images
        resident.check_packed(pool)
        read = lambda start, stop: resident.read(pool, start, stop)
    else:
        stream = _stream(pool, unreadable)
        read = lambda start, stop: resident.decode(stream, pool, start, stop, unreadable)
    gather = functools.partial(resident.gather_sharded, axis=devices.AXIS) if sharded else resident.gather
    return ImageInput(
        read=resident.rows,
        store=device_memory.copy_to_devices(read, len(pool), pool.array, sharded=sharded),
        store_axis=0 if sharded else None,
        load=lambda store, batch: batch | {"example": gather(store, batch["row"])},
    )


def _stream(pool: Pool, unreadable: Unreadable) -> ReadBatches:
    streaming.reader_of(pool)  # raises UserError before the first batch
    return functools.partial(streaming.stream, pool, unreadable=unreadable)
