"""Evaluation without data: images per second of the forward pass, and milliseconds of the metrics.

    python -m benchmarks.evaluate --config=configs/default.py
    python -m benchmarks.evaluate --config=configs/digits.py --peer --peer_python=ENV/bin/python

Why: a run evaluates every few hundred steps, and somebody who scores millions of images does nothing else. The forward pass
is that of `openset_jax.evaluate` on random images that are on the devices already, at eval.batch_size; with --peer beside
PyTorch's in rounds that alternate. The metrics are those of `metrics.json`, on random scores of K + 1 outputs.
"""

import math
import time
from typing import Any

from absl import flags

from benchmarks import common
from benchmarks import peer as peers
from openset_jax import cli

ROUND_SECONDS = 0.5


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_integer("num_classes", 10, "K: there are K outputs for known classes, and one for none.", lower_bound=2)
    flags.DEFINE_integer("rounds", 10, "Measured rounds; one more comes before.", lower_bound=1)
    flags.DEFINE_integer("rows", 10_000, "Scored images of which the metrics are computed; 0: none.", lower_bound=0)
    flags.DEFINE_bool("peer", False, "Measure PyTorch beside it.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one.")
    flags.DEFINE_float("seconds", 0, "Time limit: our own rate is written before the peer starts; 0: none.", lower_bound=0)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, config = flags.FLAGS, flags.FLAGS.config
    limit = common.Limit(args.seconds)
    peers.share_the_gpu(args.peer)
    from openset_jax import config as configs
    from openset_jax.training import devices

    file = common.json_file(args.json)
    config = common.checked(config)
    devices.check_batch_size("eval.batch_size", config.eval.batch_size)
    machine = common.machine(devices=True)
    common.print_machine(machine)
    job = peers.network_job(config, args.num_classes + 1, "eval") if args.peer else {}
    forward, size, compilations = Forward(config, args.num_classes), config.eval.batch_size, common.Compilations()
    compilation = {"compile_s": forward.group(1), "cold": compilations.cold}
    count = math.ceil(ROUND_SECONDS / forward.group(2))
    contenders = {common.OURS: lambda: size / forward.group(count)}

    def result_of(rounds):
        return {
            "images_per_second": common.summary(rounds[common.OURS])["median"],
            **compilation,
            "rates": {name: common.summary(values) for name, values in rounds.items()},
            "memory": common.peak_memory(),
            "config": configs.to_json(config),
            "machine": machine,
        }

    if args.peer and limit:  # first without the peer, whose own compiler may take longer than there is time
        alone = common.alternate(min(args.rounds, 3), contenders)
        common.write_json(file, result_of(alone) | {"left_out": {common.PEER: "not done"}})
    with peers.network_peer(args.peer, args.peer_python, job) as peer:
        if peer:
            contenders[common.PEER] = lambda: peer.rate(steps=count)
        rounds = common.alternate(args.rounds, contenders, limit=limit)
    result = result_of(rounds) | {"left_out": common.missing_rounds(args.rounds, rounds)}
    if peer:
        result |= common.beside_peer(rounds) | {"peer": peer.versions}
    print(f"forward pass, batch of {size}, {config.model.dtype}, {len(rounds[common.OURS])} rounds of {count} steps")
    print(f"first batch, with compilation: {common.first_step_text(result)}")
    common.print_rates(result)
    common.write_json(file, result)
    if args.rows:
        ms, name = metrics_ms(args.rows, args.num_classes, args.rounds), f"{args.rows:,} x {args.num_classes + 1} scores"
        result["metrics"] = {"rows": args.rows, "outputs": args.num_classes + 1, "ms": ms}
        common.print_table([["ms", "median", "min", "max"], common.row(f"metrics of {name}", ms)])
    common.write_json(file, result)


class Forward:
    """The forward pass of a config's network, its parameters, and one random batch, on the devices."""

    def __init__(self, config: Any, num_classes: int):
        import numpy as np

        from benchmarks.step import random_state
        from openset_jax import build, programs
        from openset_jax.training import devices
        from openset_jax.training.feed import IMAGES_IN_BATCH

        data = config.data
        model = build.make_model(config, num_classes)
        _, optimizer = build.make_optimizer(config)
        self.variables = devices.replicate(random_state(model, optimizer, data.image_size).variables)
        self.function = programs.make_eval_steps(config, model, IMAGES_IN_BATCH)["logits"]
        rng, size, side = np.random.default_rng(0), config.eval.batch_size, data.stored_size
        self.batch = devices.shard(
            {
                "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
                "position": np.arange(size, dtype=np.int32),
                "mask": np.ones(size, bool),
            }
        )

    def group(self, steps: int) -> float:
        """Seconds per batch, from an idle device to an idle device; the first call compiles."""
        import jax

        start = time.perf_counter()
        for _ in range(steps):
            logits = self.function(self.variables, self.batch)
        jax.block_until_ready(logits)
        return (time.perf_counter() - start) / steps


def metrics_ms(rows: int, num_classes: int, rounds: int) -> dict[str, Any]:
    """Summary of the milliseconds that the metrics of so many random scores take, with their intervals."""
    import numpy as np

    from openset_jax.openset.decision import classifier
    from openset_jax.openset.metrics import evaluation

    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, num_classes + 1), np.float32)
    label = rng.integers(-2, num_classes, rows)
    group = np.where(label == -1, "seen", np.where(label == -2, "unseen", "known")).astype(object)
    classes, kinds = tuple(map(str, range(num_classes))), {"seen_negatives": ["seen"], "unseen_unknowns": ["unseen"]}

    def milliseconds():
        start = time.perf_counter()
        scored = classifier.read("background", logits, label, group)
        evaluation.evaluate_split(scored, classes=classes, kinds=kinds)
        return 1e3 * (time.perf_counter() - start)

    return common.summary(common.alternate(rounds, {"metrics": milliseconds})["metrics"])


if __name__ == "__main__":
    cli.run(main, define_flags)
