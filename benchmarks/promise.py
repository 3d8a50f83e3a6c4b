"""Is a threshold's promise kept? Validation and test images of a run, dealt out again and again.

    python -m benchmarks.promise --workdir=DIR

Why: a threshold is chosen on validation images and says how many of the next ones it will accept, as a 95 % prediction
interval. Here the scores of both splits (knowns for keep_knowns; negatives of the kinds trained on for accept_negatives)
are shuffled together and dealt out into splits of the old sizes; each time the threshold is chosen anew, and the share of
the new test images that it accepts is looked for in the interval. It should be there in about 95 % of the deals: in more
where many scores tie, in fewer would be a broken promise. Prints a line for each rule.
"""

from typing import Any

import numpy as np
from absl import flags

from benchmarks import common
from openset_jax import cli
from openset_jax.errors import UserError

RULES = {"keep_knowns": "known", "accept_negatives": "negatives"}


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
    flags.DEFINE_integer("splits", 200, "How many times images are dealt out.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    from openset_jax import build, evaluate
    from openset_jax.data.pools import TEST, VALIDATION
    from openset_jax.openset.decision import classifier, thresholds
    from openset_jax.training.restore import restore

    file, result = common.json_file(flags.FLAGS.json), {}
    run = restore(flags.FLAGS.workdir)
    pool, inference = evaluate.open_images(run)
    for name, role in RULES.items():
        rule = thresholds.Rule(name, (build.DECISION | dict(run.config.get("decision", {})))[name])
        given = [pool.rows(split, role) for split in (VALIDATION, TEST)]
        if not all(map(len, given)):
            print(f"{name}: there are no {role} images in one of the splits")
            continue
        scores = [classifier.score(run.config.objective.name, inference.logits(run.variables, rows)[1]) for rows in given]
        try:
            result[name] = found = redealt(rule, *scores, splits=flags.FLAGS.splits)
        except UserError as error:
            print(f"{name}: {error}")
            continue
        print(
            f"{name}={rule.target:g}: {found['validation']:,} validation and {found['test']:,} test images; the share "
            f"accepted was in the interval in {found['inside']} of {found['splits']} splits ({found['share_inside']:.1%}), "
            f"below it in {found['below']}; the interval is {found['mean_width']:.2%} wide on average"
        )
    common.write_json(file, result)


def redealt(rule: Any, validation: np.ndarray, test: np.ndarray, *, splits: int, seed: int = 0) -> dict[str, Any]:
    """How often the promise of a rule is kept.

    Args:
      rule: a `thresholds.Rule`, "keep_knowns" or "accept_negatives".
      validation, test: scores of the side that the rule is about.
    """
    from openset_jax.openset.decision import thresholds

    rng, pooled, size, inside, below, widths = (
        np.random.default_rng(seed),
        np.append(validation, test),
        len(validation),
        0,
        0,
        [],
    )
    for _ in range(splits):
        rng.shuffle(pooled)
        chosen, rest = pooled[:size], pooled[size:]
        other = np.zeros(1)
        sides = (chosen, other) if rule.name == "keep_knowns" else (other, chosen)
        threshold = thresholds.choose(rule, *sides)
        promised, accepted = thresholds.promise(rule, threshold, len(rest)), np.mean(rest <= threshold.value)
        inside += bool(promised.low <= accepted <= promised.high)
        below += bool(accepted < promised.low)
        widths.append(promised.high - promised.low)
    counts = {"validation": size, "test": len(test), "splits": splits, "inside": inside, "below": below}
    return counts | {"share_inside": inside / splits, "mean_width": float(np.mean(widths))}


if __name__ == "__main__":
    cli.run(main, define_flags)
