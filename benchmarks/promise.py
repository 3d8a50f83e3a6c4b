"""Coverage of the threshold's prediction interval, over random splits of a run's validation and test images.

    python -m benchmarks.promise --workdir=DIR

Why: a threshold is chosen on validation images, with a 95 % prediction interval for the share of further images that it
accepts. Here the scores of both splits (of knowns for keep_knowns; of negatives of the trained groups for
accept_negatives) are shuffled together and divided into new splits of the same sizes. Each time a threshold is chosen,
and the share of the new test images that it accepts is compared with the interval. The interval should contain the
share in about 95 % of the splits; in more if many scores tie. Prints a line for each rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from benchmarks import outputs
from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from openset_jax.openset.decision.thresholds import Rule

RULES = {"keep_knowns": "known", "accept_negatives": "negatives"}  # rule -> role of the images that it counts


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_integer("splits", 200, "Number of random splits.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    from openset_jax import evaluate
    from openset_jax.data.pools import TEST, VALIDATION
    from openset_jax.openset.decision.thresholds import Rule
    from openset_jax.training.restore import restore

    file, result = outputs.json_file(flags.FLAGS.json), {}
    network = evaluate.with_images(restore(flags.FLAGS.workdir))
    pool, spec = network.pool, network.spec
    for name, role in RULES.items():
        rule = Rule(name, getattr(spec.decision, name))
        given = [pool.rows(split, role) for split in (VALIDATION, TEST)]
        if not all(map(len, given)):
            print(f"{name}: there are no {role} images in one of the splits")
            continue
        scores = [spec.objective.score(network.inference.logits(network.variables, rows)[1]) for rows in given]
        try:
            result[name] = found = coverage(rule, *scores, splits=flags.FLAGS.splits)
        except UserError as error:
            print(f"{name}: {error}")
            continue
        print(
            f"{name}={rule.target:g}: {found['validation']:,} validation and {found['test']:,} test images; the share "
            f"accepted was in the interval in {found['inside']} of {found['splits']} splits ({found['share_inside']:.1%}), "
            f"below it in {found['below']}; the interval is {found['mean_width']:.2%} wide on average"
        )
    outputs.write_json(file, result)


def coverage(rule: Rule, validation: np.ndarray, test: np.ndarray, *, splits: int, seed: int = 0) -> dict[str, Any]:
    """The coverage of the prediction interval of a rule, over random splits.

    Args:
      rule: "keep_knowns" or "accept_negatives".
      validation, test: float [m], [n], scores of the images that the rule counts.

    Returns:
      "validation", "test", "splits" (numbers), "inside" and "below" (numbers of splits whose accepted share is in, and
      below, the interval), "share_inside" and "mean_width".
    """
    from openset_jax.openset.decision import thresholds

    rng, pooled, size = np.random.default_rng(seed), np.append(validation, test), len(validation)
    inside, below, widths = 0, 0, []
    for _ in range(splits):
        rng.shuffle(pooled)
        chosen, rest = pooled[:size], pooled[size:]
        other = np.zeros(1)
        sides = (chosen, other) if rule.name == "keep_knowns" else (other, chosen)
        threshold = thresholds.choose(rule, *sides)
        promised, accepted = thresholds.promise(rule, threshold, len(rest)), np.mean(rest <= threshold.value)
        assert promised is not None  # these rules have a target share
        inside += bool(promised.low <= accepted <= promised.high)
        below += bool(accepted < promised.low)
        widths.append(promised.high - promised.low)
    counts = {"validation": size, "test": len(test), "splits": splits, "inside": inside, "below": below}
    return counts | {"share_inside": inside / splits, "mean_width": float(np.mean(widths))}


if __name__ == "__main__":
    cli.run(main, define_flags)
