"""The train step alone: images per second, and what share of the device's matrix rate that is. Needs no data.

    python -m benchmarks.step --config=configs/default.py --config.batch_size=256

Why: whatever feeds it, training is no faster than its step, and the step no faster than the multiplications in it. The step
is built as `openset_jax.train` builds it and runs on random images that are on the devices already. The matrix rate is that
of one large product in the config's dtype on the same devices, so that the share compares like with like.
"""

import math
import time
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli

GROUPS, GROUP_SECONDS = 10, 0.5


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("num_classes", 10, "K: there are K outputs for known classes, and one for none.", lower_bound=2)
    flags.DEFINE_integer("steps", 0, "Steps to measure; 0: groups of half a second.", lower_bound=0)
    flags.DEFINE_integer("matrix", 0, "Side of the matrices; 0 for 8192, or 2048 on a CPU.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args = flags.FLAGS
    from openset_jax import config as configs
    from openset_jax.model import alexnet
    from openset_jax.training import devices

    file = common.json_file(args.json)
    configs.check(args.config)
    devices.check_batch_size("batch_size", args.config.batch_size)
    machine = common.machine()
    common.print_machine(machine)

    step = Step(args.config, args.num_classes)
    compile_s = step.compile()
    group = max(args.steps // GROUPS, 1) if args.steps else math.ceil(GROUP_SECONDS / step.group(2))
    groups = math.ceil(args.steps / group) if args.steps else GROUPS
    times = [step.group(group) for _ in range(groups)]
    matrix_rate = measured_matrix_rate(alexnet.DTYPES[args.config.model.dtype], args.matrix)

    step_ms = common.summary([1e3 * t for t in times])
    images_per_second = args.config.batch_size / (step_ms["median"] / 1e3)
    flops = flops_per_image(step.model, args.config.data.image_size)
    result = {
        "images_per_second": images_per_second,
        "step_ms": step_ms,
        "compile_s": compile_s,
        "flops_per_image": flops,
        "matrix_rate": matrix_rate,
        "share_of_matrix_rate": images_per_second * flops / matrix_rate["median"],
        "num_classes": args.num_classes,
        "config": configs.to_json(args.config),
        "machine": machine,
        "versions": machine["versions"],
    }
    print(f"batch of {args.config.batch_size}, {args.config.model.dtype}, {groups} groups of {group} steps")
    teraflops = {k: matrix_rate[k] / 1e12 for k in ("median", "min", "max")}
    common.print_table(
        [
            ["", "median", "min", "max"],
            common.row("step, ms", step_ms, 2),
            common.row("matrix rate of all devices, TFLOP/s", teraflops, 3),
        ]
    )
    share = result["share_of_matrix_rate"]
    print(f"{images_per_second:,.1f} images/s x {flops / 1e9:.3f} GFLOP = {share:.1%} of the matrix rate")
    print(f"first step, with compilation: {compile_s:.1f} s")
    common.write_json(file, result)


class Step:
    """The train step of a config, its state, and one random batch, on the devices.

    Args:
      config: as `configs/default.py`; its data are not opened.
      num_classes: K.
      feed: how real images will reach it, a `feed.Feed`; None for those of `batch` alone.
    """

    def __init__(self, config: Any, num_classes: int, feed: Any = None):
        import numpy as np

        from openset_jax import config as configs
        from openset_jax.training import devices, state
        from openset_jax.training.feed import IMAGES_IN_BATCH

        self.model = configs.make_model(config, num_classes)
        _, optimizer = configs.make_optimizer(config)
        host_state = state.create_state(self.model, optimizer, seed=config.seed, image_size=config.data.image_size)
        self.state = devices.replicate(host_state)
        self.function = configs.make_train_step(config, self.model, optimizer, feed or IMAGES_IN_BATCH)
        self.steps_per_call = config.steps_per_call
        rng, size, side = np.random.default_rng(0), config.batch_size, config.data.stored_size
        batch = {
            "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
            "label": rng.integers(0, num_classes + 1, size, np.int32),
            "position": np.arange(size, dtype=np.int32),
            "mask": np.ones(size, bool),
        }
        self.batch = devices.shard_steps([batch] * config.steps_per_call)

    def compile(self) -> float:
        """Runs the first step, and returns its seconds, almost all of them compilation; then one that does not count."""
        seconds = self.group(1)
        self.group(1)
        return seconds

    def group(self, calls: int) -> float:
        """Seconds per step of calls dispatched one after another, from an idle device to an idle device."""
        import jax

        jax.block_until_ready(self.state)
        start = time.perf_counter()
        for _ in range(calls):
            self.state, metrics = self.function(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - start) / (calls * self.steps_per_call)


def flops_per_image(model: Any, image_size: int) -> int:
    """Floating-point operations of a training step for one image: those of the convolutions and dense layers.

    A multiply-add is 2. Forwards, the gradient of the kernel, and the gradient of the input cost the same each, except that
    nobody needs the gradient of the image: 3 x all layers - 1 x the first. (4.12 GFLOP for AlexNet, 224x224, 11 outputs.)
    """
    import jax
    import jax.numpy as jnp

    def trace():
        images = jnp.zeros((1, image_size, image_size, 3))
        variables = model.init(jax.random.key(0), images)
        _, kept = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
        return variables["params"], kept["intermediates"]

    params, outputs = jax.eval_shape(trace)
    forward = {
        name: 2 * math.prod(outputs[name]["__call__"][0].shape[1:-1]) * math.prod(layer["kernel"].shape)
        for name, layer in params.items()
        if "kernel" in layer
    }  # each position of the output uses every weight of the kernel once
    return 3 * sum(forward.values()) - forward["conv1"]


def measured_matrix_rate(dtype: Any, side: int = 0, groups: int = 7) -> dict[str, Any]:
    """Summary of the FLOP/s of a square matrix product, done by every device at once, of all devices together.

    Precision is JAX's default for the dtype, as in the network: on recent GPUs float32 products are TF32.
    """
    import jax
    import numpy as np

    from openset_jax.training import devices

    side = side or (2048 if jax.default_backend() == "cpu" else 8192)
    matrix = devices.replicate(np.random.default_rng(0).standard_normal((side, side), np.float32).astype(dtype))
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(matrix, matrix))
    flops = 2 * side**3 * jax.local_device_count()

    def seconds(times):
        start = time.perf_counter()
        for _ in range(times):
            result = product(matrix, matrix)
        result.block_until_ready()
        return (time.perf_counter() - start) / times

    times = max(1, round(0.2 / seconds(2)))
    return common.summary([flops / seconds(times) for _ in range(groups)]) | {"side": side}


if __name__ == "__main__":
    cli.run(main, define_flags)
