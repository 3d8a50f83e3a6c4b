"""Checks and warnings before the first step of a run."""

import pytest
from small_run import make_small_run, small_spec

from openset_jax.errors import UserError
from openset_jax.report import console
from openset_jax.training import run_setup


@pytest.mark.parametrize(("steps", "warmup", "warns"), [(12, 11, False), (12, 12, True), (12, 24, True), (12, 0, False)])
def test_a_warmup_of_all_steps_is_a_warning(steps, warmup, warns):
    spec = small_spec(steps=steps, **{"optimizer.warmup_steps": warmup, "optimizer.learning_rate": 0.02})
    said = run_setup.warmup_warning(spec)
    assert bool(said) == warns
    assert warmup != 24 or ("optimizer.warmup_steps: 24 is not less than the 12 steps" in said and "to 0.01." in said)


def test_the_description_of_a_run_has_its_warnings():
    assert "optimizer.warmup_steps: 50 is not" in console.run_description(make_small_run(**{"optimizer.warmup_steps": 50}))


def test_a_folder_of_another_kind_of_run_is_refused(tmp_path):
    phases = [small_spec()]
    run_setup.check_workdir(tmp_path, phases)
    (tmp_path / "first_phase").mkdir()
    with pytest.raises(UserError, match="^sampling.policy: the run in .* has two phases, but this config has natural"):
        run_setup.check_workdir(tmp_path, phases)
    run_setup.check_workdir(tmp_path, phases * 2)
    (tmp_path / "experiment.json").touch()
    with pytest.raises(UserError, match="^--workdir: .* has an experiment"):
        run_setup.check_workdir(tmp_path, phases)
