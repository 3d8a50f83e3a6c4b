"""The page in a real browser: its numbers equal Python's, before and after its inputs change."""

import dataclasses

import browser as browsers
import numpy as np
import pytest
from report import made_up

from openset_jax.openset.decision import prior_and_costs, thresholds
from openset_jax.openset.decision.posterior import correct_prior
from openset_jax.openset.decision.thresholds import Threshold
from openset_jax.openset.metrics import evaluation
from openset_jax.report import page

TABLE = np.array([[0, 1, 4, 2], [3, 0, 1, 1], [0.5, 2, 0, 1], [6, 2, 3, 0.0]])
PAGES = {
    "plain": {},
    "strange names and a table of costs": {
        "num_classes": 3,
        "classes": ("<img src=x onerror=alert(1)>", '"</script>', "caf\udce9"),
        "costs": TABLE,
    },
    "many classes": {"num_classes": 26, "knowns": 20},
    "one class": {"num_classes": 1},
    "no probabilities": {
        "silent": True,
        "kinds": {"seen_negatives": ["n"], "unseen_unknowns": []},
        "threshold": Threshold(-np.inf, -np.inf, np.inf, 1, 1, None),
    },
}
SET = """
  for (const [selector, value] of Object.entries(arguments[0])) {
    const [query, place] = selector.split("@"), input = document.querySelectorAll(query)[Number(place || 0)];
    input.value = value;
    input.dispatchEvent(new Event("input"));
  }
"""
READ = """
  const values = {}, cells = [...document.querySelectorAll("#confusion [data-count]")];
  for (const cell of document.querySelectorAll("[data-now]")) values[cell.dataset.now] = cell.dataset.value;
  return [values, cells.map((cell) => Number(cell.dataset.count))];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsers.browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module", params=browsers.first_fast(PAGES))
def loaded(request, browser, tmp_path_factory):
    given = made_up.arguments(**PAGES[request.param])
    rest = {name: value for name, value in given.items() if name not in ("result", "scored")}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(given["result"], given["scored"], **rest), encoding="utf-8")
    browser.get(path.as_uri())
    yield browser, given
    assert browser.get_log("browser") == []


@pytest.fixture
def opened(loaded):
    """(browser with the page as it was at first, what `page.render` was given)."""
    loaded[0].execute_script("document.getElementById('reset').click()")
    return loaded


def shown(browser):
    values, counts = browser.execute_script(READ)
    return {key: float(value) if value else None for key, value in values.items()}, counts


def change(browser, **inputs):
    """Types into inputs: threshold, slider, prior_K, cost_K."""
    names = {"threshold": "#threshold", "slider": "#slider"}
    selector = lambda name: names.get(name) or "#{}s input@{}".format(*name.split("_")).replace("priors", "prior")
    browser.execute_script(SET, {selector(name): value for name, value in inputs.items()})


def python_says(given, **changes):
    fitted = dataclasses.replace(given["classifier"], **changes)
    scored, best = given["scored"], given["scored"].known_class
    if given["fitted_posterior"] is not None:
        corrected = correct_prior(given["fitted_posterior"], fitted.fitted_prior, fitted.prior)
        best = thresholds.cheapest_class(corrected, fitted.costs)
    decided = thresholds.decide(scored.score, best, fitted.threshold.value, len(fitted.classes))
    scored = dataclasses.replace(scored, decision=decided)
    given = {"classes": fitted.classes, "kinds": given["kinds"], "classifier": fitted}
    return evaluation.operating_point(scored, **given, promised=False)


def check(browser, given, expected):
    values, counts = shown(browser)
    point = expected["operating_point"]
    table, k = np.array(expected["confusion"]["counts"]), len(given["classifier"].classes)
    if k > 25:  # the pairs confused most
        table[np.arange(len(table)), np.minimum(np.arange(len(table)), k)] = 0
        table = np.sort(table.ravel())[::-1][:15]
        table = table[table > 0]
    assert counts == table.ravel().tolist()
    value = lambda number: number and number["value"]
    for name in ("known_recall", "known_accuracy", "accuracy_of_accepted_knowns")[: 1 if k == 1 else None]:
        assert values[name] == value(point[name])
    for kind in given["kinds"]:
        assert values[f"rejected.{kind}"] == value(point["rejected"][kind])
        cost = value(point["expected_cost"][kind])
        assert values[f"expected_cost.{kind}"] == (cost if cost is None else pytest.approx(cost, rel=1e-12))


def at(value):
    return Threshold(value, value, value, 1, 1, None)


def test_numbers_are_those_of_metrics_json(opened):
    check(*opened, opened[1]["result"])


def test_the_threshold_moves_them(opened):
    browser, given = opened
    score = np.unique(given["scored"].score)
    for place in (0, 1, len(score) // 3, len(score) // 2, len(score)):  # 0: none is accepted
        change(browser, slider=place)
        value = score[place - 1] if place else -np.inf
        assert float(browser.execute_script("return document.getElementById('threshold').value")) == value
        check(browser, given, python_says(given, threshold=at(value)))
    for value in (float(score[7]), float(np.nextafter(score[7], -np.inf)), 0.25, "inf"):
        change(browser, threshold=repr(value) if isinstance(value, float) else value)
        check(browser, given, python_says(given, threshold=at(float(value))))


def test_costs_move_them(opened):
    browser, given = opened
    for costs in ((5, 1, 1), (0.5, 2, 0.25), (1, 0, 3)):
        change(browser, **{f"cost_{j}": cost for j, cost in enumerate(costs)})
        matrix = prior_and_costs.cost_matrix(
            dict(zip(prior_and_costs.COSTS, costs, strict=True)), given["classifier"].classes
        )
        check(browser, given, python_says(given, costs=matrix))


def test_priors_move_them(opened):
    browser, given = opened
    k = len(given["classifier"].classes)
    if k > 12:
        priors = [
            prior_and_costs.deployment_prior({"none": p}, given["classifier"].classes, given["classifier"].prior)
            for p in (0.8, 0.0)
        ]
    else:
        rng = np.random.default_rng(0)
        priors = [*rng.dirichlet(np.full(k + 1, 0.5), 3), np.eye(k + 1)[0] * 0.7 + np.eye(k + 1)[k] * 0.3]
    for prior in priors:
        inputs = {"prior_0": prior[-1]} if k > 12 else {f"prior_{j}": p for j, p in enumerate(prior)}
        change(browser, threshold="0.1", **{name: repr(float(p)) for name, p in inputs.items()})
        check(browser, given, python_says(given, threshold=at(0.1), prior=prior))


def test_all_of_them_together_and_back(opened):
    browser, given = opened
    prior = np.append(np.full(len(given["classifier"].classes), 0.1 / len(given["classifier"].classes)), 0.9)
    inputs = [*prior] if len(prior) <= 13 else [0.9]
    change(
        browser, slider=40, cost_0=9, cost_1=2, cost_2=0.5, **{f"prior_{j}": repr(float(p)) for j, p in enumerate(inputs)}
    )
    costs = prior_and_costs.cost_matrix(
        dict(zip(prior_and_costs.COSTS, (9, 2, 0.5), strict=True)), given["classifier"].classes
    )
    threshold = at(np.unique(given["scored"].score)[39])
    check(browser, given, python_says(given, threshold=threshold, prior=prior, costs=costs))
    browser.execute_script("document.getElementById('reset').click()")
    check(browser, given, given["result"])


@pytest.mark.parametrize(
    "wrong", [{"prior_0": "1.5"}, {"prior_0": "-0.1"}, {"prior_0": ""}, {"cost_1": "-1"}, {"threshold": "x"}]
)
def test_what_is_invalid_is_said_and_changes_nothing(opened, wrong):
    browser, _ = opened
    before = shown(browser)
    change(browser, **wrong)
    error = browser.find_element("id", "error")
    assert error.is_displayed() and "the numbers use the last valid input" in error.text
    assert shown(browser) == before
    browser.execute_script("document.getElementById('reset').click()")
    assert not error.is_displayed()


def test_a_prior_that_does_not_sum_to_1_can_be_scaled(opened):
    browser, given = opened
    k = len(given["classifier"].classes)
    if k > 12:
        pytest.skip("the rest is shared: it always sums to 1")
    change(browser, **{f"prior_{j}": 0.7 for j in range(k + 1)})
    assert "must sum to 1; it sums to" in browser.find_element("id", "error").text
    browser.execute_script("document.getElementById('scale').click()")
    check(browser, given, python_says(given, prior=np.full(k + 1, 1 / (k + 1))))


def test_keys_move_the_slider(opened):
    browser, given = opened
    change(browser, slider=10)
    browser.find_element("id", "slider").send_keys("\ue014")  # arrow to the right
    check(browser, given, python_says(given, threshold=at(np.unique(given["scored"].score)[10])))


def test_points_and_lines_follow(opened):
    browser, given = opened
    value = float(np.median(given["scored"].score))
    change(browser, threshold=repr(value))
    point = python_says(given, threshold=at(value))["operating_point"]
    drawn = browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(Object.fromEntries("
        "['roc', 'oscr', 'cost', 'histogram'].filter((name) => document.getElementById(name))"
        ".map((name) => [name, document.getElementById(name).data"
        ".filter(({meta}) => meta).map(({meta, x, y}) => ({meta, x: [...x], y: [...y]}))])))))"
    )
    of = lambda name, meta: next(trace for trace in drawn[name] if trace["meta"] == meta)
    accepted = 1 - point["rejected"]["seen_negatives"]["value"]
    assert of("roc", {"point": "seen_negatives"})["x"] == [pytest.approx(accepted)]
    assert of("roc", {"point": "seen_negatives"})["y"] == [point["known_recall"]["value"]]
    if "oscr" in drawn:
        assert of("oscr", {"point": "seen_negatives"})["y"] == [point["known_accuracy"]["value"]]
    assert ("oscr" in drawn) == (len(given["classifier"].classes) > 1)
    assert of("histogram", {"threshold": True})["x"] == [value, value]
    cost = point["expected_cost"]["seen_negatives"]["value"]
    assert of("cost", {"point": "seen_negatives"})["y"] == [pytest.approx(cost)]
    curve = of("cost", {"cost": "seen_negatives"})
    place = np.searchsorted(curve["x"], value, side="right") - 1
    assert curve["y"][place] == pytest.approx(cost, abs=0.02)
    assert curve["y"][-1] == pytest.approx(
        python_says(given, threshold=at(np.inf))["operating_point"]["expected_cost"]["seen_negatives"]["value"]
    )


def test_names_are_text_and_nothing_is_loaded(opened):
    browser, given = opened
    assert browsers.loaded_from_elsewhere(browser) == []
    assert browser.execute_script("return document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
    if len(given["classifier"].classes) <= 25:
        heads = browser.execute_script(
            "return [...document.querySelectorAll('#confusion thead th')].map((th) => th.textContent.toWellFormed())"
        )
        names = [name.replace("\udce9", "\ufffd") for name in given["classifier"].classes]
        assert heads == ["truth", *names, "none"]
