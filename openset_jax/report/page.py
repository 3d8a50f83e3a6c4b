"""`report.html`: the page of a run, one self-contained file.

The page loads no other files. Its Content-Security-Policy allows only inline styles, data URIs, and its own scripts by their
hashes. Names that users chose reach the page only through Jinja's escaping or as JSON.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.decision.posterior import correct_prior
from openset_jax.openset.metrics.evaluation import COMPARED
from openset_jax.openset.scored import Scored
from openset_jax.report import figures, page_data, template
from openset_jax.report.formatting import Number, title
from openset_jax.report.mistakes import Mistake, data_uri
from openset_jax.report.summary import auroc, summary

_SHARES = {
    "known_recall": "known images accepted",
    "known_accuracy": "known images accepted, class right",
    "accuracy_of_accepted_knowns": "accepted known images, class right",
}


def render(
    result: dict[str, Any], scored: Scored, *, kinds: dict[str, list[str]], classifier: Classifier,
    fitted_posterior: np.ndarray | None, mistakes: dict[str, list[Mistake]],
) -> str:  # fmt: skip
    """Returns the page, as HTML that UTF-8 can encode.

    Args:
      result: the content of `metrics.json`; `scores` and `scores_left_out` may be absent.
      scored: the test split, with `decision`.
      kinds: kind of "none" -> its groups; a kind may have no images.
      fitted_posterior: float64 [n, K + 1], the posterior under `classifier.fitted_prior`; None for a network without any
        probability of "none", whose classes and decisions do not depend on a prior.
      mistakes: title -> the mistakes of `mistakes.worst`.
    """
    drawn, known_class = figures.curves(scored, kinds), scored.known_class
    drawn |= {"histogram": figures.histogram(scored, kinds), "cost": figures.costs(scored, kinds)}
    if fitted_posterior is not None:
        posterior = correct_prior(fitted_posterior, classifier.fitted_prior, classifier.prior)
        known_class = thresholds.cheapest_class(posterior, classifier.costs)
        drawn |= figures.calibration(scored, posterior, classifier.prior, kinds)
    data = page_data.collect(
        scored, kinds=kinds, classifier=classifier, fitted_posterior=fitted_posterior, known_class=known_class
    )
    if len(classifier.classes) == 1:
        drawn.pop("oscr", None)  # the same curve as "roc"
    data |= {"figures": drawn, "confusion": result["confusion"]["counts"]}
    data |= {"titles": [title(kind) for kind in kinds], "colours": figures.COLOURS}
    scripts = {name: template.read(f"{name}.js") for name in ("operating_point", "page")}
    return template.render(
        "page.html",
        scripts={"plotly": get_plotlyjs()} | scripts,
        filters={"title_of": title, "data_uri": data_uri},
        result=result,
        summary=summary(result),
        point=result["operating_point"],
        operating=_operating(result["operating_point"]),
        kinds=list(kinds),
        counts={kind: int(chosen.sum()) for kind, chosen in figures.of_kind(scored, kinds).items()},
        images=int((page_data.confusion_rows(scored, kinds, len(classifier.classes)) >= 0).sum()),
        scores=_scores(result, kinds),
        mistakes=mistakes,
        own_prior_inputs=len(classifier.classes) <= page_data.PRIORS,
        data=data,
    )


def _operating(point: Mapping[str, Any]) -> list[tuple[str, str, bool, Number | None]]:
    """Returns the rows of the table: (key, text, True for a share, number); without right classes if there is only one."""
    shares = list(_SHARES.items())[: 1 if len(point["prior"]) == 2 else None]
    rows = [(key, text, True, point[key]) for key, text in shares]
    rows += [(f"rejected.{kind}", f'{title(kind)} answered "none"', True, v) for kind, v in point["rejected"].items()]
    costs = point["expected_cost"].items()
    return rows + [(f"expected_cost.{kind}", f"expected cost, with {title(kind)}", False, v) for kind, v in costs]


def _scores(result: Mapping[str, Any], kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Returns the table of all scores, sorted by AUROC against the hardest kind that has test images."""
    scores = result.get("scores") or {"own": {kind: result["open_set"].get(kind) for kind in kinds}}
    by = next((kind for kind in reversed(kinds) if any(auroc(row, kind) for row in scores.values())), None)
    order = lambda row: -((by and auroc(row, by)) or {"value": -1})["value"]
    rows = sorted(scores.items(), key=lambda item: order(item[1]))
    numbers = lambda row, kind: [((row or {}).get(kind) or {}).get(metric) for metric in COMPARED]
    return {
        "by": by,
        "rows": [(name, [number for kind in kinds for number in numbers(row, kind)]) for name, row in rows],
        "left_out": result.get("scores_left_out") or {},
    }
