"""Writes ANSWER.md, the results of an experiment in sentences. Every sentence is derived from the numbers."""

from collections.abc import Iterator

import numpy as np

from openset_jax.openset.metrics.intervals import LEVEL
from openset_jax.report.formatting import title
from openset_jax.study.answer import always_none, imbalance_methods, phrases, retraining, sample_size, summary
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.comparisons import Comparisons
from openset_jax.study.stats.treatments import GROUPS, NEGATIVES, TRAINABLE, differing_only_in, field_names, imbalance_fields


def answer(analysis: Analysis) -> str:
    """Returns the text: a summary, the experiment, a section for each question that its treatments answer, and tables."""
    if not analysis.treatments:
        return "# The answer\n\nNo arm is finished.\n"
    comparisons = Comparisons(analysis)
    parts = [
        "# The answer",
        "\n".join(f"- {sentence}" for sentence in summary.sentences(comparisons)),
        _one_seed(comparisons),
        _experiment(comparisons),
        *always_none.section(comparisons),
        *sample_size.section(comparisons, NEGATIVES, phrases.negatives, "How many negatives are enough?"),
        *imbalance_methods.section(comparisons),
        *retraining.section(comparisons),
        *sample_size.section(comparisons, GROUPS, phrases.negative_groups, "How many kinds of negatives are needed?"),
        *_other_fields(comparisons),
        *_tables(comparisons),
        *_intervals(comparisons),  # last, since it counts the differences of the other sections
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.replace(" (one seed)", "") if _seeds(comparisons) == {1} else text  # said at the top


def _seeds(comparisons: Comparisons) -> set[int]:
    """Returns the numbers of seeds that treatments have."""
    return {len(comparisons.analysis.outcomes(treatment)) for treatment in comparisons.treatments}


def _one_seed(comparisons: Comparisons) -> str:
    """Returns what it means that treatments have one seed; "" if all have several."""
    if 1 not in _seeds(comparisons):
        return ""
    each = _seeds(comparisons) == {1}
    which = "There is one seed of each treatment" if each else 'Some numbers are marked "(one seed)"'
    return f"{which}: {phrases.ONE_SEED}, so that these numbers have no intervals, and no difference is significant."


def _experiment(comparisons: Comparisons) -> str:
    """Returns the number of arms, the test images, and the decisions."""
    analysis = comparisons.analysis
    outcome = analysis.first(comparisons.treatments[0])
    arms = sum(len(analysis.outcomes(treatment)) for treatment in comparisons.treatments)
    label, k = outcome.scored.label, len(outcome.classes)
    images = [f"{int((label >= 0).sum()):,} of {k} known class{'es' if k > 1 else ''}"]
    for kind, groups in outcome.kinds.items():
        counts = [int(((outcome.scored.group == group) & (label < 0)).sum()) for group in groups]
        tested = phrases.counted(sum(count > 0 for count in counts), "kind")
        images += [f"{sum(counts):,} {title(kind)} of {tested}"] if sum(counts) else []
    decisions = "\n".join(f"- {name}: {text}" for name, text in DECISIONS.items() if name in outcome.decisions)
    prices = outcome.costs[~np.eye(k + 1, dtype=bool)]
    price = f"{prices.min():g}" if prices.min() == prices.max() else f"{prices.min():g} to {prices.max():g}"
    treatments = phrases.counted(len(comparisons.treatments), "treatment")
    text = f"{phrases.counted(arms, 'arm')}: {treatments}. Test images: {phrases.listed(images)}."
    if comparisons.kinds:
        text += f' In use, {100 * outcome.deployment[k]:.1f} % of images are "none"; a wrong answer costs {price}.'
    if any(analysis.first(treatment).negatives for treatment in comparisons.treatments):
        text += ' After a number of negatives, "x" is the mean number of training images of a known class.'
    return f"{text} Each of these decisions turns a network's outputs into answers, without training again:\n\n{decisions}"


def _other_fields(comparisons: Comparisons) -> Iterator[str]:
    """Yields a section for each field that no other section is about; its values are compared with the first."""
    names = field_names(comparisons.treatments)
    covered = {NEGATIVES, GROUPS, TRAINABLE, *imbalance_fields(names)}
    covered |= {"init_from"} if TRAINABLE in names else set()
    for field in (name for name in names if name not in covered):
        if lines := differing_only_in(comparisons.treatments, field):
            yield f"## Does {field} matter?"
        for line in lines:
            yield from phrases.heading(line[0].without(field), alone=len(lines) == 1)
            (first, reference), *others = [(t.get(field, "the configured value"), t) for t in line]
            texts = []
            for value, treatment in others:
                if compared := comparisons.differences(treatment, reference, *comparisons.metrics, *comparisons.closed):
                    texts.append(phrases.by_verdict(f"**{value}**, compared with {first}:", compared))
            yield "\n".join(texts)


def _tables(comparisons: Comparisons) -> Iterator[str]:
    """Yields tables of means over seeds: of metrics without a decision, then of the others by the best decision."""
    analysis, ranked = comparisons.analysis, (*comparisons.closed, *comparisons.ranked)
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
        best = [(metric, comparisons.best(treatment, metric)) for metric in comparisons.decided]
        numbers = [f"{phrases.number(by.mean)} {by.decision}" if by else "-" for metric, by in best]
        rows.append([treatment.label, recall, *numbers])
    yield "By the best decision for each number:"
    yield phrases.table(rows)


def _intervals(comparisons: Comparisons) -> Iterator[str]:
    """Yields what the intervals cover, how many differences were examined, and what was not measured."""
    counts = sorted(_seeds(comparisons))
    yield "## What these intervals are"
    each = phrases.counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    text = (
        f"They are {100 * LEVEL:.0f} % confidence intervals (CI) over seeds and test images, from {each} of each treatment."
    )
    texts = [text if counts[-1] > 1 else f"There are none: {each} of each treatment."]
    if count := len(comparisons.examined):
        missed = count * (1 - LEVEL)
        texts.append(
            f"{phrases.counted(count, 'paired difference')} with an interval {'was' if count == 1 else 'were'} examined. Of "
            f"such intervals 1 in {1 / (1 - LEVEL):.0f} misses the true difference by chance, here about {missed:.1f}. The "
            "best decision, and the best point of a curve, are chosen on the same test images that they are measured on, "
            "which favours them slightly."
        )
    yield " ".join(texts)
    if missing := list(_missing(comparisons)):
        yield "Not measured:"
        yield "\n".join(f"- {text}" for text in missing)


def _missing(comparisons: Comparisons) -> Iterator[str]:
    seeds = {treatment: list(comparisons.analysis.outcomes(treatment)) for treatment in comparisons.treatments}
    every = sorted(set().union(*seeds.values()))
    for treatment, present in seeds.items():
        if len(present) == 1 < len(every):
            yield f"{treatment.label}: there is only seed {present[0]}."
        elif absent := [str(seed) for seed in every if seed not in present]:
            yield f"{treatment.label}: there is no arm of seed {phrases.listed(absent)}."
    for kind in comparisons.analysis.first(comparisons.treatments[0]).kinds:
        if kind not in comparisons.kinds:
            yield f"{title(kind)}: not all arms have test images of them."
