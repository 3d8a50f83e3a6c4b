"""The section on retraining only the last layer or layers, compared with retraining all layers and training from scratch."""

from collections.abc import Iterator, Sequence

from openset_jax.study.answer import phrases
from openset_jax.study.stats.comparisons import Comparison, Comparisons
from openset_jax.study.stats.treatments import RETRAINED, TRAINABLE, Treatment, differing_only_in


def retrained(comparisons: Comparisons) -> list[list[Treatment]]:
    """Returns groups of treatments that differ only in the layers that are trained: head, fc, all, then from scratch."""
    groups = differing_only_in(comparisons.treatments, TRAINABLE, "init_from")
    ordered = [sorted(group, key=lambda t: [*RETRAINED, None].index(_layers(t))) for group in groups]
    return [group for group in ordered if len({_layers(t) for t in group}) > 1]


def _layers(treatment: Treatment) -> str | None:
    """Returns a value of `trainable`; None if the network is trained from scratch."""
    return treatment.get(TRAINABLE) or ("all" if treatment.get("init_from") else None)


def section(comparisons: Comparisons) -> Iterator[str]:
    """Yields the section; nothing if the trained layers do not vary."""
    if not (groups := retrained(comparisons)):
        return
    yield "## Is retraining the last layer enough?"
    if any(t.get("init_from") for group in groups for t in group):
        yield "Retrained networks have also seen the training examples of the run whose weights they start from."
    for group in groups:
        yield from phrases.heading(group[0].without(TRAINABLE, "init_from"), alone=len(groups) == 1)
        references = [t for t in group[1:] if _layers(t) in ("all", None)] or [group[-1]]
        texts = []
        for reference in references:
            for treatment in group[: group.index(reference)]:
                if compared := comparisons.differences(treatment, reference, *comparisons.metrics, *comparisons.closed):
                    texts.append(enough(name(treatment), name(reference), compared))
        yield "\n".join(texts)


def name(treatment: Treatment) -> str:
    """Returns what is trained, as "retraining the last layer (head)"."""
    layers = {"head": "the last layer (head)", "fc": "the fully connected layers (fc)", "all": "all layers"}
    value = _layers(treatment)
    return f"retraining {layers[value]}" if value else "training from scratch"


def enough(treatment: str, reference: str, compared: Sequence[Comparison]) -> str:
    """Returns whether training fewer layers is not significantly worse than training more, and the differences; Markdown."""
    verdicts = {c.verdict for c in compared}
    text = "may be enough, not significantly worse"
    if "one seed" in verdicts:
        text = "unknown"
    elif "worse" in verdicts:
        text = "not enough"
    return phrases.by_verdict(f"**{phrases.capital(treatment)}, compared with {reference}: {text}.** It is", compared)
