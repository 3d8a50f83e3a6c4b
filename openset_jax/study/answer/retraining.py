"""The section on how many layers to train: the last only, those above a group, all, or all from scratch."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from openset_jax.config import FIRST_PHASE, PRETRAINED
from openset_jax.study.answer import phrases
from openset_jax.study.answer.sample_size import Curve, point_by_point, smallest_enough
from openset_jax.study.stats.arm_outcome import Training
from openset_jax.study.stats.comparisons import Comparison, Comparisons, Metric
from openset_jax.study.stats.treatments import NEGATIVES, TRAINABLE, Treatment, differing_only_in

Line = tuple[Treatment, ...]  # at least two treatments that start from the same weights, the fewest layers first


def lines(comparisons: Comparisons) -> list[Line]:
    """Returns treatments that differ only in the trained layers, for each start of their weights; from scratch is last."""
    found = []
    for group in differing_only_in(comparisons.treatments, TRAINABLE, "init_from"):
        trained = {t: training(comparisons, t) for t in group}
        scratch = [t for t in group if trained[t].from_scratch][:1]
        others = sorted((t for t in group if t not in scratch), key=lambda t: trained[t].layers)
        for start in dict.fromkeys(trained[t].start for t in others):
            line = (*(t for t in others if trained[t].start == start), *scratch)
            found += [line] if len(line) > 1 else []
    return found


def training(comparisons: Comparisons, treatment: Treatment) -> Training:
    """Returns the layers that a treatment trains, and the cost of a step."""
    return comparisons.analysis.first(treatment).training


def section(comparisons: Comparisons) -> Iterator[str]:
    """Yields the section; nothing if the trained layers do not vary."""
    if not (found := lines(comparisons)):
        return
    yield "## Is retraining the last layer enough?"
    for line in found:
        start, shared = training(comparisons, line[0]).start, line[0].without(TRAINABLE, "init_from")
        if len(found) > 1 or shared.fields:
            yield f"### {f'{shared.label}, s' if shared.fields else 'S'}tarting from {start_name(start)}"
        yield f"**{verdict(comparisons, line)}**"
        if curves := _curves(comparisons, line):
            yield "\n".join(f"- {_smallest(comparisons, line, metric, curve)}" for metric, curve in curves.items())
        yield table(comparisons, line)
        if start:
            yield "Retrained networks have also seen the training examples of the network whose weights they start from."
        yield "\n".join(_compared(comparisons, line))


def name(trained: Training) -> str:
    """Returns what is trained, as "retraining the last layer (head)"."""
    if trained.from_scratch:
        return "training from scratch"
    layers = {"head": "the last layer (head)"}.get(trained.trainable, f"the layers from {trained.trainable} up")
    return f"{'retraining' if trained.start else 'training'} {'all layers' if trained.trains_all else layers}"


def start_name(start: str) -> str:
    """Returns what a value of `Training.start` stands for, as "published weights"."""
    label = start.removeprefix("arm:")
    if start != label:
        without = f"{NEGATIVES}=0" in label.split(", ")
        return "a network trained without negatives" if without else f"the network of the arm {label}"
    known = {"": "random parameters", PRETRAINED: "published weights", FIRST_PHASE: "the first of two phases"}
    return known.get(start, f"the weights of {pathlib.PurePath(start).name}")


def verdict(comparisons: Comparisons, line: Line) -> str:
    """Returns the fewest layers that are not significantly worse than the best, by each metric, and the cost of a step."""
    trained, titles = [training(comparisons, t) for t in line], dict[int, list[str]]()
    for metric, curve in _curves(comparisons, line).items():
        if (i := smallest_enough(curve.best, curve.compared)) is not None:
            titles.setdefault(i, []).append(metric.title)
    start = f"Starting from {start_name(trained[0].start)}"
    if not titles:
        return f"{start}, it is unknown which layers are enough (one seed)."
    parts = []
    for i in sorted(titles):
        text = "is needed" if trained[i].from_scratch else "may be enough"
        parts.append(f"{name(trained[i])} {text} for {phrases.listed(titles[i])}{_cost(trained[i], trained)}")
    least = "" if 0 in titles else f" {phrases.capital(name(trained[0]))} is not enough for any of these numbers."
    return f"{start}, {'; '.join(parts)}.{least}"


def _cost(trained: Training, line: Sequence[Training]) -> str:
    """Returns the operations of a step compared with the costliest step of the line; "" for the costliest."""
    most = max(line, key=lambda other: other.flops)
    if trained.flops == most.flops:
        return ""
    step = "a step that trains all layers" if most.trains_all else f"a step of {name(most)}"
    share, numbers = f"{100 * trained.flops / most.flops:.0f} %", [f"{t.flops / 1e9:.3g}" for t in (trained, most)]
    return f" ({share} of the operations of {step}: {numbers[0]} of {numbers[1]} GFLOP per image)"


def _curves(comparisons: Comparisons, line: Line) -> dict[Metric, Curve]:
    """Returns the comparisons with the best depth, by the metrics that need no decision."""
    metrics = (*comparisons.closed, *comparisons.ranked)
    return {m: curve for m in metrics if (curve := point_by_point(comparisons, m, line)) is not None}


def _smallest(comparisons: Comparisons, line: Line, metric: Metric, curve: Curve) -> str:
    """Returns the fewest layers that are enough by a metric, and the differences of these and of fewer to the best."""
    names = [name(training(comparisons, t)) for t in line]
    best = f"{names[curve.best]}, with a mean of {phrases.number(curve.mean)}"
    i, text = smallest_enough(curve.best, curve.compared), f"**{phrases.capital(metric.title)}**"
    if i is None:
        return f"{text}: the best is {best}."
    if i == curve.best:
        text += f" needs {best}, the best"
    else:
        text += f": {names[i]} may be enough; compared with the best, {best}, it is {phrases.comparison(curve.compared[i])}"
    fewer = [j for j in range(i) if j in curve.compared]
    return text + "".join(f"; {names[j]} is {phrases.comparison(curve.compared[j])}" for j in fewer[-1:]) + "."


def table(comparisons: Comparisons, line: Line) -> str:
    """Returns a table: the mean of each metric over seeds with its interval, and the cost of a step."""
    metrics = (*comparisons.closed, *comparisons.ranked)
    cost = ["GFLOP of a step, per image", "memory of a step", "training speed"]
    rows = [["trained", "seeds", *(metric.title for metric in metrics), *cost]]
    for treatment in line:
        outcomes, trained = comparisons.analysis.outcomes(treatment).values(), training(comparisons, treatment)
        numbers = [phrases.number(comparisons.mean(treatment, metric)) for metric in metrics]
        speeds = [rate for o in outcomes if (rate := o.training.images_per_second)]
        memory = "-" if trained.memory is None else f"{trained.memory / 2**20:,.1f} MiB"
        speed = f"{np.mean(speeds):,.{0 if min(speeds) >= 10 else 1}f} images/s" if speeds else "-"
        rows.append([name(trained), f"{len(outcomes)}", *numbers, f"{trained.flops / 1e9:.3g}", memory, speed])
    explained = (
        "Operations are counted, with the backward pass; memory is that of a device as XLA plans it, with parameters, "
        "optimizer state and one batch; speed is measured, and differs between runs and machines."
    )
    return f"{phrases.table(rows)}\n\n{explained}"


def _compared(comparisons: Comparisons, line: Line) -> Iterator[str]:
    """Yields list items that compare each treatment with all layers retrained, and with training from scratch."""
    trained = {t: training(comparisons, t) for t in line}
    for reference in [t for t in line[1:] if trained[t].trains_all] or [line[-1]]:
        for treatment in line[: line.index(reference)]:
            if compared := comparisons.differences(treatment, reference, *comparisons.metrics, *comparisons.closed):
                yield enough(name(trained[treatment]), name(trained[reference]), compared)


def enough(treatment: str, reference: str, compared: Sequence[Comparison]) -> str:
    """Returns whether training fewer layers is not significantly worse than training more, and the differences; Markdown."""
    verdicts = {c.verdict for c in compared}
    text = "may be enough, not significantly worse"
    if "one seed" in verdicts:
        text = "unknown"
    elif "worse" in verdicts:
        text = "not enough"
    return phrases.by_verdict(f"**{phrases.capital(treatment)}, compared with {reference}: {text}.** It is", compared)
