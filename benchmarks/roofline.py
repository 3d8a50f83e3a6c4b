"""What the devices can do, measured, and how long a step of a network must take at least on them.

    python -m benchmarks.roofline

Why: images per second say nothing about what is left to gain. Two rates bound every step (Williams, Waterman and Patterson
2009, "Roofline"): that of one large matrix product, and that of reading and writing memory. A step's multiplications at the
first, and the bytes that it must move at the second, give two bounds: both at once (overlap), or one after the other. Bytes
are those of a network whose layers each read and write their operands once and do everything in between for nothing.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli

ADAM_BYTES = 28  # per float32 parameter: reads weight, gradient and two moments, writes weight and moments


def define_flags() -> None:
    flags.DEFINE_integer("matrix", 0, "Side of the matrices; 0 for 8192, or 2048 on a CPU.", lower_bound=0)
    flags.DEFINE_bool("rates", True, "--norates: only say what devices there are.")
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    file = common.json_file(flags.FLAGS.json)
    import jax

    from openset_jax.model import alexnet

    machine, rates = common.machine(devices=True), {}
    common.print_machine(machine)
    found = {"machine": machine, "platform": jax.default_backend(), "count": jax.device_count()}
    common.write_json(file, found)  # the suite goes on with it, whatever becomes of the rates
    if not flags.FLAGS.rates:
        return
    for name, dtype in alexnet.DTYPES.items():
        rates[f"matrix_rate_{name}"] = measured_matrix_rate(dtype, flags.FLAGS.matrix)
    rates["copy_rate"] = measured_copy_rate()
    rows = [common.row(name.replace("_", " "), common.scaled(v, 1e-9)) for name, v in rates.items()]
    common.print_table([["all devices, GFLOP/s and GB/s", "median", "min", "max"], *rows])
    common.write_json(file, rates | found)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with a kernel, or what lies between two of them and changes the size: pooling.

    Attributes:
      module: the Flax module on its own; None for pooling.
      inputs, outputs: shapes of one image's values, without the batch.
      kernel: shape of the weights, () for none.
      first: whether nobody needs the gradient of its input.
    """

    name: str
    module: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    first: bool = False

    def flops(self, *, train: bool = True) -> int:
        """Floating-point operations for one image; a multiply-add is 2.

        Each position of the output uses every weight once. Forwards, the gradient of the kernel, and that of the input cost
        the same each.
        """
        forward = 2 * math.prod(self.outputs[:-1]) * math.prod(self.kernel) if self.kernel else 0
        return forward * ((2 if self.first else 3) if train else 1)

    def values(self, *, train: bool = True) -> int:
        """Values that one image has to be read and written.

        Forwards: the input and the output. Backwards, with a kernel: the output's gradient twice, the input, and the
        input's gradient; pooling: the input, and both gradients.
        """
        inside, outside = math.prod(self.inputs), math.prod(self.outputs)
        if not train:
            return inside + outside
        if self.kernel:
            return 3 * outside + (2 if self.first else 3) * inside
        return 2 * outside + 3 * inside

    def weight_bytes(self, itemsize: int, *, train: bool = True) -> int:
        """Bytes of the kernel's traffic in a step: see `weight_bytes`."""
        return math.prod(self.kernel) * weight_bytes(itemsize, train=train) if self.kernel else 0


def weight_bytes(itemsize: int, *, train: bool = True) -> int:
    """Per float32 weight, without its update: read forwards and backwards, gradient written; 16 bits: a copy made first."""
    copy = itemsize if itemsize < 4 else 0
    return copy + (2 * itemsize + 4 if train else itemsize)


def layers(model: Any, image_size: int) -> list[Layer]:
    """The layers of a network in the order in which they run, pooling included."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    called = []

    def note(run, args, kwargs, context):
        result = run(*args, **kwargs)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            module, inputs, outputs = context.module.clone(parent=None, name=None), args[0].shape[1:], result.shape[1:]
            if getattr(module, "pool", False):  # a layer of its own here
                side = lambda n: (n + 2 * module.padding - module.kernel_size) // module.stride + 1
                module, outputs = module.clone(pool=False), (*map(side, inputs[:2]), outputs[-1])
            called.append((context.module.path[0], module, inputs, outputs))
        return result

    def trace():
        images = jnp.zeros((1, image_size, image_size, 3))
        variables = model.init(jax.random.key(0), images)
        with nn.intercept_methods(note):
            model.apply(variables, images)
        return variables["params"]

    params, found = jax.eval_shape(trace), []
    for name, module, inputs, outputs in called:
        if "kernel" not in params.get(name, {}):
            continue
        if found and math.prod(found[-1].outputs) != math.prod(inputs):
            before = found[-1].outputs
            found.append(Layer("pool" + found[-1].name[-1], None, before, (*_pooled(before, inputs), before[-1])))
        found.append(Layer(name, module, inputs, outputs, params[name]["kernel"].shape, first=not found))
    return found


def flops_per_image(model: Any, image_size: int, *, train: bool = True) -> int:
    """Those of the convolutions and dense layers. (A training step: 4.12 GFLOP for AlexNet, 224x224, 11 outputs.)"""
    return sum(layer.flops(train=train) for layer in layers(model, image_size))


def step_bytes(
    found: list[Layer], *, batch_size: int, stored_size: int, itemsize: int, copies: int, train: bool = True
) -> int:
    """Bytes that a step on a global batch must move in all devices' memory together.

    Args:
      itemsize: of the values that layers exchange: 4, or 2 for bfloat16.
      copies: of the parameters: one on each device.
    """
    values = batch_size * itemsize * sum(layer.values(train=train) for layer in found)
    weights = sum(math.prod(layer.kernel) for layer in found if layer.kernel)
    per_weight = weight_bytes(itemsize, train=train) + (ADAM_BYTES if train else 0)
    return values + batch_size * stored_size**2 * 3 + copies * weights * per_weight


def bounds(flops: float, moved: float, matrix_rate: float, copy_rate: float) -> dict[str, float]:
    """Least milliseconds: of arithmetic, of memory, of both at once, and of one after the other."""
    arithmetic, memory = 1e3 * flops / matrix_rate, 1e3 * moved / copy_rate
    return {
        "arithmetic_ms": arithmetic,
        "memory_ms": memory,
        "overlap_ms": max(arithmetic, memory),
        "no_overlap_ms": arithmetic + memory,
    }


def measured_matrix_rate(dtype: Any, side: int = 0) -> dict[str, Any]:
    """Summary of the FLOP/s of a square matrix product, done by every device at once, of all devices together.

    Precision is JAX's default for the dtype, as in the network: on recent GPUs float32 products are TF32.
    """
    import jax
    import numpy as np

    from openset_jax.training import devices

    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    matrix = devices.replicate(np.random.default_rng(0).standard_normal((side, side), np.float32).astype(dtype))
    product = jax.jit(lambda a, b: a @ b)
    work = 2 * side**3 * jax.local_device_count()
    return common.summary([work / s for s in seconds(lambda: product(matrix, matrix))]) | {"side": side}


def measured_copy_rate(mebibytes: int = 0) -> dict[str, Any]:
    """Summary of the bytes read plus written per second by adding 1 to a large array in place, all devices together."""
    import jax
    import numpy as np

    from openset_jax.training import devices

    mebibytes = mebibytes or (256 if jax.default_backend() == "cpu" else 2048)
    held = [devices.replicate(np.zeros(mebibytes * 2**18, np.float32))]
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def step():
        held[0] = add(held[0])
        return held[0]

    moved = 2 * held[0].nbytes * jax.local_device_count()
    return common.summary([moved / s for s in seconds(step)]) | {"mebibytes": mebibytes}


def seconds(run: Callable[[], Any], *, groups: int = 7, group_seconds: float = 0.2) -> list[float]:
    """Seconds per call in each group of calls dispatched one after another, after warming up."""
    import jax

    def group(calls):
        start = time.perf_counter()
        for _ in range(calls):
            result = run()
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    group(1)
    calls = max(1, round(group_seconds / group(2)))
    return [group(calls) for _ in range(groups)]


def _pooled(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after pooling: those of the next layer's input, or, where that is flat, of equal sides."""
    if len(after) == 3:
        return after[:2]
    side = math.isqrt(math.prod(after) // before[-1])
    return side, side


if __name__ == "__main__":
    cli.run(main, define_flags)
