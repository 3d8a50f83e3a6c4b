"""Tests the claims of Buda, Maki and Mazurowski 2018 (arXiv 1710.05381) about class imbalance with experiments.

    python -m benchmarks.buda --mnist=runs/buda_mnist --cifar10=runs/buda_cifar10 --out=DIR

The folders are --workdir of experiments of configs/buda_mnist.py and configs/buda_cifar10.py; their finished arms are
read. Prints a table of the claims (*confirmed*, *not confirmed* or *not tested here*), a table of mean AUC by method
and imbalance, and a table of balanced accuracy by method and prior. Writes them to DIR/buda.md, and the differences
that the claims were judged by to DIR/buda.json. Takes a second or two for each arm. benchmarks/buda_claims.py says how
claims are judged.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import buda_claims, buda_verdicts
from benchmarks.buda_claims import Claim
from benchmarks.buda_study import (
    ACCURACY,
    AUC,
    BALANCED,
    BASELINE,
    CORRECTED,
    DIVIDED,
    METHODS,
    OVER,
    OWN,
    UNDER,
    Network,
    Study,
    label,
)
from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.openset.metrics.intervals import LEVEL, Interval
from openset_jax.study.answer import phrases

# column of the table of balanced accuracies -> (method, outputs, measure)
READINGS = {
    "baseline": (BASELINE, OWN, ACCURACY),
    "baseline / priors": (BASELINE, DIVIDED, ACCURACY),
    "oversampling": (OVER, OWN, ACCURACY),
    "oversampling / original priors": (OVER, DIVIDED, ACCURACY),
    "oversampling / effective priors": (OVER, OWN, CORRECTED),
    "undersampling": (UNDER, OWN, ACCURACY),
    "undersampling / original priors": (UNDER, DIVIDED, ACCURACY),
    **{method: (method, OWN, ACCURACY) for method in METHODS if method.startswith("two-phase")},
}


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("mnist", None, "Folder of the experiment of configs/buda_mnist.py.")
    flags.DEFINE_string("cifar10", None, "Folder of the experiment of configs/buda_cifar10.py.")
    flags.DEFINE_string("out", None, "Folder for buda.md and buda.json; created if necessary.", required=True)


def main() -> None:
    """Runs the command."""
    from openset_jax.study.runs import arm_folder

    folders = {"MNIST": flags.FLAGS.mnist, "CIFAR-10": flags.FLAGS.cifar10}
    if not any(folders.values()):
        raise UserError("--mnist, --cifar10: neither is given; give the folder of at least one experiment")
    studies: dict[str, Study] = {}
    missing: dict[str, tuple[int, int]] = {}
    for name, folder in folders.items():
        if folder:
            outcomes, unfinished = arm_folder.read_outcomes(pathlib.Path(folder).absolute())
            if not outcomes:
                raise UserError(f"--{name.lower().replace('-', '')}: {folder} has no finished arm")
            studies[name], missing[name] = Study(name, outcomes), (len(unfinished), len(outcomes) + len(unfinished))
    write(cli.make_workdir(flags.FLAGS.out), studies, missing)


def write(out: pathlib.Path, studies: Mapping[str, Study], missing: Mapping[str, tuple[int, int]]) -> None:
    """Prints and writes the tables.

    Args:
      studies: "MNIST", "CIFAR-10" -> its arms.
      missing: the same -> (number of unfinished arms, number of arms).
    """
    found = [claim for study in studies.values() for claim in buda_claims.claims(study)]
    found.append(of_both(studies))
    found.sort(key=lambda claim: claim.name)  # stable: data sets side by side
    text = markdown(studies, found, missing)
    (out / "buda.md").write_text(text)
    (out / "buda.json").write_text(json.dumps(plain(studies, found, missing), indent=2) + "\n")
    print(text)


def of_both(studies: Mapping[str, Study]) -> Claim:
    """Judges B2, which needs both data sets."""
    if len(studies) == 2:
        return buda_claims.scale(studies["MNIST"], studies["CIFAR-10"])
    text = "the same loss of AUC needs about 100 times as large a rho on MNIST as on CIFAR-10"
    return Claim("B2", text, "both", buda_verdicts.NOT_TESTED, "only one of the two experiments is given", {})


def markdown(studies: Mapping[str, Study], found: Sequence[Claim], missing: Mapping[str, tuple[int, int]]) -> str:
    """The tables in Markdown."""
    parts = ["# Class imbalance: claims of Buda, Maki and Mazurowski 2018, and what was found here"]
    parts += [f"{name}: {left} of {of} arms are not finished." for name, (left, of) in missing.items() if left]
    rows = [["claim", "data", "verdict", "why"]]
    rows += [[f"**{c.name}** {c.text}", c.data, f"*{c.verdict}*", c.reason] for c in found]
    parts += [phrases.table(rows), _certainty(found)]
    for name, study in studies.items():
        parts += [f"## {name}: mean one-vs-rest AUC", phrases.table(_auc_rows(study))]
        parts += [
            f"## {name}: balanced accuracy, outputs as they are and divided by priors",
            phrases.table(_accuracy_rows(study)),
        ]
    return "\n\n".join(parts) + "\n"


def _certainty(found: Sequence[Claim]) -> str:
    intervals = sum(bool(np.isfinite(d).all()) for c in found for d in c.differences.values())
    return (
        f"Differences are between means over seeds, paired by seed and test image, with {100 * LEVEL:.0f} % confidence "
        f"intervals over seeds and test images. {intervals} were examined; of such intervals 1 in {1 / (1 - LEVEL):.0f} "
        f"misses the true difference by chance, here about {intervals * (1 - LEVEL):.0f}. A claim that something never "
        f"happens is confirmed only if the intervals allow no more than {buda_verdicts.ALLOWED:g} of the contrary."
    )


def _auc_rows(study: Study) -> list[list[str]]:
    rows = [["", *METHODS]]
    for point in (BALANCED, *study.points, *study.linear):
        rows.append([label(point), *(phrases.number(study.mean(Network(method, point), AUC)) for method in METHODS)])
    return rows


def _accuracy_rows(study: Study) -> list[list[str]]:
    rows = [["", *READINGS]]
    for point in study.points:
        means = [study.mean(Network(method, point, outputs), measure) for method, outputs, measure in READINGS.values()]
        rows.append([label(point), *map(phrases.number, means)])
    return rows


def plain(studies: Mapping[str, Study], found: Sequence[Claim], missing: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The content of buda.json: intervals are [value, low, high]; null for infinite ends, which one seed gives."""
    return {
        "claims": [c._asdict() | {"differences": {n: _plain(d) for n, d in c.differences.items()}} for c in found],
        "arms": {name: {"unfinished": left, "of": of} for name, (left, of) in missing.items()},
        "auc": {
            name: {
                label(p): {method: _plain(study.mean(Network(method, p), AUC)) for method in METHODS}
                for p in (BALANCED, *study.points, *study.linear)
            }
            for name, study in studies.items()
        },
        "balanced_accuracy": {
            name: {
                label(p): {c: _plain(study.mean(Network(m, p, o), measure)) for c, (m, o, measure) in READINGS.items()}
                for p in study.points
            }
            for name, study in studies.items()
        },
    }


def _plain(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [float(x) if np.isfinite(x) else None for x in interval]


if __name__ == "__main__":
    cli.run(main, define_flags)
