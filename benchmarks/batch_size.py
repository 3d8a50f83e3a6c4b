"""The search for the batch size with the most images per second."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks.bare_step import Step
from benchmarks.timing import Limit
from openset_jax.errors import UserError
from openset_jax.spec import RunSpec
from openset_jax.training import devices
from openset_jax.training.run_cache import TrainStep

ROUND_SECONDS = 0.5
RESERVE_SECONDS = 8.0  # kept for measuring the best batch size at the end of the search


@dataclasses.dataclass
class Search:
    """The result of `search`, by batch size.

    Attributes:
      rates: images/s; None for a size that does not fit the memory of the devices.
      compilations: "compile_s" and "cold".
      functions: the compiled steps.
      left_out: the reason why a size was not tried.
    """

    rates: dict[int, float | None] = dataclasses.field(default_factory=dict)
    compilations: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    functions: dict[int, TrainStep] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> int:
        """The size with the most images per second."""
        return max(self.rates, key=lambda size: self.rates[size] or 0.0)


def parse_sizes(texts: Sequence[str]) -> list[int]:
    """The batch sizes of the flag --batch_sizes.

    Raises:
      UserError: one is not a number above 0, or the devices cannot share it evenly.
    """
    for text in texts:
        if not text.isdigit() or not int(text):
            raise UserError(f"--batch_sizes: {text!r} is not a number of images above 0")
        devices.check_batch_size("--batch_sizes", int(text))
    return [int(text) for text in texts]


def search(specs: Sequence[RunSpec], num_classes: int, limit: Limit) -> Search:
    """Measures the step at each batch size, in this order, while there is time.

    Args:
      specs: equal except for the batch size.

    Raises:
      UserError: no size fits the memory of the devices.
    """
    found, expected = Search(), 0.0
    for spec in specs:
        size, per_call = spec.program.batch_size, spec.program.steps_per_call
        if limit and limit.left() < expected + RESERVE_SECONDS:
            left = max(limit.left(), 0)
            found.left_out[f"batch of {size:,}"] = f"compiling takes about {expected:.0f} s, and {left:.0f} s were left"
            continue
        step = None  # frees the memory of the step before
        try:
            step = Step(spec, num_classes)
            compile_s = step.compile()
            expected = max(expected, compile_s + step.seconds_saved)
            calls = math.ceil(ROUND_SECONDS / step.seconds_per_step(2) / per_call)
            rate = size / sorted(step.seconds_per_step(calls) for _ in range(3))[1]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found.rates[size] = None
            print(f"batch of {size}: does not fit")
            continue
        found.rates[size], found.functions[size] = rate, step.function
        found.compilations[size] = {"compile_s": compile_s, "cold": step.cold}
        print(f"batch of {size}: {rate:,.1f} images/s")
    if found.rates and not any(found.rates.values()):
        raise UserError(f"--batch_sizes: not even {min(found.rates)} images fit the device's memory")
    return found
