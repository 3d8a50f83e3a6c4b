"""What a run must remember besides its state, so that stopping and resuming changes nothing: it is saved with it."""

import dataclasses
from typing import Any

import numpy as np

from openset_jax.errors import UserError


@dataclasses.dataclass
class Progress:
    """The best evaluation so far, and the sums of the metrics since the last logged line.

    Attributes:
      evaluated: the last step whose evaluation is done, 0 before the first.
      best_step, best_value: of the metric that selects, None before the first evaluation.
      since_best: evaluations since the best one.
      count, sums: steps since the last line of metrics.jsonl, and their summed metrics.
      margins: of the energy objective, once they are measured.
      plateau: logged lines in a row that looked like the prior-only plateau.
    """

    evaluated: int = 0
    best_step: int | None = None
    best_value: float | None = None
    since_best: int = 0
    count: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    plateau: int = 0
    margins: list[float] | None = None

    def add_steps(self, metrics: dict[str, np.ndarray]) -> None:
        """Adds the metrics of one call: those of each step, along the first axis."""
        for i in range(len(metrics["loss"])):
            self.add_step({name: value[i] for name, value in metrics.items()})

    def add_step(self, metrics: dict[str, Any]) -> None:
        """Adds the metrics of one step (as `train_step` gives them, on the host).

        Raises:
          UserError: the loss or the gradient is no longer finite, before anything is evaluated or saved.
        """
        if not np.isfinite([metrics["loss"], metrics["grad_norm"]]).all():
            raise UserError(
                f"training diverged: the loss is {metrics['loss']}, the norm of the gradient {metrics['grad_norm']}. Start "
                "again in another --workdir with a smaller optimizer.learning_rate, or with optimizer.grad_clip=1.0"
            )
        predicted = np.asarray(metrics["predicted"], np.float64)
        values = {
            "loss": metrics["loss"],
            "accuracy": metrics["correct"],
            "none_rate": predicted[-1],
            "top_rate": predicted.max(),
            "grad_norm": metrics["grad_norm"],
        }
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1

    def means(self) -> dict[str, float]:
        """Means of the metrics since the last call; starts a new window."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means

    def add_evaluation(self, step: int, value: float | None) -> bool:
        """Notes the selecting metric at a step (larger is better); returns whether it is the best so far."""
        self.evaluated = step
        improved = value is not None and (self.best_value is None or value > self.best_value)
        if improved:
            self.best_step, self.best_value, self.since_best = step, value, 0
        else:
            self.since_best += 1
        return improved

    def out_of_patience(self, patience: int) -> bool:
        """Whether `patience` evaluations in a row (0: any number) were no better than the best."""
        return 0 < patience <= self.since_best


PLATEAU_LINES = 3


def plateau_warning(
    progress: Progress, means: dict[str, float], plateau: float, prior: np.ndarray, classes: list[str]
) -> str:
    """Says so when training sits at the prior-only plateau; "" otherwise.

    There, the loss is that of constant outputs and every image gets the same answer: the network has learned the
    class frequencies and ignores its input. With many negatives this looks like "it always says none", and it is a failure
    of the optimizer, not of the class balance. Counts in `progress.plateau`; speaks once per stay, after `PLATEAU_LINES`
    logged lines.

    Args:
      means: of one logging window; "top_rate" is the mean share of a batch that its most predicted class got.
      plateau: the loss of a network that ignores its images.
      prior: float [K + 1], the sampler's.
    """
    stuck = means["top_rate"] > 0.99 and abs(means["loss"] - plateau) < 0.03 * plateau
    progress.plateau = progress.plateau + 1 if stuck else 0
    if progress.plateau != PLATEAU_LINES:
        return ""
    answer = "none" if means["none_rate"] > 0.5 else "one class"
    likely = classes[int(np.argmax(prior))]
    return (
        f"Stuck: every image gets the same answer ({answer}), and the loss, {means['loss']:.3f}, is that of "
        f"constant outputs, {plateau:.3f}. The network has learned how often each class comes (most often "
        f"{likely!r}) and ignores the image.\n"
        "  Likely cause: the first steps were too large and killed the ReLUs; it is not the number of negatives.\n"
        "  Remedy: start again with a smaller optimizer.learning_rate (a third), a longer optimizer.warmup_steps, "
        "optimizer.grad_clip=1.0, or model.norm=batch."
    )
