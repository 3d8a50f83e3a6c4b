"""Every objective on one data set, several seeds each.

    python -m benchmarks.objectives --config=configs/fashion_open.py --config.data.tfds_data_dir=TFDS --out=DIR

Why: an extra class, all-zeros labels, or a threshold? The answer depends on the data. All arms train on the same images
in the same order, for the same number of steps; they differ in the loss and the outputs. Only `softmax` uses no
negatives: its batches, of the same size, have knowns only, so it sees more of them. Each run has a folder DIR/ARM-SEED,
resumes if it was stopped, and is not trained again once it is finished. Prints a table of means over the seeds with 95
% intervals (Student's t: other networks, the same test images), and a table of the differences to `background`, paired
by seed. Writes both to DIR/objectives.md, and the numbers to DIR/objectives.json.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import runs
from openset_jax import cli
from openset_jax.errors import UserError

REFERENCE = "background"
ARMS: dict[str, dict[str, Any]] = {  # arm -> fields that differ from the config
    REFERENCE: {},
    "background_balanced_softmax": {"objective.logit_adjustment": 1.0},
    **{
        name: {"objective.name": name}
        for name in ("one_vs_rest", "softmax", "entropic", "objectosphere", "outlier_exposure", "energy_margin")
    },
}
COLUMNS: dict[str, Callable[[Mapping[str, Any]], Any]] = {  # column -> (metrics.json) -> an interval or None
    "known accuracy": lambda result: result["known"]["accuracy"],
    "AUROC, seen": lambda result: result["open_set"]["seen_negatives"]["auroc"],
    "AUROC, unseen": lambda result: result["open_set"]["unseen_unknowns"]["auroc"],
    "OSCR, seen": lambda result: result["open_set"]["seen_negatives"]["oscr"],
    "OSCR, unseen": lambda result: result["open_set"]["unseen_unknowns"]["oscr"],
    "rejected, seen": lambda result: result["operating_point"]["rejected"]["seen_negatives"],
    "rejected, unseen": lambda result: result["operating_point"]["rejected"]["unseen_unknowns"],
}


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config()
    flags.DEFINE_string("out", None, "Folder of the runs; finished runs are not trained again.", required=True)
    flags.DEFINE_list("arms", list(ARMS), f"Arms to train; all are compared with {REFERENCE}.")
    flags.DEFINE_integer("seeds", 3, "Number of seeds: 0, 1, ...", lower_bound=1)


def main() -> None:
    """Runs the command."""
    if strange := set(flags.FLAGS.arms) - set(ARMS):
        raise UserError(f"--arms: {min(strange)!r} is not one of {', '.join(ARMS)}")
    out = cli.make_workdir(flags.FLAGS.out)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in dict.fromkeys([REFERENCE, *flags.FLAGS.arms])}
    for seed in range(flags.FLAGS.seeds):
        for arm, results in found.items():
            results.append(runs.trained(flags.FLAGS.config, ARMS[arm], seed=seed, workdir=out / f"{arm}-{seed}"))
    write(out, found)


def write(out: pathlib.Path, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Prints and writes the tables.

    Args:
      found: arm -> the `metrics.json` of each seed.
    """
    values = {arm: {name: _values(results, read) for name, read in COLUMNS.items()} for arm, results in found.items()}
    (out / "objectives.json").write_text(json.dumps(values, indent=2) + "\n")
    means = [["objective", *COLUMNS]]
    means += [[arm, *(runs.mean_text(values[arm][name], most=1.0) for name in COLUMNS)] for arm in values]
    differences = [[f"less `{REFERENCE}`", *COLUMNS]]
    differences += [
        [arm, *(runs.difference_text(values[arm][name], values[REFERENCE][name]) for name in COLUMNS)]
        for arm in values
        if arm != REFERENCE
    ]
    text = runs.markdown(means) + "\n\n" + runs.markdown(differences) + "\n"
    (out / "objectives.md").write_text(text)
    print(text)


def _values(results, read):
    numbers = [read(result) for result in results]
    return [None if number is None else number["value"] for number in numbers]


if __name__ == "__main__":
    cli.run(main, define_flags)
