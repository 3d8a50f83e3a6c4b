"""Images per second of the training step alone, beside the limits of the device, and beside PyTorch. Needs no data.

    python -m benchmarks.step --config=configs/folder.py --config.batch_size=256
    python -m benchmarks.step --config=configs/digits.py --peer --peer_python=ENV/bin/python

Why: training is never faster than its step, whatever the input, and the step is never faster than its multiplications. The
step is built as `openset_jax.train` builds it, and runs on random images that are already on the devices. The matrix rate is
that of one large product in the config's dtype on the same devices.

With --peer the rounds alternate with a PyTorch process that does the same work (`benchmarks/peers/torch_step.py`) and
is idle otherwise. On a GPU both processes hold memory at once; JAX then allocates memory as it needs it, instead of
most of it at its start.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from benchmarks import peer as peers
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from benchmarks.bare_step import Step
    from openset_jax.model.network import Network
    from openset_jax.spec import RunSpec

PROFILED_STEPS = 5


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("num_classes", 10, "K, the number of known classes.", lower_bound=2)
    flags.DEFINE_integer("rounds", 10, "Measured rounds; one more comes before.", lower_bound=1)
    flags.DEFINE_integer("steps", 0, "Steps of all rounds together; 0: rounds of half a second.", lower_bound=0)
    flags.DEFINE_list("batch_sizes", [], "Measure each of these, and then the fastest instead of the config's.")
    flags.DEFINE_integer("matrix", 0, "Side of the matrices; 0 for 8192, or 2048 on a CPU.", lower_bound=0)
    flags.DEFINE_string("rates", "", "JSON file of benchmarks.roofline, to take the devices' rates from, if it has them.")
    flags.DEFINE_bool("peer", False, "Measure PyTorch, too.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one.")
    flags.DEFINE_bool("layers", False, "Time every layer alone, too.")
    flags.DEFINE_string("profile", "", "Folder for a jax.profiler trace of a few steps.")
    flags.DEFINE_float("seconds", 0, "Time limit: sizes and layers that do not fit are left out; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, limit = flags.FLAGS, timing.Limit(flags.FLAGS.seconds)
    peers.share_the_gpu(args.peer)
    import jax

    from benchmarks import batch_size
    from benchmarks.bare_step import Step
    from openset_jax.training import devices

    file = outputs.json_file(args.json)
    sizes = batch_size.parse_sizes(args.batch_sizes)
    specs = [inputs.resolve(args.config, batch_size=size) for size in sizes]
    spec = inputs.resolve(args.config)
    machine = hardware.describe(devices=True)
    hardware.print_description(machine)
    search = batch_size.search(specs, args.num_classes, limit)
    if search.rates:
        spec = specs[sizes.index(search.best)]
    size, per_call = spec.program.batch_size, spec.program.steps_per_call
    devices.check_batch_size("batch_size", size)
    job = peers.network_job(spec, args.num_classes + 1, "train") if args.peer else {}

    step = Step(spec, args.num_classes, function=search.functions.get(size))
    compilation = search.compilations.get(size) or {"compile_s": step.compile(), "cold": step.cold}
    per_round = args.steps / args.rounds if args.steps else batch_size.ROUND_SECONDS / step.seconds_per_step(2)
    calls = math.ceil(per_round / per_call)
    contenders = {timing.OURS: lambda: size / step.seconds_per_step(calls)}
    device_rates = known_rates(step.model, args.rates) or measured_rates(step.model, args.matrix)
    reduced = all_reduce_bytes(step.program().as_text() or "") if jax.device_count() > 1 else 0

    def result_of(rounds):
        step_ms = timing.summary([1e3 * size / rate for rate in rounds[timing.OURS]])
        images_per_second = size / (step_ms["median"] / 1e3)
        return {
            "images_per_second": images_per_second,
            "step_ms": step_ms,
            **compilation,
            **against_roofline(step.model, spec, images_per_second, device_rates),
            "rates": {name: timing.summary(values) for name, values in rounds.items()},
            "memory": hardware.peak_memory(),
            "all_reduce_bytes": reduced,
            "num_classes": args.num_classes,
            "batch_sizes": search.rates,
            "batch_compilations": search.compilations,
            "left_out": search.left_out,
            "config": spec.record,
            "machine": machine,
            "versions": machine["versions"],
        }

    if args.peer and limit:  # first without the peer, whose compilation may take longer than there is time
        alone = result_of(timing.alternate(min(args.rounds, 3), contenders))
        outputs.write_json(file, alone | {"left_out": alone["left_out"] | {timing.PEER: "not done"}})
    with peers.network_peer(args.peer, args.peer_python, job) as peer:
        if peer:
            contenders[timing.PEER] = lambda: peer.rate(steps=calls * per_call)
        rounds = timing.alternate(args.rounds, contenders, limit=limit)
    result = result_of(rounds)
    result["left_out"] = search.left_out | timing.missing_rounds(args.rounds, rounds)
    dtype = spec.program.forward.network.dtype
    print(f"batch of {size}, {dtype}, {len(rounds[timing.OURS])} rounds of {calls * per_call} steps")
    report(result)
    if peer:
        result |= timing.beside_peer(rounds) | {"peer": peer.versions}
        tables.print_rates(result)
    outputs.write_json(file, result)
    if args.layers:
        result |= time_layers(step, spec, result, limit)
    if args.profile:
        profile(step, args.profile)
    outputs.write_json(file, result)


def all_reduce_bytes(program: str) -> int:
    """Bytes that a device contributes to the all-reduces of one step.

    Args:
      program: XLA's text of the compiled program.
    """
    total = 0
    for line in program.splitlines():
        shapes, found, _ = line.partition(" all-reduce(")
        if not found:
            shapes, found, _ = line.partition(" all-reduce-start(")
        if found:
            for bits, dims in re.findall(r"\b(?:f|bf|s|u)(\d+)\[([\d,]*)\]", shapes.partition(" = ")[2]):
                total += int(bits) // 8 * math.prod(int(n) for n in dims.split(",") if n)
    return total


def known_rates(model: Network, path: str) -> dict[str, Any]:
    """The rates of `measured_rates` from a file of `benchmarks.roofline`; {} if the file does not have them."""
    import jax.numpy as jnp

    try:
        found = json.loads(pathlib.Path(path).read_text()) if path else {}
        return {"matrix_rate": found[f"matrix_rate_{jnp.dtype(model.dtype).name}"], "copy_rate": found["copy_rate"]}
    except (OSError, ValueError, KeyError):
        return {}


def measured_rates(model: Network, side: int = 0) -> dict[str, Any]:
    """The "matrix_rate" in the model's dtype and the "copy_rate" of all devices; see `benchmarks.roofline`."""
    import jax.numpy as jnp

    from benchmarks import roofline

    return {
        "matrix_rate": roofline.measured_matrix_rate(jnp.dtype(model.dtype), side),
        "copy_rate": roofline.measured_copy_rate(),
    }


def against_roofline(model: Network, spec: RunSpec, images_per_second: float, rates: dict[str, Any]) -> dict[str, Any]:
    """The bounds of the step, and the shares of them that it reaches; see `benchmarks.roofline`."""
    import jax
    import jax.numpy as jnp

    from benchmarks import roofline

    batch_size, matrix_rate = spec.program.batch_size, rates["matrix_rate"]["median"]
    layers = roofline.layers(model, spec.images.image_size)
    flops = sum(layer.flops() for layer in layers)
    moved = roofline.step_bytes(
        layers,
        batch_size=batch_size,
        stored_size=spec.images.stored_size,
        itemsize=jnp.dtype(model.dtype).itemsize,
        copies=jax.local_device_count(),
    )
    bounds = roofline.bounds(batch_size * flops, moved, matrix_rate, rates["copy_rate"]["median"])
    step_ms = 1e3 * batch_size / images_per_second
    shares = {
        "share_with_overlap": bounds["overlap_ms"] / step_ms,
        "share_without_overlap": bounds["no_overlap_ms"] / step_ms,
    }
    return {
        "flops_per_image": flops,
        "bytes_per_step": moved,
        **rates,
        "share_of_matrix_rate": images_per_second * flops / matrix_rate,
        "roofline": bounds | shares,
    }


def report(result: dict[str, Any]) -> None:
    """Prints the step, the devices' rates, and the shares of the bounds."""
    rows = [
        tables.row("step, ms", result["step_ms"], 2),
        tables.row("matrix rate of all devices, TFLOP/s", timing.scaled(result["matrix_rate"], 1e-12), 3),
        tables.row("copy rate of all devices, GB/s", timing.scaled(result["copy_rate"], 1e-9)),
    ]
    tables.print_table([["", "median", "min", "max"], *rows])
    rate, flops, bound = result["images_per_second"], result["flops_per_image"], result["roofline"]
    print(f"{rate:,.1f} images/s x {flops / 1e9:.3f} GFLOP = {result['share_of_matrix_rate']:.1%} of the matrix rate")
    print(
        f"roofline: arithmetic {bound['arithmetic_ms']:.2f} ms, memory {bound['memory_ms']:.2f} ms "
        f"({result['bytes_per_step'] / 1e9:.2f} GB); the step reaches {bound['share_with_overlap']:.1%} of it with overlap, "
        f"{bound['share_without_overlap']:.1%} without"
    )
    memory = ", ".join(f"{k.replace('_', ' ')} {v / 2**30:.2f} GiB" for k, v in result["memory"].items())
    print(f"first step, with compilation: {tables.first_step_text(result)}; {memory.replace(' bytes', '')}")


def time_layers(step: Step, spec: RunSpec, result: dict[str, Any], limit: timing.Limit) -> dict[str, Any]:
    """Prints and returns the times of `benchmarks.layers`, for one device's share of the batch."""
    import jax

    from benchmarks import layers

    count = jax.local_device_count()
    rates = {"matrix": result["matrix_rate"]["median"] / count, "copy": result["copy_rate"]["median"] / count}
    size, batch_size = spec.images.image_size, spec.program.batch_size // jax.device_count()
    timed = layers.time_layers(step.model, step.optimizer, image_size=size, batch_size=batch_size, rates=rates, limit=limit)
    layers.report(timed, result["step_ms"]["median"])
    left_out = result["left_out"] | timed.left_out
    return {"layers": timed.layers, "layer_compilations": timed.compilations, "left_out": left_out}


def profile(step: Step, folder: str) -> None:
    """Writes a trace of a few steps, and prints how to open it."""
    import jax

    with jax.profiler.trace(folder, create_perfetto_trace=True):
        step.seconds_per_step(PROFILED_STEPS)
    print(
        f"profile of {PROFILED_STEPS} steps: in {folder}; open perfetto_trace.json.gz (under plugins/profile/) at "
        f"https://ui.perfetto.dev, or `pip install xprof` and `xprof --logdir={folder}`"
    )


if __name__ == "__main__":
    cli.run(main, define_flags)
