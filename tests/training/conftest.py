"""The small run, trained in one go."""

import pathlib

import pytest
from small_run import SAVES_OFTEN, small_config


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> pathlib.Path:
    """The workdir of the small run, trained in one go."""
    from small_run import train

    workdir = tmp_path_factory.mktemp("uninterrupted")
    train(small_config(**SAVES_OFTEN), workdir)
    return workdir
