"""The measured rates of the devices, and the least time of a network's step on them.

    python -m benchmarks.roofline

Why: images per second do not tell how much faster a step could be. Two rates bound every step (Williams, Waterman and
Patterson 2009, "Roofline"): that of one large matrix product, and that of reading and writing memory. The step's
multiplications at the first rate, and the bytes that it must move at the second, give two bounds: both at once
(overlap), or one after the other. The bytes are those of a network whose layers read and write each operand once, and
whose other operations move none.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, outputs, tables, timing
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from flax import linen as nn
    from flax.typing import Dtype

    from openset_jax.model.network import Network

ADAM_BYTES = 28  # per float32 parameter: reads weight, gradient and two moments, writes weight and moments


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("matrix", 0, "Side of the matrices; 0 for 8192, or 2048 on a CPU.", lower_bound=0)
    flags.DEFINE_bool("rates", True, "--norates: only list the devices.")
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    file = outputs.json_file(flags.FLAGS.json)
    import jax

    from openset_jax.model import networks

    machine, rates = hardware.describe(devices=True), {}
    hardware.print_description(machine)
    found = {"machine": machine, "platform": jax.default_backend(), "count": jax.device_count()}
    outputs.write_json(file, found)  # the suite needs it, even if measuring the rates fails
    if not flags.FLAGS.rates:
        return
    for name, dtype in networks.DTYPES.items():
        rates[f"matrix_rate_{name}"] = measured_matrix_rate(dtype, flags.FLAGS.matrix)
    rates["copy_rate"] = measured_copy_rate()
    rows = [tables.row(name.replace("_", " "), timing.scaled(v, 1e-9)) for name, v in rates.items()]
    tables.print_table([["all devices, GFLOP/s and GB/s", "median", "min", "max"], *rows])
    outputs.write_json(file, rates | found)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with a kernel, or a pooling layer between two of them.

    Attributes:
      name: of the layer.
      module: the Flax module, unbound; None for pooling.
      inputs, outputs: shapes of one image's values, without the batch.
      kernel: shape of the weights; () for pooling.
      first: True for the first layer, whose input needs no gradient.
    """

    name: str
    module: nn.Module | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    first: bool = False

    def flops(self, *, train: bool = True) -> int:
        """Floating-point operations for one image; a multiply-add counts as 2.

        Each position of the output uses every weight once. The forward pass, the gradient of the kernel, and the
        gradient of the input have equal numbers of operations.

        Args:
          train: with the backward pass.
        """
        forward = 2 * math.prod(self.outputs[:-1]) * math.prod(self.kernel) if self.kernel else 0
        return forward * ((2 if self.first else 3) if train else 1)

    def values(self, *, train: bool = True) -> int:
        """Number of values that are read and written for one image.

        Forward: the input and the output. Backward, with a kernel: the output's gradient twice, the input, and the input's
        gradient. Backward, pooling: the input, and both gradients.
        """
        inside, outside = math.prod(self.inputs), math.prod(self.outputs)
        if not train:
            return inside + outside
        if self.kernel:
            return 3 * outside + (2 if self.first else 3) * inside
        return 2 * outside + 3 * inside

    def weight_bytes(self, itemsize: int, *, train: bool = True) -> int:
        """Bytes that are read and written for the kernel in a step; see the function `weight_bytes`."""
        return math.prod(self.kernel) * weight_bytes(itemsize, train=train) if self.kernel else 0


def weight_bytes(itemsize: int, *, train: bool = True) -> int:
    """Bytes for each float32 weight, without its update: two reads, a gradient written, and in bfloat16 a copy written."""
    copy = itemsize if itemsize < 4 else 0
    return copy + (2 * itemsize + 4 if train else itemsize)


def layers(model: Network, image_size: int) -> list[Layer]:
    """The layers of a network in the order in which they run, with pooling."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from openset_jax.model.layers import Convolution
    from openset_jax.platforms import chunks

    found = list[Layer]()

    def note_pooling(x):
        result = model.ops.max_pool(x)
        found.append(Layer("pool" + found[-1].name[-1], None, x.shape[1:], result.shape[1:]))
        return result

    def note_layer(run, args, kwargs, context):
        result, module = run(*args, **kwargs), context.module
        if context.method_name == "__call__" and isinstance(module, (Convolution, nn.Dense)):
            kernel = module.variables["params"]["kernel"].shape
            alone = module.clone(parent=None, name=None)
            shapes = args[0].shape[1:], result.shape[1:]
            found.append(Layer("/".join(module.path), alone, *shapes, kernel, first=not found))
        return result

    # pooling after the ReLU instead of in the convolution, so that it is a layer of its own
    changes = {"max_pool": note_pooling, "pool_first": False, "in_chunks": chunks.at_once}
    noted = model.clone(ops=dataclasses.replace(model.ops, **changes))
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    with nn.intercept_methods(note_layer):
        jax.eval_shape(noted.apply, variables, images)
    return found


def flops_per_image(model: Network, image_size: int, *, train: bool = True) -> int:
    """Operations of all convolutions and dense layers: 4.12 GFLOP for training AlexNet at 224x224 with 11 outputs."""
    return sum(layer.flops(train=train) for layer in layers(model, image_size))


def step_bytes(
    found: list[Layer], *, batch_size: int, stored_size: int, itemsize: int, copies: int, train: bool = True
) -> int:
    """Bytes that a step on a global batch must move, in the memory of all devices together.

    Args:
      itemsize: bytes of a value between layers: 4, or 2 for bfloat16.
      copies: number of copies of the parameters, one on each device.
    """
    values = batch_size * itemsize * sum(layer.values(train=train) for layer in found)
    weights = sum(math.prod(layer.kernel) for layer in found if layer.kernel)
    per_weight = weight_bytes(itemsize, train=train) + (ADAM_BYTES if train else 0)
    return values + batch_size * stored_size**2 * 3 + copies * weights * per_weight


def bounds(flops: float, moved: float, matrix_rate: float, copy_rate: float) -> dict[str, float]:
    """The least milliseconds of arithmetic, of memory, of both at once, and of one after the other."""
    arithmetic, memory = 1e3 * flops / matrix_rate, 1e3 * moved / copy_rate
    return {
        "arithmetic_ms": arithmetic,
        "memory_ms": memory,
        "overlap_ms": max(arithmetic, memory),
        "no_overlap_ms": arithmetic + memory,
    }


def measured_matrix_rate(dtype: Dtype, side: int = 0) -> dict[str, Any]:
    """Summary of the FLOP/s of all devices together, each of which computes the same square matrix product.

    The precision is JAX's default for the dtype, as in the network: on recent GPUs float32 products are TF32.

    Args:
      side: of the matrices; 0 for 8192, or 2048 on a CPU.
    """
    import jax
    import numpy as np

    from openset_jax.training import devices

    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    matrix = devices.replicate(np.random.default_rng(0).standard_normal((side, side), np.float32).astype(dtype))
    product = jax.jit(lambda a, b: a @ b)
    work = 2 * side**3 * jax.local_device_count()
    return timing.summary([work / s for s in seconds(lambda: product(matrix, matrix))]) | {"side": side}


def measured_copy_rate(mebibytes: int = 0) -> dict[str, Any]:
    """Summary of the bytes read plus written per second, of all devices together, when 1 is added to a large array in place.

    Args:
      mebibytes: size of the array on each device; 0 for 2048, or 256 on a CPU.
    """
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
    return timing.summary([moved / s for s in seconds(step)]) | {"mebibytes": mebibytes}


def seconds(run: Callable[[], Any], *, groups: int = 7, group_seconds: float = 0.2) -> list[float]:
    """Seconds per call in each group of calls, which are dispatched one after another; after warming up."""
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


if __name__ == "__main__":
    cli.run(main, define_flags)
