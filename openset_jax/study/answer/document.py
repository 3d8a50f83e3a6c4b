"""ANSWER.md: what an experiment says about negatives, for the person who asked. Every statement follows from its numbers."""

from collections.abc import Iterator

import numpy as np

from openset_jax.openset.metrics.intervals import LEVEL
from openset_jax.report.sentences import title
from openset_jax.study.answer import collapse, phrases, remedies, sample_size, summary
from openset_jax.study.answer.phrases import Yardstick
from openset_jax.study.stats import axes
from openset_jax.study.stats.analysis import KNOWN, Analysis, Measure
from openset_jax.study.stats.comparing import Comparing
from openset_jax.study.stats.outcomes import DECISIONS, Treatment


def answer(analysis: Analysis) -> str:
    """Markdown, with a section for each question that the experiment has treatments for."""
    if not analysis.treatments:
        return "# The answer\n\nNo arm is finished.\n"
    comparing = Comparing(analysis)
    sections = (
        collapse.section,
        sample_size.negatives,
        remedies.section,
        remedies.layers,
        sample_size.groups,
        remedies.other_fields,
    )
    parts = [part for section in sections for part in section(comparing)]
    short = [f"- {sentence}" for sentence in summary.sentences(comparing)]
    parts = ["# The answer", "\n".join(short), _introduction(comparing), *parts, *_tables(comparing), *_certainty(comparing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(comparing: Comparing) -> str:
    analysis = comparing.analysis
    outcome = axes.first(analysis, comparing.treatments[0])
    arms = sum(len(analysis.outcomes(treatment)) for treatment in comparing.treatments)
    label, k = outcome.scored.label, len(outcome.classes)
    images = [f"{int((label >= 0).sum()):,} of {k} known classes"]
    for kind, groups in outcome.kinds.items():
        of = [g for g in groups if ((outcome.scored.group == g) & (label < 0)).any()]
        count = int(sum(((outcome.scored.group == g) & (label < 0)).sum() for g in of))
        images += [f"{count:,} {title(kind)} of {len(of):,} group{'s' if len(of) != 1 else ''}"] if count else []
    used = [f"- {name}: {text}" for name, text in DECISIONS.items() if name in outcome.decisions]
    prices = outcome.costs[~np.eye(k + 1, dtype=bool)]
    price = f"{prices.min():g}" if prices.min() == prices.max() else f"{prices.min():g} to {prices.max():g}"
    none = f' In use, {100 * outcome.deployment[k]:.1f} % of images are "none"; a wrong answer costs {price}.'
    none = none if comparing.kinds else ""
    return "\n\n".join(
        [
            f"{_count(arms, 'arm')}: {_count(len(comparing.treatments), 'treatment')}. "
            f"Test images: {phrases.listed(images)}."
            f"{none} A network's answer comes from one of these decisions, none of which trains again:",
            "\n".join(used),
        ]
    )


def _tables(comparing: Comparing) -> Iterator[str]:
    """Means over seeds: of rankings, then of each decision."""
    analysis = comparing.analysis
    ranked = (comparing.accuracy, *comparing.ranked)
    rows = [["treatment", "negatives", "seeds", *(yardstick.title for yardstick in ranked)]]
    for treatment in comparing.treatments:
        numbers = [phrases.number(comparing.mean(treatment, yardstick)) for yardstick in ranked]
        negatives = f"{axes.first(analysis, treatment).negatives:,}"
        rows.append([treatment.label, negatives, str(len(analysis.outcomes(treatment))), *numbers])
    yield "## The numbers"
    yield "Means over seeds."
    yield phrases.table(rows)

    rows = [["treatment", "known recall by argmax", *(yardstick.title for yardstick in comparing.decided)]]
    for treatment in comparing.treatments:
        recall = phrases.percent(analysis.mean(treatment, Measure("recall", KNOWN, "argmax")))
        rows.append([treatment.label, recall, *(_by_its_best(comparing, treatment, y) for y in comparing.decided)])
    yield "By the decision that is best for each:"
    yield phrases.table(rows)


def _by_its_best(comparing: Comparing, treatment: Treatment, yardstick: Yardstick) -> str:
    best = comparing.best(treatment, yardstick)
    most = 1.0 if yardstick.higher_is_better else float("inf")
    return f"{phrases.number(best.number, most)} {best.decision}" if best else "-"


def _certainty(comparing: Comparing) -> Iterator[str]:
    """What the intervals are of, and what was not measured."""
    analysis = comparing.analysis
    of = {treatment: sorted(analysis.outcomes(treatment)) for treatment in comparing.treatments}
    counts = sorted({len(seeds) for seeds in of.values()})
    yield "## What these intervals are"
    seeds = _count(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    told = [
        f"They are {100 * LEVEL:.0f} % intervals for other seeds and other test images, from {seeds} of each treatment."
        if counts[-1] > 1
        else f"There are none: {seeds} of each treatment, and {phrases.ONE_SEED}.",
    ]
    if comparing.asked:
        told.append(
            f"{_count(comparing.asked, 'paired difference')} with an interval "
            f"{'was' if comparing.asked == 1 else 'were'} looked at. Of such intervals 1 in {1 / (1 - LEVEL):.0f} misses by "
            f"chance, here about {comparing.asked * (1 - LEVEL):.1f}. A best decision, or a best point of a curve, is "
            "chosen on the test images that it is judged on, and looks a little better than it is."
        )
    yield " ".join(told)
    missing = list(_missing(comparing, of))
    if missing:
        yield "Not measured:"
        yield "\n".join(f"- {text}" for text in missing)


def _missing(comparing: Comparing, of) -> Iterator[str]:
    every = sorted({seed for seeds in of.values() for seed in seeds})
    for treatment, seeds in of.items():
        if len(seeds) == 1:
            yield f"{treatment.label}: there is seed {seeds[0]} alone, and {phrases.ONE_SEED}."
        elif absent := [str(seed) for seed in every if seed not in seeds]:
            yield f"{treatment.label}: there is no arm of seed {phrases.listed(absent)}."
    outcome = axes.first(comparing.analysis, comparing.treatments[0])
    for kind in outcome.kinds:
        if kind not in comparing.kinds:
            yield f"{title(kind)}: not all arms have test images of them."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
