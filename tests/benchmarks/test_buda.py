"""Claims about class imbalance: opposite results give opposite verdicts; and reading the folder of a real experiment."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from small_run import run, small_config
from study import made_up

from benchmarks import buda, buda_claims, buda_study, buda_verdicts
from benchmarks.buda_study import BALANCED, BASELINE, DIVIDED, OVER, TWO_PHASE, UNDER, Network, Study
from benchmarks.buda_verdicts import CONFIRMED, NOT_CONFIRMED, NOT_TESTED
from configs import buda_mnist
from openset_jax.data import imbalance
from openset_jax.openset.metrics.intervals import Interval
from openset_jax.openset.scores.logit_scores import softmax
from openset_jax.study.runs import arm_folder

K, LARGEST, PER_CLASS = 10, 1_000, 30
SHARES, RATIOS = (0.2, 0.8), (10, 100)
FIELDS = {
    BASELINE: {},
    OVER: {"sampling.policy": "oversample"},
    UNDER: {"sampling.policy": "undersample"},
    TWO_PHASE[OVER]: {"sampling.policy": "two_phase", "trainable": "fc"},
    TWO_PHASE[UNDER]: {"sampling.policy": "two_phase", "sampling.first_policy": "undersample", "trainable": "fc"},
}


def harm(method, mu, rho):
    """The distance from a good network, as in the paper: it grows with rho and mu; of undersampling with rho alone."""
    rate = np.log10(rho)
    own = {BASELINE: 0.6 * rate * (0.5 + mu), OVER: 0.2 * rate * (0.5 + mu), UNDER: 0.6 * rate * 1.8}
    return own[method] if method in own else (own[BASELINE] + own[OVER if method == TWO_PHASE[OVER] else UNDER]) / 2


def leans(method):
    """The share of the log prior in the outputs: 1, unless batches are balanced."""
    return 0.0 if method in (OVER, UNDER) else 1.0


def outcome(method, text, seed, *, harm=harm, leans=leans, easy=3.0):
    """An arm: the true class has a logit, reduced by `harm`; plus noise that all arms share, and the log prior."""
    asked = imbalance.parse(text)
    made = made_up.outcome(FIELDS[method] | {imbalance.FIELD: text}, seed, closed=True, images=PER_CLASS)
    label = np.repeat(np.arange(K), PER_CLASS)
    sizes = imbalance.sizes(asked, LARGEST, K)
    mu = -0.45 if asked.mu is None else asked.mu  # linear imbalance barely harms
    bias = np.log(np.array(sizes) / sum(sizes)) * (asked.mu is not None)
    noise = np.random.default_rng(0).normal(size=(len(label), K))
    noise = noise + 0.05 * np.random.default_rng([1, seed, len(text), len(method)]).normal(size=noise.shape)
    logits = (easy - harm(method, mu, asked.rho)) * np.eye(K)[label] + noise + leans(method) * bias
    p, effective = softmax(logits), softmax(logits - leans(method) * bias)
    scored = dataclasses.replace(
        made.scored, label=label, group=np.array(list("abcdefghij"), object)[label], score=-p.max(1), known_class=p.argmax(1)
    )
    return dataclasses.replace(
        made, classes=tuple("abcdefghij"), class_sizes=tuple(sizes), scored=scored, probabilities=p.astype(np.float32),
        decisions={"argmax": p.argmax(1), "prior": effective.argmax(1), "rule": p.argmax(1)},
        key=np.random.default_rng(5).integers(0, 2**63, len(label)).astype(np.uint64),
        deployment=np.full(K + 1, 1 / (K + 1)), costs=1.0 - np.eye(K + 1),
    )  # fmt: skip


def study(name="MNIST", *, seeds=3, shares=SHARES, ratios=RATIOS, linear=("linear:rho=100",), methods=FIELDS, **world):
    steps = buda_mnist.steps_of(shares, ratios)
    which = [(method, text) for method in methods for text in steps]
    which += [(BASELINE, text) for text in ("step:mu=0.5,rho=1", *linear)]
    return Study(name, [outcome(method, text, seed, **world) for method, text in which for seed in range(seeds)])


def verdicts(of):
    return {claim.name: claim.verdict for claim in buda_claims.claims(of)}


@pytest.fixture(scope="module")
def as_published():
    return study(shares=(0.2, 0.5, 0.8))


def opposite(method, mu, rho):
    """Worse with smaller rho and mu; oversampling harms; undersampling depends on mu; two-phase is worse than both."""
    rate = np.log10(rho)
    if method == BASELINE:
        return 1.5 - 0.5 * rate * (0.5 + mu) if rho > 1 else 1.6
    return {OVER: 1.9, UNDER: 0.4 * mu, TWO_PHASE[OVER]: 2.5, TWO_PHASE[UNDER]: 2.5}[method]


def test_a_world_as_published_confirms_what_can_be_tested(as_published):
    found = verdicts(as_published)
    expected = dict.fromkeys(found, CONFIRMED) | {"B7": NOT_TESTED, "B9": NOT_TESTED}
    expected |= {"B6, oversampling": NOT_CONFIRMED, "B4, ties": NOT_CONFIRMED}  # trap b; and undersampling never ties
    assert found == expected


def test_an_opposite_world_confirms_the_opposite():
    found = verdicts(study(shares=(0.2, 0.5, 0.8), harm=opposite, leans=lambda method: 0.0 if method == BASELINE else 1.0))
    kept = {name for name, verdict in found.items() if verdict == CONFIRMED}
    assert kept == {"B6, oversampling", "trap a", "B8, linear"}, "outputs lean after oversampling alone"
    assert {found[name] for name in ("B3", "B5, oversampling", "B6, baseline", "trap b, oversampling")} == {NOT_CONFIRMED}


def test_undersampling_that_ties_only_where_imbalance_is_extreme():
    def ties(method, mu, rho):
        return harm(OVER if (method, mu, rho) == (UNDER, 0.8, 100) else method, mu, rho)

    assert verdicts(study(harm=ties))["B4, ties"] == CONFIRMED
    assert verdicts(study(harm=lambda method, mu, rho: harm(OVER, mu, rho)))["B4, ties"] == NOT_CONFIRMED


def test_differences_that_drown_in_noise_confirm_nothing_about_what_is_and_say_what_is_hidden():
    of = study(harm=lambda *_: 0.0, leans=lambda _: 0.0)
    claims = {claim.name: claim for claim in buda_claims.claims(of)}
    assert claims["B1, rho"].verdict == claims["B4, baseline"].verdict == NOT_CONFIRMED
    assert claims["B3"].verdict == CONFIRMED and "the intervals allow up to" in claims["B3"].reason


def test_one_seed_and_absent_arms_are_not_a_test():
    one = verdicts(study(seeds=1))
    assert set(one.values()) - {NOT_TESTED} <= {CONFIRMED} and one["trap a"] == CONFIRMED, "that AUC is unchanged is exact"
    assert one["B3"] == one["B8, linear"] == one["B1, mu"] == NOT_TESTED
    without = verdicts(study(methods=(BASELINE, UNDER)))
    assert without["B3"] == without["B5, oversampling"] == without["B4, ties"] == NOT_TESTED
    assert without["B4, baseline"] == CONFIRMED


def test_how_far_two_data_sets_are_apart():
    cifar = study("CIFAR-10", easy=2.0, linear=(), methods=(BASELINE,))
    far = study(ratios=(10, 100, 1_000), methods=(BASELINE,), harm=lambda *of: 0.1 * harm(*of))
    near = study(ratios=(10, 100, 1_000), methods=(BASELINE,), easy=2.0)
    assert buda_claims.scale(far, cifar).verdict == CONFIRMED
    assert "more than 100 times are needed" in buda_claims.scale(far, cifar).reason
    assert buda_claims.scale(near, cifar).verdict == NOT_CONFIRMED
    assert buda_claims.scale(study(ratios=(20,), methods=(BASELINE,)), cifar).verdict == NOT_TESTED


def test_dividing_by_priors_is_by_those_before_sampling(as_published):
    own = outcome(BASELINE, "step:mu=0.2,rho=10", 0)
    plain, again = (buda_study.divided(own, renormalise=renormalise) for renormalise in (False, True))
    np.testing.assert_array_equal(plain.decisions["argmax"], own.decisions["prior"])
    np.testing.assert_array_equal(again.decisions["argmax"], own.decisions["prior"])
    np.testing.assert_allclose(again.probabilities.sum(1), 1)
    np.testing.assert_allclose(plain.probabilities[:, 0] / plain.probabilities[:, -1],
                               10 * own.probabilities[:, 0] / own.probabilities[:, -1], rtol=1e-5)  # fmt: skip
    at = imbalance.parse("step:mu=0.2,rho=10")
    assert as_published.difference(Network(BASELINE, at, DIVIDED), Network(BASELINE, at)) == (0, 0, 0)
    assert as_published.difference(Network(BASELINE, at, "renormalised"), Network(BASELINE, at)).value != 0


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 0.05, 0.15), (0.2, 0.1, 0.3)], (CONFIRMED, CONFIRMED, CONFIRMED, NOT_CONFIRMED)),
        ([(0.1, 0.05, 0.15), (0.2, 0.1, 0.3), (0.0, -0.01, 0.01)], (NOT_CONFIRMED, CONFIRMED, CONFIRMED, NOT_CONFIRMED)),
        ([(0.1, 0.05, 0.15), (0.2, 0.1, 0.3), (-0.1, -0.2, -0.01)], (NOT_CONFIRMED,) * 4),
        ([(0.0, -0.01, 0.01), (0.0, -0.02, 0.04)], (NOT_CONFIRMED, NOT_CONFIRMED, CONFIRMED, CONFIRMED)),
        ([(0.0, -0.2, 0.2)], (NOT_CONFIRMED,) * 4),
        ([(0.1, -np.inf, np.inf)], (NOT_TESTED,) * 4),
        ([], (NOT_TESTED,) * 4),
    ],
)
def test_judges(intervals, expected):
    differences = {str(i): Interval(*interval) for i, interval in enumerate(intervals)}
    judges = (buda_verdicts.everywhere, buda_verdicts.mostly, buda_verdicts.never_below, buda_verdicts.alike)
    assert tuple(judge(differences)[0] for judge in judges) == expected


def test_the_tables_are_of_the_studies_and_the_same_each_time(as_published, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        buda.write(tmp_path / name, {"MNIST": as_published}, {"MNIST": (2, 50)})
    text = (tmp_path / "one/buda.md").read_text()
    assert text == (tmp_path / "two/buda.md").read_text() and text in capsys.readouterr().out
    assert "MNIST: 2 of 50 arms are not finished." in text
    assert "| mu=0.2, rho=10 | " in text and "| equal classes | " in text and "| linear, rho=100 | " in text
    saved = json.loads((tmp_path / "one/buda.json").read_text())
    mean = as_published.mean(Network(OVER, imbalance.parse("step:mu=0.8,rho=100")))
    assert saved["auc"]["MNIST"]["mu=0.8, rho=100"][OVER] == list(mean)
    assert saved["auc"]["MNIST"]["equal classes"][OVER] is None
    assert next(c for c in saved["claims"] if c["name"] == "B2")["verdict"] == NOT_TESTED
    assert {c["name"] for c in saved["claims"]} >= {f"B{i}" for i in (2, 3, 7, 9)}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(the folder of a real small experiment on digits: some methods at one imbalance, two seeds; its arms)."""
    import ml_collections

    from openset_jax import config as configs
    from openset_jax import experiment as experiments
    from openset_jax.study.runs import arm_run, check, grid
    from openset_jax.training.run_cache import RunCache

    config, workdir, cache = ml_collections.ConfigDict(), tmp_path_factory.mktemp("buda"), RunCache()
    config.run = run = small_config(**{"input": "resident", "optimizer.learning_rate": 3e-3})
    run.data.known = run.data.known.copy_and_resolve_references()
    run.data.negatives = run.data.held_out_negatives = run.data.unknown = None
    buda_mnist.train(run, steps=40, width=0.0625)
    config.seeds, config.grid = (0, 1), buda_mnist.methods(("step:mu=0.5,rho=4",), ("linear:rho=4",))
    arms = grid.arms_of(config)
    folder = {arm: workdir / "arms" / arm.name for arm in arms}
    phases = {arm: configs.resolve(grid.config_of(arm, run, {}), folder[arm]) for arm in arms}
    check.check_grid(arms, phases, cache)
    fingerprint = cache.pool(phases[arms[0]][-1]).fingerprint()
    experiments._check_same(configs.with_dtype(run), config, fingerprint, workdir, write=True)
    runs = arm_run.ArmRuns(folder, lambda: "", cache)
    for arm in arms[:-1]:
        runs.run([arm], phases)
    assert not runs.failed
    return workdir, arms


@pytest.mark.slow
def test_a_real_experiment_is_read_from_its_folder_and_summed_up(experiment, tmp_path):
    from openset_jax.study.answer import answer_markdown
    from openset_jax.study.stats import csv_tables
    from openset_jax.study.stats.analysis import Analysis

    workdir, arms = experiment
    outcomes, missing = arm_folder.read_outcomes(workdir)
    assert [arm.label for arm in missing] == [arms[-1].label]
    assert [(o.treatment, o.seed) for o in outcomes] == [(arm.treatment, arm.seed) for arm in arms[:-1]]
    sizes = {o.treatment.get("sampling.imbalance"): sorted(o.class_sizes) for o in outcomes}
    of = Study("digits", outcomes)
    assert of.points and len(of.linear) == 1 and BALANCED not in of.points
    small = sizes["step:mu=0.5,rho=4"]
    assert small[0] == round(small[-1] / 4) and len(set(sizes["step:mu=0.5,rho=1"])) == 1
    for method in FIELDS:
        assert of.mean(Network(method, of.points[0])) is not None, method
    analysis = Analysis(outcomes)
    csv_tables.write_results(analysis, tmp_path / "results.csv")
    csv_tables.write_comparisons(analysis, tmp_path / "comparisons.csv")
    text = answer_markdown.answer(analysis)
    assert "known one-vs-rest AUC" in text and "## Does sampling.imbalance matter?" in text
    assert "sampling.policy=oversample, trained again, compared with the natural run: both by argmax" in text


@pytest.mark.slow
def test_the_command(experiment, tmp_path):
    workdir, _ = experiment
    done = run([sys.executable, "-m", "benchmarks.buda", f"--mnist={workdir}", f"--out={tmp_path}"])
    assert done.returncode == 0, done.stderr
    assert "MNIST: 1 of 14 arms are not finished." in done.stdout
    assert done.stdout.strip() == (tmp_path / "buda.md").read_text().strip()
    refused = run([sys.executable, "-m", "benchmarks.buda", f"--out={tmp_path}"])
    assert refused.returncode and "--mnist, --cifar10: neither is given" in refused.stderr
