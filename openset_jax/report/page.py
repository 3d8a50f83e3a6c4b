"""`report.html`: one self-contained file that people look at, from arrays and what `metrics.json` says of them.

Nothing is loaded from elsewhere, and the page forbids its browser to: its Content-Security-Policy allows inline styles, data
URIs, and the scripts below by their hashes. Names that users chose reach it through Jinja's escaping or as JSON alone.
"""

from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from openset_jax.openset.decision import thresholds
from openset_jax.openset.decision.classifier import Classifier
from openset_jax.openset.decision.posterior import correct_prior
from openset_jax.openset.metrics.evaluation import COMPARED, Scored
from openset_jax.report import figures, live, sentences, template
from openset_jax.report.gallery import Mistake, data_uri
from openset_jax.report.sentences import auroc, title

_SHARES = {
    "known_recall": "knowns accepted",
    "known_accuracy": "knowns accepted, class right",
    "accuracy_of_accepted_knowns": "accepted knowns, class right",
}


def render(
    result: dict[str, Any],
    scored: Scored,
    *,
    kinds: dict[str, list[str]],
    fitted: Classifier,
    under_fitted: np.ndarray | None,
    gallery: dict[str, list[Mistake]],
) -> str:
    """The page, as HTML that UTF-8 can encode.

    Args:
      result: the content of `metrics.json`; `scores` and `scores_left_out` may be absent.
      scored: the test split, with `decision`.
      kinds: kinds of "none of these" -> their groups; one may have no images.
      fitted: what decided.
      under_fitted: float64 [n, K + 1], the posterior under `fitted.fitted_prior`; None of a network that nothing told of
        "none", whose classes and decisions do not depend on a prior.
      gallery: title -> mistakes, from `gallery.worst`.
    """
    posterior, known_class = None, scored.known_class
    if under_fitted is not None:
        posterior = correct_prior(under_fitted, fitted.fitted_prior, fitted.prior)
        known_class = thresholds.cheapest_class(posterior, fitted.costs)
    drawn, images = _figures(scored, kinds, posterior, fitted.prior), figures.of_kind(scored, kinds)
    data = live.data(scored, kinds=kinds, fitted=fitted, under_fitted=under_fitted, known_class=known_class)
    data |= {"figures": drawn, "confusion": result["confusion"]["counts"]}
    data |= {"titles": [title(kind) for kind in kinds], "colours": figures.COLOURS}
    return template.render(
        "page.html",
        scripts={"plotly": get_plotlyjs(), "live": template.read("live.js"), "page": template.read("page.js")},
        filters={"title_of": title, "data_uri": data_uri},
        result=result,
        answer=sentences.answer(result),
        point=result["operating_point"],
        operating=_operating(result["operating_point"]),
        kinds=list(kinds),
        counts={kind: int(chosen.sum()) for kind, chosen in images.items()},
        images=int((live.truths(scored, kinds, len(fitted.classes)) >= 0).sum()),
        scores=_scores(result, kinds),
        gallery=gallery,
        own_prior_inputs=len(fitted.classes) <= live.PRIORS,
        data=data,
    )


def _figures(scored, kinds, posterior, prior):
    drawn = figures.curves(scored, kinds)
    drawn |= {"histogram": figures.histogram(scored, kinds), "cost": figures.costs(scored, kinds)}
    return drawn | ({} if posterior is None else figures.calibration(scored, posterior, prior, kinds))


def _operating(point):
    """Rows of the table: (key, what it is, whether it is a share, number)."""
    rows = [(key, text, True, point[key]) for key, text in _SHARES.items()]
    rows += [(f"rejected.{kind}", f'{title(kind)} answered "none"', True, v) for kind, v in point["rejected"].items()]
    costs = point["expected_cost"].items()
    return rows + [(f"expected_cost.{kind}", f"expected cost, with {title(kind)}", False, v) for kind, v in costs]


def _scores(result, kinds):
    """Rows of the table of all scores, the best first by AUROC against the hardest kind that was measured."""
    scores = result.get("scores") or {"own": {kind: result["open_set"].get(kind) for kind in kinds}}
    by = next((kind for kind in reversed(kinds) if any(auroc(row, kind) for row in scores.values())), None)
    order = lambda row: -(auroc(row, by) or {"value": -1})["value"]
    rows = sorted(scores.items(), key=lambda item: order(item[1]))
    numbers = lambda row, kind: [((row or {}).get(kind) or {}).get(metric) for metric in COMPARED]
    return {
        "by": by,
        "rows": [(name, [number for kind in kinds for number in numbers(row, kind)]) for name, row in rows],
        "left_out": result.get("scores_left_out") or {},
    }
