"""Resolves the config fields that are "auto", `model.dtype` and `input`, to values that suit the devices of this process.

The dtype is part of a run: it is resolved before anything is made from the config, and saved. The input is not: the saved
config keeps "auto", and every command chooses for the devices that it has.
"""

import importlib.util
import pathlib
from typing import Any, NamedTuple

import ml_collections

from openset_jax.errors import UserError

AUTO = "auto"
IMAGE_SHARE = 0.75  # images may take this share of the free memory; the rest is for parameters, gradients and activations

_NAMES = {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}


def with_dtype(config: ml_collections.ConfigDict, begun_with: str | None = None) -> ml_collections.ConfigDict:
    """A copy of the config whose `model.dtype` is not "auto".

    Args:
      begun_with: the dtype that "auto" stands for; None for the one that suits the devices.
    """
    config = config.copy_and_resolve_references()
    if config.model.dtype == AUTO:
        config.model.dtype = begun_with or _device_dtype()
    return config


def with_dtype_of_run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """`with_dtype`, where a run that has a checkpoint goes on in the dtype that it began with, on whatever devices.

    Args:
      workdir: of the run; of two phases, the folder of the second.
    """
    if config.model.dtype != AUTO:
        return with_dtype(config)
    from openset_jax.training import checkpoints, two_phase

    folders = [workdir, workdir / two_phase.FIRST] if config.sampling.policy == "two_phase" else [workdir]
    saved = next(filter(None, map(checkpoints.latest_config, folders)), None)
    return with_dtype(config, saved and saved["model"]["dtype"])


def _device_dtype() -> str:
    import jax

    return "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32"


class Input(NamedTuple):
    """How images reach the devices.

    Attributes:
      name: "stream" or "resident".
      text: the same in words, with the reason.
    """

    name: str
    text: str


def choose_input(config: ml_collections.ConfigDict, pool: Any) -> Input:
    """The way that `input` asks for; "auto": resident where all images are packed and fit the free memory, else streamed.

    All processes of a run choose alike.

    Raises:
      UserError: packed images do not fit, and cannot be streamed without TensorFlow.
    """
    import jax

    from openset_jax.data import resident

    packed, size, sharded = resident.is_packed(pool), config.data.stored_size, config.shard_resident
    if config.input == "stream":
        return Input("stream", "images streamed (input=stream)")
    if config.input == AUTO and not packed:
        return Input("stream", "images streamed: they are not packed")
    if config.input == AUTO and (why := _too_large(len(pool), (size, size, 3), sharded)):
        share = "" if sharded or jax.device_count() == 1 else "--config.shard_resident=True spreads them over the devices"
        if not _can_stream():
            remedies = ["install TensorFlow, which streams them", share, "prepare them with a smaller data.stored_size"]
            raise UserError(f"input: {why}; {', '.join(filter(None, remedies))}, or try --config.input=resident")
        return Input("stream", f"images streamed: {why}" + (f" ({share})" if share else ""))
    how = "packed" if packed else "decoded at the start"
    spread = f", spread over {jax.device_count()} devices" if sharded and jax.device_count() > 1 else ""
    return Input("resident", f"images resident on the devices: {_size(len(pool) * size**2 * 3)} {how}{spread}")


def _can_stream() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _too_large(count: int, shape: tuple[int, ...], sharded: bool) -> str:
    """Why packed images cannot be resident, "" if they can. All processes of a run give the same answer."""
    from openset_jax.training import devices

    room = devices.room_for(count, shape, sharded=sharded)
    fits = room.free is not None and room.needed <= IMAGE_SHARE * room.free
    if not devices.any_process(not fits, due=True):
        return ""
    if room.free is None:
        limit = "and this system does not say how much memory is free"
    elif fits:
        limit = "which another process of this run does not have free"
    else:
        limit = f"more than {IMAGE_SHARE:.0%} of the {_size(room.free)} that {room.where} has free"
    return f"resident, they need {_size(room.needed)}, {limit}"


def line(config: ml_collections.ConfigDict, input: Input, *, asked_dtype: str) -> str:
    """The line that a run prints at its start.

    Args:
      config: of `with_dtype`.
      asked_dtype: `model.dtype` as it was asked for.
    """
    import jax

    dtype, platform = config.model.dtype, jax.default_backend()
    if asked_dtype != AUTO:
        why = ""
    elif dtype == _device_dtype():
        why = f" (model.dtype=auto on {_NAMES.get(platform, platform)})"
    else:
        why = f", as at the first start (model.dtype=auto is {_device_dtype()} on {_NAMES.get(platform, platform)})"
    return f"Computing in {dtype}{why}, {input.text}."


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
