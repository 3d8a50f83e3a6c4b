"""Writes ANSWER.md, the results of an experiment in sentences. Every sentence is derived from the numbers."""

from collections.abc import Iterator, Mapping

import numpy as np

from openset_jax.openset.metrics.intervals import LEVEL
from openset_jax.report.formatting import title
from openset_jax.study.answer import always_none, imbalance_methods, phrases, retraining, sample_size, summary
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.comparisons import Comparisons, Metric
from openset_jax.study.stats.treatments import (
    GROUPS,
    NEGATIVES,
    TRAINABLE,
    Treatment,
    differing_only_in,
    field_names,
    imbalance_fields,
)


def answer(analysis: Analysis) -> str:
    """Returns the text: a summary, the experiment, a section for each question that its treatments answer, and tables."""
    if not analysis.treatments:
        return "# The answer\n\nNo arm is finished.\n"
    comparisons = Comparisons(analysis)
    sections = (
        always_none.section,
        sample_size.negatives,
        imbalance_methods.section,
        retraining.section,
        sample_size.groups,
        _other_fields,
    )
    parts = [part for section in sections for part in section(comparisons)]
    short = "\n".join(f"- {sentence}" for sentence in summary.sentences(comparisons))
    parts = ["# The answer", short, _experiment(comparisons), *parts, *_tables(comparisons), *_intervals(comparisons)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _experiment(comparisons: Comparisons) -> str:
    """Returns the number of arms, the test images, and the decisions."""
    analysis = comparisons.analysis
    outcome = analysis.first(comparisons.treatments[0])
    arms = sum(len(analysis.outcomes(treatment)) for treatment in comparisons.treatments)
    label, k = outcome.scored.label, len(outcome.classes)
    images = [f"{int((label >= 0).sum()):,} of {k} known classes"]
    for kind, groups in outcome.kinds.items():
        counts = [int(((outcome.scored.group == group) & (label < 0)).sum()) for group in groups]
        tested = phrases.counted(sum(count > 0 for count in counts), "kind")
        images += [f"{sum(counts):,} {title(kind)} of {tested}"] if sum(counts) else []
    decisions = [f"- {name}: {text}" for name, text in DECISIONS.items() if name in outcome.decisions]
    prices = outcome.costs[~np.eye(k + 1, dtype=bool)]
    price = f"{prices.min():g}" if prices.min() == prices.max() else f"{prices.min():g} to {prices.max():g}"
    none = f' In use, {100 * outcome.deployment[k]:.1f} % of images are "none"; a wrong answer costs {price}.'
    treatments = phrases.counted(len(comparisons.treatments), "treatment")
    factor = ' After a number of negatives, "x" is the mean number of training images of a known class.'
    factor = factor if any(analysis.first(treatment).negatives for treatment in comparisons.treatments) else ""
    return "\n\n".join(
        [
            f"{phrases.counted(arms, 'arm')}: {treatments}. Test images: {phrases.listed(images)}."
            f"{none if comparisons.kinds else ''}{factor} Each of these decisions turns a network's outputs into answers, "
            "without training again:",
            "\n".join(decisions),
        ]
    )


def _other_fields(comparisons: Comparisons) -> Iterator[str]:
    """Yields a section for each field that no other section is about; its values are compared with the first."""
    names = field_names(comparisons.treatments)
    covered = {NEGATIVES, GROUPS, TRAINABLE, *imbalance_fields(names)}
    covered |= {"init_from"} if TRAINABLE in names else set()
    for field in (name for name in names if name not in covered):
        lines = differing_only_in(comparisons.treatments, field)
        if lines:
            yield f"## Does {field} matter?"
        for line in lines:
            yield from phrases.heading(line[0].without(field), alone=len(lines) == 1)
            values = [f"{t.get(field)}" if field in dict(t.fields) else "the configured value" for t in line]
            texts = []
            for treatment, value in zip(line[1:], values[1:], strict=True):
                compared = comparisons.differences(treatment, line[0], *comparisons.metrics, comparisons.accuracy)
                headline = f"**{value}**, compared with {values[0]}:"
                texts += [phrases.bullets(headline, phrases.by_verdict(compared))] if compared else []
            yield "\n".join(texts)


def _tables(comparisons: Comparisons) -> Iterator[str]:
    """Yields tables of means over seeds: of metrics without a decision, then of the others by the best decision."""
    analysis = comparisons.analysis
    ranked = (comparisons.accuracy, *comparisons.ranked)
    rows = [["treatment", "negatives", "seeds", *(metric.title for metric in ranked)]]
    for treatment in comparisons.treatments:
        numbers = [phrases.number(comparisons.mean(treatment, metric)) for metric in ranked]
        negatives = f"{analysis.first(treatment).negatives:,}"
        rows.append([treatment.label, negatives, str(len(analysis.outcomes(treatment))), *numbers])
    yield "## The numbers"
    yield "Means over seeds."
    yield phrases.table(rows)

    rows = [["treatment", "known recall by argmax", *(metric.title for metric in comparisons.decided)]]
    for treatment in comparisons.treatments:
        recall = phrases.percent(analysis.mean(treatment, always_none.OWN_RECALL))
        rows.append([treatment.label, recall, *(_best(comparisons, treatment, m) for m in comparisons.decided)])
    yield "By the best decision for each number:"
    yield phrases.table(rows)


def _best(comparisons: Comparisons, treatment: Treatment, metric: Metric) -> str:
    best = comparisons.best(treatment, metric)
    return f"{phrases.number(best.mean, metric.largest)} {best.decision}" if best else "-"


def _intervals(comparisons: Comparisons) -> Iterator[str]:
    """Yields what the intervals cover, how many differences were examined, and what was not measured."""
    seeds = {t: sorted(comparisons.analysis.outcomes(t)) for t in comparisons.treatments}
    counts = sorted({len(of_treatment) for of_treatment in seeds.values()})
    yield "## What these intervals are"
    each = phrases.counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    texts = [
        f"They are {100 * LEVEL:.0f} % confidence intervals (CI) over seeds and test images, from {each} of each treatment."
        if counts[-1] > 1
        else f"There are none: {each} of each treatment, and {phrases.ONE_SEED}."
    ]
    if comparisons.examined:
        count, missed = comparisons.examined, comparisons.examined * (1 - LEVEL)
        texts.append(
            f"{phrases.counted(count, 'paired difference')} with an interval {'was' if count == 1 else 'were'} examined. Of "
            f"such intervals 1 in {1 / (1 - LEVEL):.0f} misses the true difference by chance, here about {missed:.1f}. The "
            "best decision, and the best point of a curve, are chosen on the same test images that they are measured on, "
            "which favours them slightly."
        )
    yield " ".join(texts)
    missing = list(_missing(comparisons, seeds))
    if missing:
        yield "Not measured:"
        yield "\n".join(f"- {text}" for text in missing)


def _missing(comparisons: Comparisons, seeds: Mapping[Treatment, list[int]]) -> Iterator[str]:
    every = sorted({seed for of_treatment in seeds.values() for seed in of_treatment})
    for treatment, present in seeds.items():
        if len(present) == 1:
            yield f"{treatment.label}: there is only seed {present[0]}, and {phrases.ONE_SEED}."
        elif absent := [str(seed) for seed in every if seed not in present]:
            yield f"{treatment.label}: there is no arm of seed {phrases.listed(absent)}."
    for kind in comparisons.analysis.first(comparisons.treatments[0]).kinds:
        if kind not in comparisons.kinds:
            yield f"{title(kind)}: not all arms have test images of them."
