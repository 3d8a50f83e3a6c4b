"""report.html of an experiment: one file with its answer, its charts and all its numbers.

The page loads nothing from elsewhere. Names that users chose are escaped or JSON.
"""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from plotly.offline import get_plotlyjs

from openset_jax.report import template
from openset_jax.study.charts import chart_data, plotly_traces
from openset_jax.study.charts.tables import COSTS, tables
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.arm_outcome import DECISIONS
from openset_jax.study.stats.treatments import Treatment

_PACKAGE = "openset_jax.study.charts"


def render(
    analysis: Analysis, answer: str, *, missing: Sequence[tuple[str, str]] = (), reference: Treatment | None = None
) -> str:
    """Returns the page, as HTML that can be encoded as UTF-8.

    Args:
      answer: the content of `ANSWER.md`.
      missing: (name of the arm, reason) for each arm without a result.
      reference: the treatment that the others are compared with; by default the unchanged `config.run`, else the first.
    """
    treatments, charts = analysis.treatments, chart_data.charts(analysis)
    if reference is None and treatments:
        reference = Treatment(()) if Treatment(()) in treatments else treatments[0]
    short, heading, detail = answer.partition("\n## ")
    return template.render(
        "study.html",
        package=_PACKAGE,
        scripts={"plotly": get_plotlyjs(), "study": template.read("study.js", _PACKAGE)},
        answer=markdown(short),
        detail=markdown(heading + detail),
        charts=charts,
        legends=[[(i, row.label, row.colour) for i, row in enumerate(c.layout.rows) if row.label] for c in charts],
        drawn=[[plotly_traces.panel_figure(chart, panel) for panel in chart.panels] for chart in charts],
        seeds=chart_data.seeds_text(analysis),
        bands=chart_data.bands_text(analysis),
        tables={} if reference is None else tables(analysis, reference),
        reference=reference,
        about={treatment: _about(analysis, treatment) for treatment in treatments},
        decisions=DECISIONS,
        costs=COSTS,
        missing=list(missing),
    )


def markdown(text: str) -> str:
    """Converts Markdown to safe HTML: tags are shown as text, links run no scripts, and images are left out."""
    parser = MarkdownIt("js-default")
    parser.add_render_rule("image", lambda *_: "")
    return parser.render(text)


def _about(analysis: Analysis, treatment: Treatment) -> tuple[int, float, float]:
    """Returns (seeds, negatives, negatives as a multiple of a known class), the last two as means over seeds."""
    outcomes = list(analysis.outcomes(treatment).values())
    negatives = sum(outcome.negatives for outcome in outcomes) / len(outcomes)
    times = sum(outcome.negatives / outcome.images_per_class for outcome in outcomes) / len(outcomes)
    return len(outcomes), negatives, times
