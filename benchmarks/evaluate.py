"""Evaluation without data: images per second of the forward pass, and milliseconds of the metrics.

    python -m benchmarks.evaluate --config=configs/folder.py
    python -m benchmarks.evaluate --config=configs/digits.py --peer --peer_python=ENV/bin/python

Why: a run evaluates every few hundred steps, and scoring millions of images is nothing but evaluation. The forward pass is
that of `openset_jax.evaluate` at eval.batch_size, on random images that are already on the devices. With --peer its rounds
alternate with PyTorch's. The metrics are those of `metrics.json`, of random scores of K + 1 outputs.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from benchmarks import peer as peers
from openset_jax import cli

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.spec import RunSpec

ROUND_SECONDS = 0.5


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_integer("num_classes", 10, "K, the number of known classes.", lower_bound=2)
    flags.DEFINE_integer("rounds", 10, "Measured rounds; one more comes before.", lower_bound=1)
    flags.DEFINE_integer("rows", 10_000, "Images whose metrics are computed; 0: none.", lower_bound=0)
    flags.DEFINE_bool("peer", False, "Measure PyTorch, too.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one.")
    flags.DEFINE_float("seconds", 0, "Time limit: our own rate is written before the peer starts; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, limit = flags.FLAGS, timing.Limit(flags.FLAGS.seconds)
    peers.share_the_gpu(args.peer)
    from benchmarks.compilations import Compilations
    from openset_jax.training import devices

    file, spec = outputs.json_file(args.json), inputs.resolve(args.config)
    size = spec.evaluation.batch_size
    devices.check_batch_size("eval.batch_size", size)
    machine = hardware.describe(devices=True)
    hardware.print_description(machine)
    job = peers.network_job(spec, args.num_classes + 1, "eval") if args.peer else {}
    forward, compilations = Forward(spec, args.num_classes), Compilations()
    compilation = {"compile_s": forward.seconds_per_batch(1), "cold": compilations.cold}
    count = math.ceil(ROUND_SECONDS / forward.seconds_per_batch(2))
    contenders = {timing.OURS: lambda: size / forward.seconds_per_batch(count)}

    def result_of(rounds):
        return {
            "images_per_second": timing.summary(rounds[timing.OURS])["median"],
            **compilation,
            "rates": {name: timing.summary(values) for name, values in rounds.items()},
            "memory": hardware.peak_memory(),
            "config": spec.record,
            "machine": machine,
        }

    if args.peer and limit:  # first without the peer, whose compilation may take longer than there is time
        alone = timing.alternate(min(args.rounds, 3), contenders)
        outputs.write_json(file, result_of(alone) | {"left_out": {timing.PEER: "not done"}})
    with peers.network_peer(args.peer, args.peer_python, job) as peer:
        if peer:
            contenders[timing.PEER] = lambda: peer.rate(steps=count)
        rounds = timing.alternate(args.rounds, contenders, limit=limit)
    result = result_of(rounds) | {"left_out": timing.missing_rounds(args.rounds, rounds)}
    if peer:
        result |= timing.beside_peer(rounds) | {"peer": peer.versions}
    dtype = spec.program.forward.network.dtype
    print(f"forward pass, batch of {size}, {dtype}, {len(rounds[timing.OURS])} rounds of {count} steps")
    print(f"first batch, with compilation: {tables.first_step_text(result)}")
    tables.print_rates(result)
    outputs.write_json(file, result)
    if args.rows:
        ms, name = metrics_ms(args.rows, args.num_classes, args.rounds), f"{args.rows:,} x {args.num_classes + 1} scores"
        result["metrics"] = {"rows": args.rows, "outputs": args.num_classes + 1, "ms": ms}
        tables.print_table([["ms", "median", "min", "max"], tables.row(f"metrics of {name}", ms)])
    outputs.write_json(file, result)


class Forward:
    """The forward pass of a network, its parameters, and one random batch, on the devices.

    Args:
      spec: its images are not opened.
      num_classes: K.
    """

    def __init__(self, spec: RunSpec, num_classes: int):
        import numpy as np

        from benchmarks.bare_step import NO_IMAGES, random_state
        from openset_jax.training import devices
        from openset_jax.training.eval_program import make_eval_steps
        from openset_jax.training.run_cache import RunCache

        model, _, optimizer = RunCache().network(spec.program, num_classes)
        self.variables = devices.replicate(random_state(model, optimizer, spec.inputs.shape).variables)
        self.function = make_eval_steps(spec.program.forward, model, NO_IMAGES)["logits"]
        rng, size, side = np.random.default_rng(0), spec.evaluation.batch_size, spec.images.stored_size
        self.batch = devices.shard(
            {
                "example": rng.integers(0, 256, (size, side, side, 3), np.uint8),
                "position": np.arange(size, dtype=np.int32),
                "mask": np.ones(size, bool),
            }
        )

    def seconds_per_batch(self, count: int) -> float:
        """Dispatches batches one after another, from idle devices until the devices are idle again; the first compiles."""
        import jax

        start = time.perf_counter()
        for _ in range(count):
            logits = self.function(self.variables, self.batch)
        jax.block_until_ready(logits)
        return (time.perf_counter() - start) / count


def metrics_ms(rows: int, num_classes: int, rounds: int) -> dict[str, Any]:
    """Summary of the milliseconds that the metrics of random scores take, with their intervals.

    Args:
      rows: number of images.
    """
    import numpy as np

    from openset_jax.openset.decision import classifier
    from openset_jax.openset.losses import objectives
    from openset_jax.openset.metrics import evaluation

    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, num_classes + 1), np.float32)
    label = rng.integers(-2, num_classes, rows)
    group = np.where(label == -1, "seen", np.where(label == -2, "unseen", "known")).astype(object)
    classes, kinds = tuple(map(str, range(num_classes))), {"seen_negatives": ["seen"], "unseen_unknowns": ["unseen"]}

    def milliseconds():
        start = time.perf_counter()
        scored = classifier.interpret(objectives.get("background"), logits, label, group)
        evaluation.evaluate_split(scored, classes=classes, kinds=kinds)
        return 1e3 * (time.perf_counter() - start)

    return timing.summary(timing.alternate(rounds, {"metrics": milliseconds})["metrics"])


if __name__ == "__main__":
    cli.run(main, define_flags)
