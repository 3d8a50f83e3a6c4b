"""The weights that a run starts from: of another run, of a file, or published with the network."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from openset_jax.config import PRETRAINED
from openset_jax.errors import UserError
from openset_jax.model import networks, published, weights_file
from openset_jax.model.network import Network
from openset_jax.spec import RunSpec
from openset_jax.text import abridged
from openset_jax.training.restore import restore
from openset_jax.training.state import Variables, variables_shape

_SAME = ("image_size", "grey", "mean", "std")  # must be equal in both runs, because the copied layers depend on them
_GEOMETRY = ("name", "stem", "width")  # fields of `model`, which determine the shapes


class StartWeights(NamedTuple):
    """Weights that fit the layers of a network below its head."""

    origin: str  # for messages: "the network of DIR at step 3"
    variables: Variables  # on the host; with the head if its `outputs` are known
    outputs: tuple[str | None, ...]  # the class of each output of the head; None: "none"
    unnamed: int  # number of outputs whose classes are unknown
    note: str  # a line for the user, or ""


def load(spec: RunSpec, like: Variables) -> StartWeights:
    """Reads the weights that `spec.init_from` names, which is not "".

    Args:
      like: the variables of the run's network, or their shapes.

    Raises:
      UserError: the weights cannot be read, or do not fit the network or the normalisation of its images; names the field.
    """
    path = pathlib.Path(spec.init_from).expanduser().resolve()
    if spec.init_from == PRETRAINED:
        with _naming_the_field():
            path, package = published.find(spec.program.forward.network.name)
        return _from_file(path, f"the published weights of {package}", spec, like)
    if path.suffix.lower() in weights_file.SUFFIXES and not path.is_dir():
        return _from_file(path, str(path), spec, like)
    if path.is_dir():
        return _from_run(path, spec, like)
    problem, known = "is not a file of weights" if path.exists() else "does not exist", ", ".join(weights_file.SUFFIXES)
    raise UserError(f"init_from: {str(path)!r} {problem}; use the folder of a run, a file ({known}), or {PRETRAINED!r}")


@contextlib.contextmanager
def _naming_the_field() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"init_from: {str(error).removeprefix('--workdir: ')}") from error


def _from_run(workdir: pathlib.Path, spec: RunSpec, like: Variables) -> StartWeights:
    """The best checkpoint of another run."""
    with _naming_the_field():
        run = restore(workdir)
    network = _network(spec)
    if run.model.takes_vectors != network.takes_vectors:
        kinds = ("vectors", "images") if run.model.takes_vectors else ("images", "vectors")
        raise UserError(
            f"init_from: the network of the run in {workdir} takes {kinds[0]}, this one {kinds[1]}; use another run"
        )
    same: dict[str, tuple[object, object]] = {}
    if not network.takes_vectors:
        same = {f"data.{name}": (getattr(run.spec.images, name), getattr(spec.images, name)) for name in _SAME}
    same["model.norm"] = run.model.norm, network.norm  # some kinds have no parameters, so that shapes do not show them
    for field, (there, here) in same.items():
        if there != here:
            raise UserError(f"{field}: the run in init_from, {workdir}, has {there!r}, this one {here!r}; use the same")
    variables = jax.tree.map(np.array, jax.device_get(run.variables))
    given, wanted = (flatten_dict(tree, sep="/") for tree in (variables, like))
    shapes = [{name: _without_outputs(network, name, x) for name, x in tree.items()} for tree in (given, wanted)]
    for name in sorted(given.keys() | wanted.keys()):
        there, here = (tree.get(name, "nothing") for tree in shapes)
        if there != here:
            remedy = _changes(spec, {f: getattr(run.spec.program.forward.network, f) for f in _GEOMETRY})
            raise UserError(
                f"init_from: {name} has the shape {there} in the run in {workdir}, but {here} here; use {remedy}"
            )
    outputs = (*run.classes, *[None] * run.spec.objective.none_output)
    return StartWeights(f"the network of {workdir} at step {run.step}", variables, outputs, 0, "")


def _from_file(path: pathlib.Path, origin: str, spec: RunSpec, like: Variables) -> StartWeights:
    """The parameters of a state dict of PyTorch. Its outputs have no names of classes, so that its head is left out."""
    if not _network(spec).torch_layout():
        name = spec.program.forward.network.name
        raise UserError(f"init_from: model.name={name} has no layout of PyTorch; start from the folder of a run, not {path}")
    with _naming_the_field():
        state = weights_file.read(path)
    network, images = _network(spec), spec.images
    trained_on = network.preprocessing
    for field, here, there, unset in (
        ("model.norm", network.norm, network.norms[0], ""),
        ("data.mean", images.mean, trained_on.mean, None),
        ("data.std", images.std, trained_on.std, None),
    ):
        if here != there:
            raise UserError(f"{field}: {here!r} does not fit the weights in init_from, which need {there!r}; use {unset!r}")
    if problem := _misfit(network, state, like):
        width, names = spec.program.forward.network.width, ", ".join(networks.NETWORKS)
        fitting = _fitting(spec, state)
        remedy = f"use {_changes(spec, fitting)}" if fitting else f"they fit none of {names} with model.width={width} or 1.0"
        raise UserError(f"init_from: the weights of {path} do not fit: {problem}; {remedy}")
    layout, head = network.torch_layout(), f"params/{network.head}/"
    flat = {
        name: np.array(layout[name].convert(state[layout[name].name]), np.float32)
        for name in flatten_dict(like, sep="/")
        if not name.startswith(head)
    }
    biases = state.get(layout[f"{head}bias"].name, np.empty(0))
    note = ""
    if images.image_size != trained_on.image_size:
        note = f"The weights are of images of {trained_on.image_size} pixels; data.image_size is {images.image_size}."
    variables = {kind: {} for kind in like} | unflatten_dict(flat, sep="/")
    return StartWeights(origin, variables, (), biases.size, note)


def _network(spec: RunSpec) -> Network:
    return spec.program.forward.network.make(1)


def _without_outputs(network: Network, name: str, values: np.ndarray) -> tuple[int, ...]:
    """The shape of a parameter; of the head without the number of outputs, which may differ."""
    return np.shape(values)[:-1] if name.startswith(f"params/{network.head}/") else np.shape(values)


def _misfit(network: Network, state: Mapping[str, np.ndarray], like: Variables) -> str:
    """Returns the first reason why a state dict is not that of a network; "" if it is. The head is not compared."""
    layout, head = network.torch_layout(), f"params/{network.head}/"
    wanted = {name: x.shape for name, x in flatten_dict(like, sep="/").items() if not name.startswith(head)}
    names = {name: layout[name].name if name in layout else name for name in wanted}
    if missing := [name for name in names.values() if name not in state]:
        return f"{missing[0]} is missing; the names are {abridged(list(state), 6)}"
    known = {parameter.name for parameter in layout.values()}
    if extra := [name for name in state if name not in known and not name.endswith(".num_batches_tracked")]:
        return f"the network has no {abridged(extra, 6)}"
    for name, shape in wanted.items():
        there = state[names[name]]
        with contextlib.suppress(ValueError, TypeError):  # another number of dimensions
            there = layout[name].convert(there)
        if there.shape != shape:
            return f"{name} has the shape {there.shape} there ({names[name]}), but {shape} here"
    return ""


def _fitting(spec: RunSpec, state: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Returns the fields of `model` with which a state dict fits a network; {} if there are none."""
    mine = spec.program.forward.network
    for name, kind in networks.NETWORKS.items():
        for stem, width in itertools.product(kind.stems, {mine.width, 1.0}):
            with contextlib.suppress(UserError):  # there is no such network
                side = max(kind.stems[stem], spec.images.image_size)
                network = networks.make(1, name=name, stem=stem, width=width)
                like = variables_shape(network, (side, side, 3))
                if not _misfit(network, state, like):
                    return {"name": name, "stem": stem, "width": width}
    return {}


def _changes(spec: RunSpec, fields: Mapping[str, object]) -> str:
    """Returns "model.stem=small model.width=1.0": the fields that differ from those of a run."""
    mine = spec.program.forward.network
    differing = [f"model.{field}={value}" for field, value in fields.items() if value != getattr(mine, field)]
    return " ".join(differing) or "the same model.* fields"
