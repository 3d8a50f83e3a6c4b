"""Milliseconds of each layer, forward and backward, alone on one device, beside its bound from the roofline.

No command of its own: `python -m benchmarks.step --layers`. The layer to improve next is the one with the most milliseconds
above its bound. Layers alone cannot be fused with their neighbours, so their sum may exceed the step.

Programs are lowered one after another and compiled in threads, because on a GPU most of the time is compilation. Then
they are timed, one at a time, the layer with the largest bound first.
"""

import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from benchmarks import hardware, roofline, tables, timing
from benchmarks.compilations import Compilations
from openset_jax.model.network import Network
from openset_jax.platforms import xla

GROUPS, SECONDS_WITHOUT_LIMIT, LIMITED_SECONDS = 5, 0.2, 0.05  # groups of calls, seconds of each
RESERVE_SECONDS = 0.6  # for timing one program; no compilation is started with less time for all


@dataclasses.dataclass(frozen=True)
class Timed:
    """The result of `time_layers`.

    Attributes:
      layers: by name, in the order of the network: "ms" (a summary), "flops", "bytes", "bound_ms" (arithmetic and memory at
        once) and "share" (the bound over the measured time).
      compilations: "seconds" until all programs were compiled, "threads", and "cold".
      left_out: "layer NAME" -> the reason why it was not timed.
    """

    layers: dict[str, dict[str, Any]]
    compilations: dict[str, Any]
    left_out: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Program:
    """A layer, or the update of the parameters.

    Attributes:
      flops, moved: operations, and bytes that must be moved.
      run: the timed function.
      arguments: uint32 seed -> the list of its arguments.
      donated: the arguments from this one on are donated, and replaced by the result; None if nothing is donated.
    """

    name: str
    flops: int
    moved: int
    run: Callable[..., Any]
    arguments: Callable[[jax.typing.ArrayLike], list[Any]]
    donated: int | None = None


def time_layers(
    model: Network,
    optimizer: optax.GradientTransformation,
    *,
    image_size: int,
    batch_size: int,
    rates: dict[str, float],
    limit: timing.Limit | None = None,
) -> Timed:
    """Times every layer, pooling (with its ReLU), and the update of the parameters.

    Args:
      batch_size: of one device.
      rates: "matrix" (FLOP/s) and "copy" (bytes/s) of one device.
      limit: layers that would exceed it are left out.
    """
    programs = _programs(model, optimizer, image_size, batch_size)
    bounds = {p.name: roofline.bounds(p.flops, p.moved, rates["matrix"], rates["copy"])["overlap_ms"] for p in programs}
    largest_first = sorted(programs, key=lambda p: -bounds[p.name])
    limit = limit or timing.Limit(0)
    compiled, compilations = _compile(largest_first, limit)
    measured: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for program in largest_first:
        if program.name not in compiled:
            left_out[f"layer {program.name}"] = "there was no time to compile it"
        elif limit.left() < RESERVE_SECONDS:
            left_out[f"layer {program.name}"] = "there was no time to measure it"
        else:
            make_arguments, run = compiled[program.name]
            ms, bound = _milliseconds(program, make_arguments, run, limited=bool(limit)), bounds[program.name]
            share = {"bound_ms": bound, "share": bound / ms["median"]}
            measured[program.name] = {"ms": ms, "flops": program.flops, "bytes": program.moved, **share}
    return Timed({p.name: measured[p.name] for p in programs if p.name in measured}, compilations, left_out)


def report(timed: Timed, step_ms: float) -> None:
    """Prints the table, beside the time of the step."""
    if timed.layers:
        tables.print_table([tables.LAYERS_HEADER, *tables.layer_rows(timed.layers)])
    compilations = timed.compilations
    print(f"compiled in {compilations['seconds']:.1f} s by {compilations['threads']} threads")
    print(f"the step takes {step_ms:.3f} ms, with fusions, augmentation, dropout and the loss")
    for name, reason in timed.left_out.items():
        print(f"left out: {name}: {reason}")


def _programs(model: Network, optimizer: optax.GradientTransformation, image_size: int, batch_size: int) -> list[_Program]:
    """A program for each layer, and one for the update of the parameters."""
    dtype, found = jnp.dtype(model.dtype), roofline.layers(model, image_size)
    params = {layer.name: _parameters(layer) for layer in found if layer.module}

    def of_layer(layer):
        moved = batch_size * dtype.itemsize * layer.values() + layer.weight_bytes(dtype.itemsize)
        images = [jax.ShapeDtypeStruct((batch_size, *shape), dtype) for shape in (layer.inputs, layer.outputs)]
        shapes = [params.get(layer.name, {}), *images]
        run = _forward_and_backward(layer, model.ops.max_pool)
        return _Program(layer.name, batch_size * layer.flops(), moved, run, lambda seed: _random(seed, shapes))

    def update(gradients, params, opt_state):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state

    def for_update(seed):
        drawn = _random(seed, params)
        return [jax.tree.map(lambda p: 1e-3 * p, drawn), drawn, optimizer.init(drawn)]

    count = sum(p.size for p in jax.tree.leaves(params))
    return [*map(of_layer, found), _Program("optimizer", 0, count * roofline.ADAM_BYTES, update, for_update, donated=1)]


def _parameters(layer):
    """Shapes and dtypes of a layer's parameters."""
    init = lambda: layer.module.init(jax.random.key(0), jnp.zeros((1, *layer.inputs)))["params"]
    return jax.eval_shape(init)


def _random(seed, shapes):
    """Values in [-1, 1) of these shapes and dtypes: hashes of indices, because `jax.random` takes a second to compile."""

    def draw(number, leaf):
        bits = lax.iota(jnp.uint32, math.prod(leaf.shape)) + seed * jnp.uint32(0x9E3779B9) + jnp.uint32(number << 24)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
        return (bits.astype(jnp.float32) * 2.0**-31 - 1).astype(leaf.dtype).reshape(leaf.shape)

    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [draw(i, leaf) for i, leaf in enumerate(leaves)])


def _compile(
    programs: Sequence[_Program], limit: timing.Limit
) -> tuple[dict[str, list[jax.stages.Compiled]], dict[str, Any]]:
    """Compiles the programs that there is time for.

    Returns:
      ({name: [the function that makes the arguments, the function to time]}, "seconds", "threads" and "cold").
    """
    start, compilations, threads = time.perf_counter(), Compilations(), max(1, hardware.cores() // 2)
    seed, reserve = np.uint32(0), RESERVE_SECONDS * len(programs)

    def work(lowered):
        return [xla.compile_lowered(one) for one in lowered] if limit.left() > reserve else []

    futures = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for program in programs:
            arguments = jax.eval_shape(program.arguments, seed)
            donated = () if program.donated is None else tuple(range(program.donated, len(arguments)))
            run = jax.jit(program.run, donate_argnums=donated)
            lowered = jax.jit(program.arguments).lower(seed), run.lower(*arguments)
            futures[program.name] = pool.submit(work, lowered)
    compiled = {name: future.result() for name, future in futures.items()}
    found = {"seconds": time.perf_counter() - start, "threads": threads, "cold": compilations.cold}
    return {name: pair for name, pair in compiled.items() if pair}, found


def _milliseconds(
    program: _Program, make_arguments: jax.stages.Compiled, run: jax.stages.Compiled, *, limited: bool
) -> timing.Summary:
    """Summary of the milliseconds of a call."""
    held = make_arguments(np.uint32(0))

    def call():
        result = run(*held)
        if program.donated is not None:
            held[program.donated :] = result
        return result

    group_seconds = LIMITED_SECONDS if limited else SECONDS_WITHOUT_LIMIT
    return timing.summary([1e3 * s for s in roofline.seconds(call, groups=GROUPS, group_seconds=group_seconds)])


def _forward_and_backward(layer: roofline.Layer, max_pool: Callable[[jax.Array], jax.Array]) -> Callable[..., Any]:
    """(params, input, gradient of the output) -> output and gradients; without that of the input for the first layer."""
    if layer.module is None:
        forward = lambda params, x: nn.relu(max_pool(x))
    else:
        forward = lambda params, x: layer.module.apply({"params": params}, x)

    def run(params, x, gradient):
        if layer.first:
            output, backward = jax.vjp(lambda p: forward(p, x), params)
        else:
            output, backward = jax.vjp(forward, params, x)
        return output, backward(gradient)

    return run
