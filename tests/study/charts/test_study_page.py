"""The content of an experiment's page, without a browser; `test_live_study_page.py` tests it in a browser."""

import json
import re

import pytest
from pages import HOSTILE, data_of, without_scripts
from study import made_up_arms as made_up
from study.made_up_arms import treatment

from openset_jax.study.charts import page
from openset_jax.study.stats.analysis import Analysis
from openset_jax.study.stats.measurements import Measurement

ANSWER = (
    "# How many?\n\nAs many as **ten times** a class.\n\n| policy | AUROC |\n|---|---:|\n| natural | 0.9 |\n\n- `code`\n"
)


def table(html, name):
    """Returns [[text of a cell, ...], ...]."""
    text = re.search(rf'<table class="sortable" id="{name}">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)[1]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL)]
    return [[re.sub(r"<small>.*?</small>", "", cell).strip() for cell in row] for row in cells]


@pytest.fixture(scope="module")
def usual():
    return made_up.CASES["usual"]()


@pytest.fixture(scope="module")
def html(usual):
    return page.render(usual, ANSWER, missing=[("sampling.negatives=700, seed 2", "out of memory")])


def test_what_is_beyond_the_first_heading_is_folded_away_below_the_figures(usual):
    html = page.render(usual, "# How many?\n\n- **Many.**\n\n## Would it?\n\nNo.\n")
    assert (
        html.index("<strong>Many.</strong>")
        < html.index('id="chart-0-0"')
        < html.index("<details>")
        < html.index("<h2>Would it?")
    )


def test_the_answer_is_at_the_top(html):
    answer = html[html.index('id="answer"') : html.index("<h2>")]
    for part in ("<h1>How many?</h1>", "<strong>ten times</strong>", "<td>natural</td>", "<code>code</code>", "<li>"):
        assert part in answer
    assert html.count("<h1") == 1 and page.render(Analysis([]), "text").count("<h1") == 1


def test_numbers_are_those_of_the_analysis(usual, html):
    plain, others = treatment(), [t for t in usual.treatments if t != treatment()]
    rows = {row[0]: row for row in table(html, "rankings")}
    assert list(rows) == [t.label for t in usual.treatments]
    auroc = Measurement("auroc", "unseen_unknowns")
    for t in usual.treatments:
        assert f"{usual.mean(t, auroc).value:.3f}" == rows[t.label][3]
    gains = {row[0]: row for row in table(html, "ranking_gains")}
    assert list(gains) == [t.label for t in others]
    for t in others:
        assert f"{usual.difference(t, plain, auroc).value:+.3f}" == gains[t.label][3]
    answers = {tuple(row[:2]): row for row in table(html, "answers")}
    recall = usual.mean(treatment(), Measurement("recall", "known", "rule"))
    assert answers["config.run unchanged", "rule"][2] == f"{recall.value:.3f}"
    assert ("sampling.negatives=0", "prior") not in answers


def test_differences_are_bold_where_they_are_clear(usual):
    html = page.render(usual, "", reference=treatment(sampling__negatives=0))
    gains = html[html.index('id="ranking_gains"') : html.index('id="answer_gains"')]
    measures = [Measurement(m, of) for of in made_up.KINDS for m in ("auroc", "oscr")] + [Measurement("accuracy", "known")]
    found = [usual.difference(t, usual.treatments[0], m) for t in usual.treatments[1:] for m in measures]
    assert gains.count('class="clear"') == sum(d.low > 0 or d.high < 0 for d in found) > 0


def test_missing_arms_are_listed_with_why(html):
    assert re.search(r'id="missing".*seed 2</th><td class="text">out of memory', html, re.DOTALL)


def test_charts_have_lines_bands_and_dots(usual, html):
    (panels,) = data_of(html)
    assert len(panels) == 7
    traces = panels[0]["data"]
    drawn = [t for t in traces if t["mode"] == "lines+markers"]
    assert len(drawn) == 2 and sum("fill" in t for t in traces) == 2
    point = usual.mean(treatment(sampling__negatives="1x"), Measurement("auroc", "unseen_unknowns"))
    assert drawn[0]["y"][1] == point.value
    assert f"{point.value:.3f} ({point.low:.3f} to {point.high:.3f})" in drawn[0]["text"][1]
    assert "seeds: 0." in drawn[0]["text"][1]


def test_it_is_one_file_that_loads_nothing(html):
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=(?!\"data:)", without_scripts(html))
    assert "url(" not in without_scripts(html) and "@import" not in without_scripts(html)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_equal_arms_make_equal_pages(usual):
    assert page.render(made_up.CASES["usual"](), ANSWER) == page.render(usual, ANSWER)


@pytest.mark.parametrize("name", made_up.CASES)
def test_any_arms_make_a_page(name):
    html = page.render(made_up.CASES[name](), ANSWER)
    assert data_of(html) and table(html, "rankings")


def test_without_arms_it_says_so_and_lists_what_is_missing():
    html = page.render(Analysis([]), ANSWER, missing=[("a", "b")])
    assert "No arm is finished" in html and data_of(html) == [] and 'id="missing"' in html


def test_names_are_escaped():
    arms = made_up.sweep(policies=[{"sampling__policy": name} for name in HOSTILE])
    arms += [treatment(model__stem=name) for name in HOSTILE]
    answer = "# <script>alert(2)</script>\n\n[x](javascript:alert(1)) ![y](http://z/p.png)\n\n" + HOSTILE[3]
    html = page.render(made_up.analysis(arms, seeds=1), answer, missing=[(HOSTILE[0], HOSTILE[1])])
    assert html.encode("utf-8")
    assert "<script>alert" not in html and html.count("</script>") == 3
    assert '" onload=' not in without_scripts(html)
    assert 'href="javascript' not in html and "<img" not in without_scripts(html)
    drawn = json.dumps(data_of(html))
    assert "alert" in drawn and "<script" not in drawn and "&lt;script&gt;" in drawn  # Plotly reads tags in text


def test_one_known_class_has_no_columns_that_it_does_not_need():
    arms = [
        made_up.outcome(treatment(sampling__negatives=n), seed, classes=("cat",)) for n in (700, 7000) for seed in (0, 1)
    ]
    html = page.render(Analysis(arms), ANSWER)
    assert "AUROC, seen negatives" in html and "known images accepted" in html
    assert not any(text in html for text in ("OSCR", "class right", "accuracy among the known classes"))
