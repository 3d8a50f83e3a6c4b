"""Starting from another run's network: which outputs are kept, which are new, and which networks are refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from small_run import assert_same_run, lines, restore_and_evaluate, saved_arrays, small_config, small_spec, train

from openset_jax.errors import Stopped, UserError
from openset_jax.predict import Predictor
from openset_jax.training import checkpoints, progress, state
from openset_jax.training.run_cache import RunCache
from openset_jax.training.warm_start import warm_start


def made_up(spec, classes, seed):
    """Variables of the network with random numbers by the seed."""
    model, rng = RunCache().network(spec.program, len(classes)).model, np.random.default_rng(seed)
    like = jax.eval_shape(lambda: state.initial_variables(model, seed=0, shape=spec.inputs.shape))
    return jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), like)


def save_a_run(workdir, classes, **changes):
    """Writes checkpoints of random networks: the best at step 3, another at 5. Returns the variables of step 3."""
    spec = small_spec(workdir, **changes)
    saved = checkpoints.Checkpoints(workdir, writing=True)
    record = {"config": spec.record, "classes": list(classes), "fingerprint": "", "counts": {}, "prior": []}
    for step, seed in ((3, 11), (5, 12)):
        made = state.TrainState(np.int32(step), **made_up(spec, classes, seed), opt_state={})
        saved.save(step, made, record | {"progress": vars(progress.Progress(best_step=3))}, best=3)
    saved.close()
    return made_up(spec, classes, 11)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """(workdir, variables) of a run on cat, dog, car and "none", with batch normalisation."""
    workdir = tmp_path_factory.mktemp("source")
    return workdir, save_a_run(workdir, ("cat", "dog", "car"), **{"model.norm": "batch"})


def start(workdir, classes, **changes):
    """(variables that start from the run's, the same without a warm start, the message)."""
    spec = small_spec(**{"model.norm": "batch", "init_from": str(workdir)} | changes)
    given, own = made_up(spec, classes, 1), made_up(spec, classes, 1)
    variables, said = warm_start(given, spec, classes)
    jax.tree.map(np.testing.assert_array_equal, given, own)  # the arguments are not written to
    return variables, own, said


@pytest.mark.parametrize(
    ("classes", "objective", "came_from", "says"),
    [
        (("cat", "dog", "car"), "background", [0, 1, 2, 3], "4 outputs by class name."),
        (("car", "cat", "dog"), "background", [2, 0, 1, 3], "4 outputs by class name."),
        (("tree", "car"), "background", [None, 2, 3], "2 outputs by class name; new: tree; left out: cat, dog."),
        (("dog", "cat"), "softmax", [1, 0], '2 outputs by class name; left out: car, "none".'),
        (("x", "cat"), "entropic", [None, 0], '1 outputs by class name; new: x; left out: dog, car, "none".'),
    ],
)  # fmt: skip
def test_outputs_are_kept_by_the_name_of_their_class(source, classes, objective, came_from, says):
    workdir, theirs = source
    variables, own, said = start(workdir, classes, **{"objective.name": objective})
    for name, values in variables["params"]["fc8"].items():
        old, new = theirs["params"]["fc8"][name], own["params"]["fc8"][name]
        columns = [new[..., i] if j is None else old[..., j] for i, j in enumerate(came_from)]
        np.testing.assert_array_equal(values, np.stack(columns, -1))
    assert said == f"Starting from the network of {workdir} at step 3: the layers below fc8 are copied, and {says}"


def test_all_other_layers_and_the_statistics_are_those_of_the_best_checkpoint(source):
    workdir, theirs = source
    variables, own, _ = start(workdir, ("x", "cat"))
    assert variables.keys() == theirs.keys()
    for kind, layers in theirs.items():
        assert variables[kind].keys() == layers.keys()
        for layer, values in layers.items():
            if layer != "fc8":
                jax.tree.map(np.testing.assert_array_equal, variables[kind][layer], values)
    assert not np.array_equal(theirs["batch_stats"]["bn1"]["mean"], own["batch_stats"]["bn1"]["mean"])


def test_a_run_without_none_gives_its_classes_and_none_is_new(tmp_path):
    save_a_run(tmp_path, ("cat", "dog"), **{"objective.name": "softmax"})
    variables, own, said = start(tmp_path, ("dog", "cat"), **{"model.norm": "none"})
    np.testing.assert_array_equal(variables["params"]["fc8"]["kernel"][:, 2], own["params"]["fc8"]["kernel"][:, 2])
    assert said.endswith('2 outputs by class name; new: "none".')


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.width": 0.125}, r"init_from: batch_stats/bn1/mean .* \(4,\) .* \(8,\) here; use model.width=0.0625$"),
        ({"model.name": "alexnet_2012"}, r"init_from: .* has the shape .*; use model.name=alexnet$"),
        ({"model.norm": "none"}, "model.norm: the run in init_from, .*, has 'batch', this one 'none'"),
        ({"data.image_size": 15}, "data.image_size: the run in init_from, .*, has 16, this one 15"),
        ({"data.mean": (0.3, 0.3, 0.4)}, "data.mean: the run in init_from"),
        ({"data.std": (0.3, 0.3, 0.4)}, "data.std: the run in init_from"),
        ({"data.grey": True}, "data.grey: the run in init_from"),
    ],
)
def test_another_network_below_its_outputs_is_refused_by_field(source, changes, says):
    workdir, _ = source
    with pytest.raises(UserError, match=f"^{says}"):
        start(workdir, ("cat", "dog"), **changes)


def test_another_stem_is_refused_by_its_layer(tmp_path):
    size = {"data.stored_size": 64, "data.image_size": 64}
    save_a_run(tmp_path, ("cat", "dog"), **size)
    with pytest.raises(UserError, match="^init_from: params/conv1/kernel has the shape .*; use model.stem=small$"):
        start(tmp_path, ("cat", "dog"), **size, **{"model.norm": "none", "model.stem": "imagenet"})


def test_normalisation_without_parameters_must_be_the_same_too(tmp_path):
    save_a_run(tmp_path, ("a", "b"), **{"model.norm": "local_response"})
    with pytest.raises(UserError, match="model.norm: .* has 'local_response', this one 'none'"):
        start(tmp_path, ("a", "b"), **{"model.norm": ""})


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere", "does not exist; use the folder of a run, a file"),
        ("folder", "has no checkpoints"),
        ("a.bin", "is not a file of weights; use"),
    ],
)
def test_a_start_that_is_not_there_is_refused_before_training(tmp_path, name, problem):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.bin").touch()
    with pytest.raises(UserError, match=f"^init_from: '{tmp_path / name}' {problem}"):
        train(small_config(init_from=str(tmp_path / name)), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_warm_started_run_resumes_evaluates_and_predicts_without_the_other_run(tmp_path, capsys):
    """All layers but the head are frozen; such a run, stopped and resumed, equals an uninterrupted one."""
    elsewhere, whole, stopped = (tmp_path / name for name in ("elsewhere", "whole", "stopped"))
    for folder in (whole, stopped):
        folder.mkdir()
    theirs = save_a_run(elsewhere, ("4", "1", "2"))
    config = small_config(init_from=str(elsewhere), trainable="head")
    train(config, whole)
    assert "outputs by class name; new: 0, 3." in capsys.readouterr().out
    asked = iter(range(10**6))
    with pytest.raises(Stopped, match="at step 5"):
        train(config, stopped, lambda: "the test" if next(asked) >= 5 else "")
    shutil.rmtree(elsewhere)
    result = train(config, stopped)
    assert_same_run(stopped, whole)
    assert json.loads((stopped / "config.json").read_text())["init_from"] == str(elsewhere)
    after = saved_arrays(stopped)
    for layer in ("conv1", "conv5", "fc7"):
        np.testing.assert_array_equal(after[f".params['{layer}']['kernel']"], theirs["params"][layer]["kernel"])
    assert lines(stopped)[0]["learning_rate"] > 0
    assert restore_and_evaluate(stopped) == result
    Image.new("L", (16, 16)).save(tmp_path / "black.png")
    (row,) = Predictor(stopped)([str(tmp_path / "black.png")])
    assert row["decision"] in ("0", "1", "2", "3", "4", "none")
