"""Milliseconds of each layer, forwards and backwards, alone on one device, beside what the roofline allows it.

No command of its own: `python -m benchmarks.step --layers`. What is worth improving next is the layer with the most
milliseconds above its bound. Layers alone cannot be fused with their neighbours, so that their sum may exceed the step.
"""

from typing import Any

from benchmarks import common, roofline

HEADER = ["layer", "ms", "bound, ms", "share", "GFLOP", "MB"]


def time_layers(model: Any, optimizer: Any, *, image_size: int, batch_size: int, rates: dict[str, float]) -> dict[str, Any]:
    """Times every layer, pooling (with the ReLU that belongs to it), and the update of the parameters.

    Args:
      model: an `AlexNet`.
      optimizer: of Optax.
      batch_size: of one device.
      rates: "matrix" (FLOP/s) and "copy" (bytes/s) of one device.

    Returns:
      For each layer by name: "ms" (a summary), "flops", "bytes", "bound_ms" (arithmetic and memory at once) and "share".
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from openset_jax.training import devices

    rng, itemsize = np.random.default_rng(0), jnp.dtype(model.dtype).itemsize
    found = roofline.layers(model, image_size)
    random = lambda shape: jnp.asarray(rng.standard_normal((batch_size, *shape), np.float32), model.dtype)
    params = {
        layer.name: layer.module.init(jax.random.key(0), jnp.zeros((1, *layer.inputs)))["params"]
        for layer in found
        if layer.module
    }
    result = {}

    def add(name, run, flops, moved):
        ms = common.summary([1e3 * s for s in roofline.seconds(run, groups=5)])
        bound = roofline.bounds(flops, moved, rates["matrix"], rates["copy"])["overlap_ms"]
        result[name] = {"ms": ms, "flops": flops, "bytes": moved, "bound_ms": bound, "share": bound / ms["median"]}

    for layer in found:
        arguments = params.get(layer.name, {}), random(layer.inputs), random(layer.outputs)
        run = devices.compile_lowered(jax.jit(_forwards_and_backwards(layer)).lower(*arguments))
        moved = batch_size * itemsize * layer.values() + layer.weight_bytes(itemsize)
        add(layer.name, lambda run=run, arguments=arguments: run(*arguments), batch_size * layer.flops(), moved)

    held = [params, jax.jit(optimizer.init)(params)]
    gradients = jax.tree.map(lambda p: 1e-3 * p, params)
    count = sum(p.size for p in jax.tree.leaves(params))

    def update(gradients, params, opt_state):
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state

    compiled = devices.compile_lowered(jax.jit(update, donate_argnums=(1, 2)).lower(gradients, *held))

    def run_update():
        held[:] = compiled(gradients, *held)
        return held

    add("optimizer", run_update, 0, count * roofline.ADAM_BYTES)
    return result


def report(result: dict[str, Any], step_ms: float) -> None:
    """Prints the table, and what is left of the step."""
    rows = [
        [name, f"{v['ms']['median']:.3f}", f"{v['bound_ms']:.3f}", f"{v['share']:.0%}", f"{v['flops'] / 1e9:.1f}",
         f"{v['bytes'] / 1e6:.0f}"]
        for name, v in result.items()
    ]  # fmt: skip
    total, bound = (sum(v) for v in zip(*((v["ms"]["median"], v["bound_ms"]) for v in result.values()), strict=True))
    rows.append(["all of these", f"{total:.3f}", f"{bound:.3f}", f"{bound / total:.0%}", "", ""])
    common.print_table([HEADER, *rows])
    print(f"the step takes {step_ms:.3f} ms: these, less what it fuses, and augmentation, dropout and the loss")


def _forwards_and_backwards(layer: roofline.Layer) -> Any:
    """(params, input, gradient of the output) -> output and gradients; for the first layer not that of its input."""
    import jax
    from flax import linen as nn

    from openset_jax.model.pooling import max_pool

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
