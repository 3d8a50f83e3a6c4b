"""The part of a run outside `TrainState`; saved with it, so that a resumed run equals an uninterrupted one."""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence

import numpy as np

from openset_jax.training import divergence


@dataclasses.dataclass
class Progress:
    """The best evaluation so far, and sums of the metrics since the last logged line."""

    evaluated: int = 0  # the last step whose evaluation is done, 0 before the first
    best_step: int | None = None  # of the best validation metric so far; None before the first evaluation
    best_value: float | None = None
    since_best: int = 0  # number of evaluations since the best one
    count: int = 0  # number of steps since the last line of metrics.jsonl
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of the metrics of these steps
    plateau_loss: float = 0.0  # nats, of a network that ignores its images, under the loss of the present step
    plateau: int = 0  # number of consecutive logged lines on the prior-only plateau; see `plateau_warning`
    margins: list[float] | None = None  # the measured margins (known, negative) of `energy_margin` in nats; None before

    def add_steps(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Adds the metrics of one call, arrays [steps, ...], as `train_step` returns them, on the host.

        Raises NotFinite if a loss or a gradient norm is not finite; the run ends without evaluation or checkpoint.
        """
        divergence.check_metrics(metrics)
        loss, predicted = np.asarray(metrics["loss"]), np.asarray(metrics["predicted"], np.float64)
        rates = {"none_rate": predicted[:, -1], "top_rate": predicted.max(1)}
        values = {"loss": loss, "accuracy": metrics["correct"], **rates, "grad_norm": metrics["grad_norm"]}
        # its mean is right, too, for a line whose steps have different losses
        values["plateau_loss"] = np.full(len(loss), self.plateau_loss)
        for name, value in values.items():  # one after the other, so that calls of any length give the same sums
            self.sums[name] = functools.reduce(operator.add, value.tolist(), self.sums.get(name, 0.0))
        self.count += len(loss)

    def means(self) -> dict[str, float]:
        """Returns the means of the metrics since the last call, and resets the sums."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means

    def add_evaluation(self, step: int, value: float | None) -> bool:
        """Records the selecting metric at a step (larger is better); returns True if it is the best so far."""
        self.evaluated = step
        improved = value is not None and (self.best_value is None or value > self.best_value)
        if improved:
            self.best_step, self.best_value, self.since_best = step, value, 0
        else:
            self.since_best += 1
        return improved

    def out_of_patience(self, patience: int) -> bool:
        """True after `patience` consecutive evaluations without improvement; never for a patience of 0."""
        return 0 < patience <= self.since_best


PLATEAU_LINES = 3
_NEAR = 0.03  # relative to the plateau loss


def plateau_warning(
    progress: Progress, means: Mapping[str, float], prior: np.ndarray, classes: Sequence[str], *, ending: bool
) -> str:
    """A warning if the network is stuck, or if the run ends and it has learned nothing; "" otherwise.

    Stuck: on the prior-only plateau, once per plateau, at its line `PLATEAU_LINES`. There the loss is that of constant
    outputs and every image is predicted as the same class: the network has learned the class frequencies and ignores its
    input. With many negatives it then always answers "none". The cause is a failure of the optimisation, not the class
    imbalance.

    Args:
      means: of one logging window. "plateau_loss" is the loss of a network that ignores its images, "top_rate" the mean
        share of the most frequently predicted class in a batch.
      prior: float [K + 1], of the sampler.
      ending: True for the last line of the run.
    """
    loss, plateau = means["loss"], means["plateau_loss"]
    stuck = means["top_rate"] > 0.99 and abs(loss - plateau) < _NEAR * plateau
    progress.plateau = progress.plateau + 1 if stuck else 0
    if progress.plateau == PLATEAU_LINES:
        answer = "none" if means["none_rate"] > 0.5 else "one class"
        likely = classes[int(np.argmax(prior))]
        return (
            f"Stuck: every image gets the same answer ({answer}), and the loss ({loss:.3f}) equals that of constant outputs "
            f"({plateau:.3f}). The network has learned the class frequencies (the most frequent class is {likely!r}) and "
            "ignores the image.\n"
            "  Likely cause: the first steps were too large and killed the ReLUs; the number of negatives is not the "
            "cause.\n"
            "  Remedy: start again with a smaller optimizer.learning_rate (a third), a longer optimizer.warmup_steps, "
            "optimizer.grad_clip=1.0, or model.norm=batch."
        )
    if ending and loss > (1 - _NEAR) * plateau:
        return (
            f"Nothing learned: at the end of training the loss ({loss:.3f}) is not below that of a network that ignores its "
            f"images ({plateau:.3f}).\n"
            "  Remedy: more steps, or start again with another optimizer.learning_rate: a larger one if the loss hardly "
            "changed, a smaller one if it rose or every image gets the same answer."
        )
    return ""
