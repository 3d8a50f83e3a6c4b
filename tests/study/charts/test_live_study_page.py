"""The page of an experiment in a browser."""

import browser as browsers
import pytest
from study import made_up_arms as made_up

from openset_jax.study.charts import page

NAMES = ("<img src=x onerror=alert(1)>", '"</script>', "caf\udce9")
PAGES = {
    "usual": made_up.CASES["usual"],
    "unlike seeds": made_up.CASES["unlike seeds"],
    "apart": made_up.CASES["apart"],
    "one arm": made_up.CASES["one arm"],
    "closed set": made_up.CASES["closed set"],
    "strange names": lambda: made_up.analysis(made_up.sweep(policies=[{"sampling__policy": name} for name in NAMES])),
}
COLUMN = "return [...document.querySelectorAll('#rankings tbody tr')].map((row) => row.cells[arguments[0]].dataset.value)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsers.browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module", params=browsers.first_fast(PAGES))
def opened(request, browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    answer = "# How many?\n\n**Many.** ![chart](figure.png)\n\n| a | b |\n|---|---|\n| `1` | 2 |\n"
    path.write_text(page.render(PAGES[request.param](), answer, missing=[("an arm", "failed")]), encoding="utf-8")
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def test_all_panels_are_drawn_and_nothing_is_loaded(opened):
    drawn = opened.execute_script(
        "return [...document.querySelectorAll('.plot')].map((p) => p.querySelectorAll('.point').length)"
    )
    assert drawn and all(drawn)
    heights = "return [...document.querySelectorAll('.plot')].map((p) => [p.clientHeight, p.layout.height])"
    assert all(there >= needed for there, needed in opened.execute_script(heights))
    assert browsers.loaded_from_elsewhere(opened) == []
    assert opened.execute_script("return document.querySelectorAll('img, .plot a').length") == 0


def test_heads_sort_their_table(opened):
    head = opened.find_elements("css selector", "#rankings thead button")[3]
    for descending in (True, False):
        head.click()
        values = [float(value) for value in opened.execute_script(COLUMN, 3)]
        assert values == sorted(values, reverse=descending)


def test_legends_hide_lines(opened):
    buttons = opened.find_elements("css selector", ".legend button")
    if not buttons:
        pytest.skip("one line alone")
    visible = (
        "return document.getElementById('chart-0-0').data.filter(({meta}) => meta === 0).map((t) => t.visible !== false)"
    )
    assert all(opened.execute_script(visible))
    buttons[0].click()
    assert not any(opened.execute_script(visible)) and buttons[0].get_attribute("aria-pressed") == "false"
    buttons[0].click()
    assert all(opened.execute_script(visible))


def test_answers_of_one_decision_are_shown_at_a_time(opened):
    shown = "return [...document.querySelectorAll('#answers tbody tr:not([hidden])')].map((row) => row.dataset.by)"
    select = opened.find_element("css selector", "[data-table=answers]")
    assert set(opened.execute_script(shown)) == {"argmax"}
    select.find_element("css selector", "[value=rule]").click()
    assert set(opened.execute_script(shown)) == {"rule"}
    select.find_element("css selector", "[value='']").click()
    assert set(opened.execute_script(shown)) >= {"argmax", "rule"}
