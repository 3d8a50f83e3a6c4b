"""Milliseconds of each layer, forwards and backwards, alone on one device, beside what the roofline allows it.

No command of its own: `python -m benchmarks.step --layers`. What is worth improving next is the layer with the most
milliseconds above its bound. Layers alone cannot be fused with their neighbours, so that their sum may exceed the step.

Programs are lowered one after another and compiled in threads, because on a GPU compilation takes longer than all else. Only
then are they timed, one at a time, the layer with the largest bound first.
"""

import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from benchmarks import common, roofline

HEADER = ["layer", "ms", "bound, ms", "share", "GFLOP", "MB"]
GROUPS, SECONDS_WITHOUT_LIMIT, LIMITED_SECONDS = 5, 0.2, 0.05  # groups of calls, seconds of each
RESERVE_SECONDS = 0.6  # of each program for timing it: not begun to compile with less


@dataclasses.dataclass(frozen=True)
class Timed:
    """What `time_layers` measured.

    Attributes:
      layers: for each by name, in the order of the network: "ms" (a summary), "flops", "bytes", "bound_ms" (arithmetic and
        memory at once) and "share".
      compilations: "seconds" until all were compiled, "threads", and "cold".
      left_out: why a layer was not timed.
    """

    layers: dict[str, dict[str, Any]]
    compilations: dict[str, Any]
    left_out: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Program:
    """A layer, or the update of the parameters.

    Attributes:
      run: a function of the arguments that `inputs` makes; its result is timed.
      inputs: uint32 seed -> a list of arguments.
      carries: the arguments from this one on are donated, and the result takes their place; None if nothing is donated.
    """

    name: str
    flops: int
    moved: int
    run: Callable[..., Any]
    inputs: Callable[[Any], list[Any]]
    carries: int | None = None


def time_layers(
    model: Any,
    optimizer: Any,
    *,
    image_size: int,
    batch_size: int,
    rates: dict[str, float],
    limit: common.Limit | None = None,
) -> Timed:
    """Times every layer, pooling (with the ReLU that belongs to it), and the update of the parameters.

    Args:
      model: an `AlexNet`.
      optimizer: of Optax.
      batch_size: of one device.
      rates: "matrix" (FLOP/s) and "copy" (bytes/s) of one device.
      limit: layers that do not fit into it are left out.
    """
    programs = _programs(model, optimizer, image_size, batch_size)
    bounds = {p.name: roofline.bounds(p.flops, p.moved, rates["matrix"], rates["copy"])["overlap_ms"] for p in programs}
    important = sorted(programs, key=lambda p: -bounds[p.name])
    limit = limit or common.Limit(0)
    compiled, compilations = _compile(important, limit)
    measured, left_out = {}, {}
    for program in important:
        if program.name not in compiled:
            left_out[f"layer {program.name}"] = "there was no time to compile it"
        elif limit.left() < RESERVE_SECONDS:
            left_out[f"layer {program.name}"] = "there was no time to measure it"
        else:
            ms, bound = _milliseconds(program, *compiled[program.name], bool(limit)), bounds[program.name]
            share = {"bound_ms": bound, "share": bound / ms["median"]}
            measured[program.name] = {"ms": ms, "flops": program.flops, "bytes": program.moved, **share}
    return Timed({p.name: measured[p.name] for p in programs if p.name in measured}, compilations, left_out)


def report(timed: Timed, step_ms: float) -> None:
    """Prints the table, and what is left of the step."""
    if timed.layers:
        common.print_table([HEADER, *rows(timed.layers)])
    compilations = timed.compilations
    print(f"compiled in {compilations['seconds']:.1f} s by {compilations['threads']} threads")
    print(f"the step takes {step_ms:.3f} ms: these, less what it fuses, and augmentation, dropout and the loss")
    for what, why in timed.left_out.items():
        print(f"left out: {what}: {why}")


def rows(layers: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The cells of a table with `HEADER`, and a last row for all layers together."""
    cells = [
        [name, f"{v['ms']['median']:.3f}", f"{v['bound_ms']:.3f}", f"{v['share']:.0%}", f"{v['flops'] / 1e9:.1f}",
         f"{v['bytes'] / 1e6:.0f}"]
        for name, v in layers.items()
    ]  # fmt: skip
    total, bound = (sum(v) for v in zip(*((v["ms"]["median"], v["bound_ms"]) for v in layers.values()), strict=True))
    return [*cells, ["all of these", f"{total:.3f}", f"{bound:.3f}", f"{bound / total:.0%}", "", ""]]


def _programs(model, optimizer, image_size, batch_size):
    """A `_Program` for each layer, and one for the update of the parameters."""
    import jax
    import jax.numpy as jnp

    dtype, found = jnp.dtype(model.dtype), roofline.layers(model, image_size)
    params = {layer.name: _parameters(layer) for layer in found if layer.module}

    def of_layer(layer):
        moved = batch_size * dtype.itemsize * layer.values() + layer.weight_bytes(dtype.itemsize)
        images = [jax.ShapeDtypeStruct((batch_size, *shape), dtype) for shape in (layer.inputs, layer.outputs)]
        shapes = [params.get(layer.name, {}), *images]
        forwards, inputs = _forwards_and_backwards(layer, model.forms.max_pool), lambda seed: _random(seed, shapes)
        return _Program(layer.name, batch_size * layer.flops(), moved, forwards, inputs)

    def update(gradients, params, opt_state):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state

    def for_update(seed):
        drawn = _random(seed, params)
        return [jax.tree.map(lambda p: 1e-3 * p, drawn), drawn, optimizer.init(drawn)]

    count = sum(p.size for p in jax.tree.leaves(params))
    return [*map(of_layer, found), _Program("optimizer", 0, count * roofline.ADAM_BYTES, update, for_update, carries=1)]


def _parameters(layer):
    """Shapes and dtypes of a layer's parameters."""
    import jax
    import jax.numpy as jnp

    init = lambda: layer.module.init(jax.random.key(0), jnp.zeros((1, *layer.inputs)))["params"]
    return jax.eval_shape(init)


def _random(seed, shapes):
    """Values in [-1, 1) of these shapes and dtypes. They are hashes of indices: `jax.random` takes a second to compile."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def draw(number, leaf):
        bits = lax.iota(jnp.uint32, math.prod(leaf.shape)) + seed * jnp.uint32(0x9E3779B9) + jnp.uint32(number << 24)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
        return (bits.astype(jnp.float32) * 2.0**-31 - 1).astype(leaf.dtype).reshape(leaf.shape)

    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [draw(i, leaf) for i, leaf in enumerate(leaves)])


def _compile(programs, limit):
    """({name: [what makes the arguments, what is timed]}, "seconds", "threads" and "cold"); without those out of time."""
    import jax
    import numpy as np

    from openset_jax.training import devices

    start, compilations, threads = time.perf_counter(), common.Compilations(), max(1, common.cores() // 2)
    seed, compiled, timing = np.uint32(0), {}, RESERVE_SECONDS * len(programs)

    def work(lowered):
        return [devices.compile_lowered(one) for one in lowered] if limit.left() > timing else None

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for program in programs:
            arguments = jax.eval_shape(program.inputs, seed)
            donated = () if program.carries is None else tuple(range(program.carries, len(arguments)))
            run = jax.jit(program.run, donate_argnums=donated)
            lowered = jax.jit(program.inputs).lower(seed), run.lower(*arguments)
            compiled[program.name] = pool.submit(work, lowered)
    compiled = {name: future.result() for name, future in compiled.items()}
    found = {"seconds": time.perf_counter() - start, "threads": threads, "cold": compilations.cold}
    return {name: pair for name, pair in compiled.items() if pair}, found


def _milliseconds(program, make_inputs, run, limited):
    """Summary of the milliseconds of a call."""
    import numpy as np

    held = make_inputs(np.uint32(0))

    def call():
        result = run(*held)
        if program.carries is not None:
            held[program.carries :] = result
        return result

    group_seconds = LIMITED_SECONDS if limited else SECONDS_WITHOUT_LIMIT
    return common.summary([1e3 * s for s in roofline.seconds(call, groups=GROUPS, group_seconds=group_seconds)])


def _forwards_and_backwards(layer: roofline.Layer, max_pool: Callable[..., Any]) -> Any:
    """(params, input, gradient of the output) -> output and gradients; for the first layer not that of its input."""
    import jax
    from flax import linen as nn

    if layer.module is None:
        forward = lambda params, x: nn.relu(max_pool(x))
    else:
        forward = lambda params, x: layer.module.apply({"params": params}, x)

    def run(params, x, gradient):
        if layer.first:
            output, backwards = jax.vjp(lambda p: forward(p, x), params)
        else:
            output, backwards = jax.vjp(forward, params, x)
        return output, backwards(gradient)

    return run
