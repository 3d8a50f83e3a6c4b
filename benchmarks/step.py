"""The train step alone: images per second, beside what the device could do, and beside PyTorch. Needs no data.

    python -m benchmarks.step --config=configs/default.py --config.batch_size=256
    python -m benchmarks.step --config=configs/digits.py --peer --peer_python=ENV/bin/python

Why: whatever feeds it, training is no faster than its step, and the step no faster than the multiplications in it. The step
is built as `openset_jax.train` builds it and runs on random images that are on the devices already. The matrix rate is that
of one large product in the config's dtype on the same devices, so that the share compares like with like.

With --peer rounds alternate with a PyTorch process that does the same work (`benchmarks/peers/torch_step.py`) and is idle
otherwise; on a GPU both hold memory at once, and JAX then takes what it needs instead of most of it at its start.
"""

import dataclasses
import json
import math
import pathlib
import re
import time
from typing import Any

from absl import flags

from benchmarks import common
from benchmarks import peer as peers
from openset_jax import cli

ROUND_SECONDS, PROFILED_STEPS = 0.5, 5
SEARCH_RESERVE = 8.0  # seconds to measure the best batch size at the end of the search


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("num_classes", 10, "K: there are K outputs for known classes, and one for none.", lower_bound=2)
    flags.DEFINE_integer("rounds", 10, "Measured rounds; one more comes before.", lower_bound=1)
    flags.DEFINE_integer("steps", 0, "Steps of all rounds together; 0: rounds of half a second.", lower_bound=0)
    flags.DEFINE_list("batch_sizes", [], "Tries each of these, and measures the fastest instead of the config's.")
    flags.DEFINE_integer("matrix", 0, "Side of the matrices; 0 for 8192, or 2048 on a CPU.", lower_bound=0)
    flags.DEFINE_string("rates", "", "JSON file of benchmarks.roofline: takes the devices' rates from it, if it has them.")
    flags.DEFINE_bool("peer", False, "Measure PyTorch beside it.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one.")
    flags.DEFINE_bool("layers", False, "Time every layer alone, too.")
    flags.DEFINE_string("profile", "", "Folder for a jax.profiler trace of a few steps.")
    flags.DEFINE_float("seconds", 0, "Time limit: sizes and layers that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, config = flags.FLAGS, flags.FLAGS.config
    limit = common.Limit(args.seconds)
    peers.share_the_gpu(args.peer)
    import jax

    from openset_jax import config as configs
    from openset_jax.training import devices

    file = common.json_file(args.json)
    config = common.checked(config)
    machine = common.machine(devices=True)
    common.print_machine(machine)
    search = try_batch_sizes(config, args.batch_sizes, args.num_classes, limit)
    if search.rates:
        config.batch_size = search.best
    devices.check_batch_size("batch_size", config.batch_size)
    job = peers.network_job(config, args.num_classes + 1, "train") if args.peer else {}

    step = Step(config, args.num_classes, function=search.functions.get(config.batch_size))
    compilation = search.compilations.get(config.batch_size) or {"compile_s": step.compile(), "cold": step.cold}
    per_call = config.steps_per_call
    calls = math.ceil((args.steps / args.rounds if args.steps else ROUND_SECONDS / step.group(2)) / per_call)
    count = calls * per_call
    contenders = {common.OURS: lambda: config.batch_size / step.group(calls)}
    device_rates = known_rates(step.model, args.rates) or measured_rates(step.model, args.matrix)
    reduced = all_reduce_bytes(step.compiled_text()) if jax.device_count() > 1 else 0

    def result_of(rounds):
        step_ms = common.summary([1e3 * config.batch_size / rate for rate in rounds[common.OURS]])
        images_per_second = config.batch_size / (step_ms["median"] / 1e3)
        return {
            "images_per_second": images_per_second,
            "step_ms": step_ms,
            **compilation,
            **against_roofline(step.model, config, images_per_second, device_rates),
            "rates": {name: common.summary(values) for name, values in rounds.items()},
            "memory": common.peak_memory(),
            "all_reduce_bytes": reduced,
            "num_classes": args.num_classes,
            "batch_sizes": search.rates,
            "batch_compilations": search.compilations,
            "left_out": search.left_out,
            "config": configs.to_json(config),
            "machine": machine,
            "versions": machine["versions"],
        }

    if args.peer and limit:  # first without the peer, whose own compiler may take longer than there is time
        alone = result_of(common.alternate(min(args.rounds, 3), contenders))
        common.write_json(file, alone | {"left_out": alone["left_out"] | {common.PEER: "not done"}})
    with peers.network_peer(args.peer, args.peer_python, job) as peer:
        if peer:
            contenders[common.PEER] = lambda: peer.rate(steps=count)
        rounds = common.alternate(args.rounds, contenders, limit=limit)
    result = result_of(rounds)
    result["left_out"] = search.left_out | common.missing_rounds(args.rounds, rounds)
    print(f"batch of {config.batch_size}, {config.model.dtype}, {len(rounds[common.OURS])} rounds of {count} steps")
    report(result)
    if peer:
        result |= common.beside_peer(rounds) | {"peer": peer.versions}
        common.print_rates(result)
    common.write_json(file, result)
    if args.layers:
        result |= time_layers(step, config, result, limit)
    if args.profile:
        profile(step, args.profile)
    common.write_json(file, result)


class Step:
    """The train step of a config, its state, and one random batch, on the devices.

    Args:
      config: as `configs/default.py`; its data are not opened.
      num_classes: K.
      feed: how real images will reach it, a `feed.Feed`; None for those of `batch` alone.
      function: that of another `Step` with this config and feed, which is compiled already.

    Attributes:
      cold: False if `compile` read the program from JAX's compilation cache.
    """

    def __init__(self, config: Any, num_classes: int, feed: Any = None, function: Any = None):
        from openset_jax import build, programs
        from openset_jax.training import devices
        from openset_jax.training.feed import IMAGES_IN_BATCH

        self.model = build.make_model(config, num_classes)
        _, self.optimizer = build.make_optimizer(config)
        self.state = devices.replicate(random_state(self.model, self.optimizer, config.data.image_size))
        weights = build.make_weights(config, num_classes)
        self.function = function or programs.make_train_step(
            config, self.model, self.optimizer, feed or IMAGES_IN_BATCH, weights
        )
        self.cold = True
        self.steps_per_call = config.steps_per_call
        self.batch = devices.shard_steps([random_batch(config, num_classes)] * config.steps_per_call)

    def compile(self) -> float:
        """Runs the first call, and returns its seconds, almost all of them compilation; then one that does not count."""
        compilations = common.Compilations()
        seconds = self.group(1) * self.steps_per_call
        self.cold, self.seconds_saved = compilations.cold, compilations.seconds_saved
        self.group(1)
        return seconds

    def compiled_text(self) -> str:
        """The program that XLA made of the step."""
        run = self.function
        return run.func.compile(*run.args, self.state, self.batch).as_text()

    def group(self, calls: int) -> float:
        """Seconds per step of calls dispatched one after another, from an idle device to an idle device."""
        import jax

        jax.block_until_ready(self.state)
        start = time.perf_counter()
        for _ in range(calls):
            self.state, metrics = self.function(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - start) / (calls * self.steps_per_call)


def random_batch(config: Any, num_classes: int, seed: int = 0) -> dict[str, Any]:
    """A batch on the host, as `feed.Feed.read` gives them: random images, labels from 0 to K."""
    import numpy as np

    rng, size, side = np.random.default_rng(seed), config.batch_size, config.data.stored_size
    return {
        "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "label": rng.integers(0, num_classes + 1, size, np.int32),
        "position": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


def random_state(model: Any, optimizer: Any, image_size: int) -> Any:
    """A state before the first step on the host: as `state.create_state` makes it, but drawn by NumPy.

    Compiling the initialisation of the network takes seconds, which are no part of what is measured.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from openset_jax.training import state

    def create():
        variables = state.initial_variables(model, seed=np.uint32(0), image_size=image_size)
        trained, _ = model.split(variables["params"])
        return state.TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(trained))

    rng, shapes = np.random.default_rng(0), jax.eval_shape(create)

    def draw(path, leaf):
        if leaf.ndim < 2:
            return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)
        return rng.standard_normal(leaf.shape, np.float32) * np.float32((2 / math.prod(leaf.shape[:-1])) ** 0.5)

    drawn = {name: jax.tree.map_with_path(draw, getattr(shapes, name)) for name in ("params", "batch_stats")}
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes).replace(**drawn)


@dataclasses.dataclass
class Search:
    """What `try_batch_sizes` found, by batch size.

    Attributes:
      rates: images/s; None for a size that the device's memory does not hold.
      compilations: "compile_s" and "cold".
      functions: the compiled steps.
      left_out: why a size was not tried.
    """

    rates: dict[int, float | None] = dataclasses.field(default_factory=dict)
    compilations: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    functions: dict[int, Any] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> int:
        """The fastest size."""
        return max((size for size in self.rates if self.rates[size]), key=self.rates.get)


def try_batch_sizes(config: Any, sizes: list[str], num_classes: int, limit: common.Limit | None = None) -> Search:
    """Measures the step at each batch size, in this order, as long as there is time.

    Raises:
      UserError: a size is no number, or none fits.
    """
    import jax

    from openset_jax.errors import UserError
    from openset_jax.training import devices

    search, expected = Search(), 0.0
    for text in sizes:
        if not text.isdigit() or not int(text):
            raise UserError(f"--batch_sizes: {text!r} is not a number of images")
        config.batch_size = size = int(text)
        devices.check_batch_size("--batch_sizes", size)
        if limit and limit.left() < expected + SEARCH_RESERVE:
            left = max(limit.left(), 0)
            search.left_out[f"batch of {size:,}"] = f"compiling takes about {expected:.0f} s, and {left:.0f} s were left"
            continue
        try:
            step = Step(config, num_classes)
            compile_s = step.compile()
            expected = max(expected, compile_s + step.seconds_saved)
            calls = math.ceil(ROUND_SECONDS / step.group(2) / config.steps_per_call)
            search.rates[size] = size / sorted(step.group(calls) for _ in range(3))[1]
            search.compilations[size] = {"compile_s": compile_s, "cold": step.cold}
            search.functions[size] = step.function
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            search.rates[size] = None
        step = None  # its memory is for the next one
        print(f"batch of {size}: " + (f"{search.rates[size]:,.1f} images/s" if search.rates[size] else "does not fit"))
    if search.rates and not any(search.rates.values()):
        raise UserError(f"--batch_sizes: not even {min(search.rates)} images fit the device's memory")
    return search


def all_reduce_bytes(program: str) -> int:
    """Bytes that a device gives to the all-reduces of one step, read from XLA's text of the compiled program."""
    total = 0
    for line in program.splitlines():
        shapes, is_one, _ = line.partition(" all-reduce(")
        if not is_one:
            shapes, is_one, _ = line.partition(" all-reduce-start(")
        if is_one:
            for bits, dims in re.findall(r"\b(?:f|bf|s|u)(\d+)\[([\d,]*)\]", shapes.partition(" = ")[2]):
                total += int(bits) // 8 * math.prod(int(n) for n in dims.split(",") if n)
    return total


def known_rates(model: Any, path: str) -> dict[str, Any]:
    """The same as `measured_rates` from a file of `benchmarks.roofline`, {} if they are not in it."""
    import jax.numpy as jnp

    try:
        found = json.loads(pathlib.Path(path).read_text()) if path else {}
        return {"matrix_rate": found[f"matrix_rate_{jnp.dtype(model.dtype).name}"], "copy_rate": found["copy_rate"]}
    except (OSError, ValueError, KeyError):
        return {}


def measured_rates(model: Any, side: int = 0) -> dict[str, Any]:
    """The "matrix_rate" in the model's dtype and the "copy_rate" of all devices; see `benchmarks.roofline`."""
    import jax.numpy as jnp

    from benchmarks import roofline

    return {
        "matrix_rate": roofline.measured_matrix_rate(jnp.dtype(model.dtype), side),
        "copy_rate": roofline.measured_copy_rate(),
    }


def against_roofline(model: Any, config: Any, images_per_second: float, rates: dict[str, Any]) -> dict[str, Any]:
    """What the devices can do, and what share of it the step reaches; see `benchmarks.roofline`."""
    import jax
    import jax.numpy as jnp

    from benchmarks import roofline

    batch_size, matrix_rate = config.batch_size, rates["matrix_rate"]["median"]
    layers = roofline.layers(model, config.data.image_size)
    flops = sum(layer.flops() for layer in layers)
    moved = roofline.step_bytes(
        layers,
        batch_size=batch_size,
        stored_size=config.data.stored_size,
        itemsize=jnp.dtype(model.dtype).itemsize,
        copies=jax.local_device_count(),
    )
    bounds = roofline.bounds(batch_size * flops, moved, matrix_rate, rates["copy_rate"]["median"])
    step_ms = 1e3 * batch_size / images_per_second
    return {
        "flops_per_image": flops,
        "bytes_per_step": moved,
        **rates,
        "share_of_matrix_rate": images_per_second * flops / matrix_rate,
        "roofline": bounds
        | {
            "share_with_overlap": bounds["overlap_ms"] / step_ms,
            "share_without_overlap": bounds["no_overlap_ms"] / step_ms,
        },
    }


def report(result: dict[str, Any]) -> None:
    """Prints the step, the devices' rates, and the shares."""
    rows = [
        common.row("step, ms", result["step_ms"], 2),
        common.row("matrix rate of all devices, TFLOP/s", common.scaled(result["matrix_rate"], 1e-12), 3),
        common.row("copy rate of all devices, GB/s", common.scaled(result["copy_rate"], 1e-9)),
    ]
    common.print_table([["", "median", "min", "max"], *rows])
    rate, flops, bound = result["images_per_second"], result["flops_per_image"], result["roofline"]
    print(f"{rate:,.1f} images/s x {flops / 1e9:.3f} GFLOP = {result['share_of_matrix_rate']:.1%} of the matrix rate")
    print(
        f"roofline: arithmetic {bound['arithmetic_ms']:.2f} ms, memory {bound['memory_ms']:.2f} ms "
        f"({result['bytes_per_step'] / 1e9:.2f} GB); the step reaches {bound['share_with_overlap']:.1%} of it with overlap, "
        f"{bound['share_without_overlap']:.1%} without"
    )
    memory = ", ".join(f"{k.replace('_', ' ')} {v / 2**30:.2f} GiB" for k, v in result["memory"].items())
    print(f"first step, with compilation: {common.first_step_text(result)}; {memory.replace(' bytes', '')}")


def time_layers(step: Step, config: Any, result: dict[str, Any], limit: common.Limit) -> dict[str, Any]:
    """The table of `benchmarks.layers`, for one device's share of the batch."""
    import jax

    from benchmarks import layers

    count = jax.local_device_count()
    rates = {"matrix": result["matrix_rate"]["median"] / count, "copy": result["copy_rate"]["median"] / count}
    size, batch_size = config.data.image_size, config.batch_size // jax.device_count()
    timed = layers.time_layers(step.model, step.optimizer, image_size=size, batch_size=batch_size, rates=rates, limit=limit)
    layers.report(timed, result["step_ms"]["median"])
    left_out = result["left_out"] | timed.left_out
    return {"layers": timed.layers, "layer_compilations": timed.compilations, "left_out": left_out}


def profile(step: Step, folder: str) -> None:
    """Writes a trace of a few steps, and says how to look at it."""
    import jax

    with jax.profiler.trace(folder, create_perfetto_trace=True):
        step.group(PROFILED_STEPS)
    print(
        f"profile of {PROFILED_STEPS} steps: in {folder}; open perfetto_trace.json.gz (under plugins/profile/) at "
        f"https://ui.perfetto.dev, or `pip install xprof` and `xprof --logdir={folder}`"
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
