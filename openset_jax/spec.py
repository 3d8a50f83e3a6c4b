"""The specification of a run: the frozen, checked values that `config.resolve` makes from a config.

A `RunSpec` has two parts. `ProgramSpec` holds everything that the compiled programs depend on: runs with equal
`ProgramSpec`s share a compilation. All other fields may differ between such runs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from openset_jax.data.data_spec import DataSpec
from openset_jax.data.training_set import SamplingSpec
from openset_jax.model import networks
from openset_jax.model.network import Network
from openset_jax.openset.decision import prior_and_costs
from openset_jax.openset.decision.thresholds import Rule
from openset_jax.openset.losses.objectives import Loss, Objective


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """The config's `model`; "" and None are replaced by the network's own values. See `networks.make`."""

    name: str
    width: float
    stem: str
    norm: str
    dropout: float
    dtype: str

    def make(self, num_outputs: int, *, trainable: str = "all", axis_name: str | None = None) -> Network:
        """Returns the network; batch normalisation is synchronised over the device axis `axis_name` (None: one device).

        Raises:
          UserError: names the field that is out of range.
        """
        return networks.make(num_outputs, **dataclasses.asdict(self), trainable=trainable, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Side of stored images and of the network's input in pixels; mean and std of each channel for pixels in [0, 1]."""

    stored_size: int
    image_size: int
    grey: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image as the network takes it."""
        return self.image_size, self.image_size, 3


@dataclasses.dataclass(frozen=True)
class VectorSpec:
    """Number of features of the vectors; 0 until the source is opened, see `vector_size.with_vector_size`."""

    vector_size: int
    stored_size: ClassVar[None] = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a vector as the network takes it."""
        return (self.vector_size,)


@dataclasses.dataclass(frozen=True)
class ForwardSpec:
    """The config fields that evaluation programs depend on, in addition to the number of classes and the batch shape."""

    network: NetworkSpec
    inputs: ImageSpec | VectorSpec
    none_output: bool  # whether the network has an output for "none"

    @property
    def images(self) -> ImageSpec:
        """The inputs of a network for images. Raises TypeError for a network for vectors."""
        if not isinstance(self.inputs, ImageSpec):
            raise TypeError(f"{self.network.name} takes vectors")
        return self.inputs


@functools.lru_cache
def _bound(loss: Loss, options: tuple[tuple[str, Any], ...]) -> Loss:
    """One function for equal arguments, so that what is compiled for it is compiled once."""
    return functools.partial(loss, **dict(options))


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """An objective with its options."""

    objective: Objective
    weighs_negatives: bool  # whether the loss is a mean over knowns and a weighted mean over negatives; see `Weights`
    options: tuple[tuple[str, Any], ...]  # (name, value) pairs, keyword arguments of the objective's loss

    @property
    def function(self) -> Loss:
        """The loss with its options bound: (logits, features, label, adjustment) -> float32 [b]."""
        return _bound(self.objective.loss, self.options)

    @property
    def measures_margins(self) -> bool:
        """True if the loss has margins and objective.margins is None, so that training measures them."""
        return ("margins", None) in self.options

    def with_margins(self, margins: Sequence[float] | None) -> "LossSpec":
        """The same loss with measured margins; unchanged for None."""
        if margins is None:
            return self
        return dataclasses.replace(self, options=tuple((dict(self.options) | {"margins": tuple(margins)}).items()))


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """The config's `optimizer` without its learning rate; see `state.make_optimizer`."""

    schedule: str
    warmup_steps: int
    b1: float
    b2: float
    eps: float
    weight_decay: float
    grad_clip: float


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """The config fields that the compiled programs of a run depend on; they also depend on the number of classes."""

    forward: ForwardSpec
    loss: LossSpec
    optimizer: OptimizerSpec
    trainable: str  # the layers that training changes, see `Network.layers_of`
    crop: bool  # whether to crop at random; the config's `augment`, as `pad` and `flip`
    pad: int
    flip: bool
    all_reduce_dtype: str  # of the gradients in the all-reduce over devices
    steps: int  # optimizer steps, which the learning rate schedule depends on
    batch_size: int  # examples in the global batch
    steps_per_call: int  # training steps per call of the compiled program

    @property
    def augments(self) -> bool:
        """True if an image reaches the network in a different form each time."""
        inputs = self.forward.inputs
        if isinstance(inputs, VectorSpec):
            return False
        return bool(self.pad) or self.flip or (self.crop and inputs.stored_size > inputs.image_size)


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """The config's class weights, weight of negatives and logit adjustment; see `weights.make_weights`."""

    negative_weight: float | None
    class_weights: str
    beta: float
    tau: float


@dataclasses.dataclass(frozen=True)
class DecisionSpec:
    """The config's `decision`. `prior` and `costs` are strings, which `resolve` parses for the names of the classes."""

    rule: str
    keep_knowns: float
    accept_negatives: float
    prior: str
    costs: str
    calibration: str

    def resolve(self, classes: Sequence[str], training_prior: np.ndarray) -> "Decision":
        """The decision for K classes; `training_prior`: float [K + 1], the effective prior of training, "none" last.

        Raises:
          UserError: the prior or the costs do not fit the classes; names the field.
        """
        prior = prior_and_costs.parse(self.prior, "decision.prior")
        costs = prior_and_costs.parse(self.costs, "decision.costs")
        return Decision(
            prior=prior_and_costs.deployment_prior(prior, classes, training_prior),
            costs=prior_and_costs.cost_matrix(costs, classes),
            rule=Rule(self.rule, getattr(self, self.rule, None)),
            calibrate=self.calibration,
        )


class Decision(NamedTuple):
    """Arguments of `classifier.fit`: prior float64 [K + 1], costs float64 [K + 1, K + 1] (rows truth), rule, calibrate."""

    prior: np.ndarray
    costs: np.ndarray
    rule: Rule
    calibrate: str


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    """How a run is evaluated."""

    every: int  # steps between evaluations on the validation split
    batch_size: int  # examples in the global batch
    compare_scores: bool  # whether to fit and compare all open-set scores at the end
    resamples: int  # maximum number of bootstrap resamples per confidence interval


@dataclasses.dataclass(frozen=True)
class StoppingSpec:
    """`metric` on validation selects checkpoints; `patience`: evaluations without improvement before stopping (0: never)."""

    metric: str
    patience: int


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Name of the input, "stream", "resident" or "auto"; `sharded`: whether resident images are sharded over devices."""

    name: str
    sharded: bool


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run."""

    workdir: pathlib.Path  # absolute
    program: ProgramSpec
    seed: int
    learning_rate: float  # the maximum, which `state.make_schedule` is relative to
    data: DataSpec
    input: InputSpec
    sampling: SamplingSpec
    weights: WeightSpec
    decision: DecisionSpec
    evaluation: EvaluationSpec
    stopping: StoppingSpec
    checkpoint_every: int  # in steps, as `log_every`
    log_every: int
    init_from: str  # the weights that the run starts from, see `start_weights`; "" for random parameters
    dtype_is_auto: bool  # True if the config has model.dtype=auto
    record: Mapping[str, Any] = dataclasses.field(compare=False, repr=False)  # the config as JSON, saved with checkpoints

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self.program.loss.objective

    @property
    def inputs(self) -> ImageSpec | VectorSpec:
        """Sizes and normalisation of images, or the size of vectors."""
        return self.program.forward.inputs

    @property
    def images(self) -> ImageSpec:
        """As `inputs`. Raises TypeError for a network for vectors."""
        return self.program.forward.images

    @property
    def stored_size(self) -> int | None:
        """Side of stored images in pixels; None for vectors."""
        return self.inputs.stored_size
