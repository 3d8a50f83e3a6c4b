"""Beginning with another run's network: what is kept, what is new, and what cannot be."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from small_run import assert_same_run, lines, saved_arrays, small_config

from openset_jax import build
from openset_jax import config as configs
from openset_jax.errors import Stopped, UserError
from openset_jax.evaluate import restore_and_evaluate
from openset_jax.predict import Predictor
from openset_jax.train import train
from openset_jax.training import checkpoints, progress, state
from openset_jax.training.run_cache import Workshop
from openset_jax.training.warm_start import begin_with


def made_up(config, classes, seed):
    """(variables of the network with numbers by the seed, whether there is an output for "none")."""
    model, rng = build.make_model(config, len(classes)), np.random.default_rng(seed)
    like = jax.eval_shape(lambda: state.initial_variables(model, seed=0, image_size=config.data.image_size))
    variables = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), like)
    return variables, model.num_outputs > len(classes)


def leave_a_run(workdir, classes, **changes):
    """The checkpoints of a run that was never trained: the best at step 3, another at 5; the variables of the first."""
    config = small_config(**changes)
    saved = checkpoints.Checkpoints(workdir, writing=True)
    meta = {"config": configs.to_json(config), "classes": list(classes), "fingerprint": "", "prior": []}
    for step, seed in ((3, 11), (5, 12)):
        variables, _ = made_up(config, classes, seed)
        made = state.TrainState(np.int32(step), **variables, opt_state={})
        saved.save(step, made, meta | {"progress": vars(progress.Progress(best_step=3))}, best=3)
    saved.close()
    return made_up(config, classes, 11)[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """(workdir, variables) of a run on cat, dog, car and "none", with batch normalisation."""
    workdir = tmp_path_factory.mktemp("source")
    return workdir, leave_a_run(workdir, ("cat", "dog", "car"), **{"model.norm": "batch"})


def begin(workdir, classes, **changes):
    """(variables that begin with the run's, those that they would be without, what is said)."""
    config = small_config(**{"model.norm": "batch"} | changes)
    given, none_output = made_up(config, classes, 1)
    variables, said = begin_with(given, workdir, config=config, classes=classes, none_output=none_output)
    own, _ = made_up(config, classes, 1)
    jax.tree.map(np.testing.assert_array_equal, given, own)  # what was given is not written to
    return variables, own, said


@pytest.mark.parametrize(
    ("classes", "objective", "came_from", "says"),
    [
        (("cat", "dog", "car"), "background", [0, 1, 2, 3], "of its outputs 4 are kept by name."),
        (("car", "cat", "dog"), "background", [2, 0, 1, 3], "of its outputs 4 are kept by name."),
        (("tree", "car"), "background", [None, 2, 3], "of its outputs 2 are kept by name; new: tree; left out: cat, dog."),
        (("dog", "cat"), "softmax", [1, 0], 'of its outputs 2 are kept by name; left out: car, "none".'),
        (("x", "cat"), "entropic", [None, 0], 'of its outputs 1 are kept by name; new: x; left out: dog, car, "none".'),
    ],
)  # fmt: skip
def test_outputs_are_kept_by_the_name_of_their_class(source, classes, objective, came_from, says):
    workdir, theirs = source
    variables, own, said = begin(workdir, classes, **{"objective.name": objective})
    for name, values in variables["params"]["fc8"].items():
        old, new = theirs["params"]["fc8"][name], own["params"]["fc8"][name]
        columns = [new[..., i] if j is None else old[..., j] for i, j in enumerate(came_from)]
        np.testing.assert_array_equal(values, np.stack(columns, -1))
    assert said == f"Beginning with the network of {workdir} at step 3: {says}"


def test_all_other_layers_and_the_statistics_are_those_of_the_best_checkpoint(source):
    workdir, theirs = source
    variables, own, _ = begin(workdir, ("x", "cat"))
    assert variables.keys() == theirs.keys()
    for kind, layers in theirs.items():
        assert variables[kind].keys() == layers.keys()
        for layer, values in layers.items():
            if layer != "fc8":
                jax.tree.map(np.testing.assert_array_equal, variables[kind][layer], values)
    assert not np.array_equal(theirs["batch_stats"]["bn1"]["mean"], own["batch_stats"]["bn1"]["mean"])


def test_a_run_without_none_gives_its_classes_and_none_is_new(tmp_path):
    leave_a_run(tmp_path, ("cat", "dog"), **{"objective.name": "softmax"})
    variables, own, said = begin(tmp_path, ("dog", "cat"), **{"model.norm": "none"})
    np.testing.assert_array_equal(variables["params"]["fc8"]["kernel"][:, 2], own["params"]["fc8"]["kernel"][:, 2])
    assert said.endswith('of its outputs 2 are kept by name; new: "none".')


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model.width": 0.125}, "init_from: .* give both the same model"),
        ({"model.name": "alexnet_2012"}, "init_from: .* give both the same model"),
        ({"model.stem": "imagenet", "data.image_size": 16}, "init_from: conv1 .* give both the same model"),
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
        begin(workdir, ("cat", "dog"), **changes)


def test_normalisation_without_parameters_must_be_the_same_too(tmp_path):
    leave_a_run(tmp_path, ("a", "b"), **{"model.norm": "local_response"})
    with pytest.raises(UserError, match="model.norm: .* has 'local_response', this one 'none'"):
        begin(tmp_path, ("a", "b"), **{"model.norm": ""})


def test_a_run_that_is_not_there_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="^init_from: '/nowhere' has no checkpoints"):
        train(small_config(init_from="/nowhere"), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_that_began_with_another_goes_on_is_evaluated_and_predicts_when_that_one_is_gone(tmp_path, capsys):
    """With all layers but the head frozen: such a run, too, is the same when it was stopped."""
    elsewhere, whole, stopped = (tmp_path / name for name in ("elsewhere", "whole", "stopped"))
    for folder in (whole, stopped):
        folder.mkdir()
    theirs = leave_a_run(elsewhere, ("4", "1", "2"))
    config, workshop = small_config(init_from=str(elsewhere), trainable="head"), Workshop()
    train(config, whole, workshop=workshop)
    assert "are kept by name; new: 0, 3." in capsys.readouterr().out
    asked = iter(range(10**6))
    with pytest.raises(Stopped, match="at step 5"):
        train(config, stopped, lambda: "the test" if next(asked) >= 5 else "", workshop=workshop)
    shutil.rmtree(elsewhere)
    result = train(config, stopped, workshop=workshop)
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
