"""`report.html` of an experiment: one self-contained file with its answer, its charts, and all its numbers.

Nothing is loaded from elsewhere, as of the page of one run; names that users chose are escaped, or JSON.
"""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from plotly.offline import get_plotlyjs

from openset_jax.report import template
from openset_jax.study.charts import curves, traces
from openset_jax.study.charts.figure import colour
from openset_jax.study.charts.tables import COSTS, tables
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.outcomes import DECISIONS, Treatment

_PACKAGE = "openset_jax.study.charts"


def render(
    analysis: Analysis,
    answer_markdown: str,
    *,
    missing: Sequence[tuple[str, str]] = (),
    reference: Treatment | None = None,
) -> str:
    """The page, as HTML that UTF-8 can encode.

    Args:
      answer_markdown: the content of `ANSWER.md`.
      missing: (name of an arm, why it is not here) each.
      reference: what the others are compared with; if None, the runs as configured, or else the first treatment.
    """
    treatments, charts = analysis.treatments, curves.charts(analysis)
    if reference is None and treatments:
        reference = Treatment(()) if Treatment(()) in treatments else treatments[0]
    short, heading, detail = answer_markdown.partition("\n## ")
    return template.render(
        "study.html",
        package=_PACKAGE,
        scripts={"plotly": get_plotlyjs(), "study": template.read("study.js", _PACKAGE)},
        answer=markdown(short),
        detail=markdown(heading + detail),
        charts=charts,
        legends=[_legend(chart) for chart in charts],
        drawn=[[traces.panel_figure(chart, panel) for panel in chart.panels] for chart in charts],
        seeds=curves.seeds_text(analysis),
        bands=curves.bands_text(analysis),
        tables=tables(analysis, reference) if treatments else {},
        reference=reference,
        about={treatment: _about(analysis, treatment) for treatment in treatments},
        decisions=DECISIONS,
        costs=COSTS,
        missing=list(missing),
    )


def markdown(text: str) -> str:
    """Safe HTML: tags in the text are text, links run nothing, and images are left out, as the page loads none."""
    parser = MarkdownIt("js-default")
    parser.add_render_rule("image", lambda *_: "")
    return parser.render(text)


def _legend(chart):
    """(place in the layout, label, colour) of each line that has a name."""
    return [(place, row.label, colour(row)) for place, row in enumerate(chart.layout.rows) if row.label]


def _about(analysis, treatment):
    """(seeds, negatives, how often those are the images of a known class)."""
    outcomes = list(analysis.outcomes(treatment).values())
    negatives = sum(outcome.negatives for outcome in outcomes) / len(outcomes)
    times = sum(outcome.negatives / outcome.per_class for outcome in outcomes) / len(outcomes)
    return len(outcomes), negatives, times
