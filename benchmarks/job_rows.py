"""The rows of the suite's table, made from the results of its jobs."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import timing

Row = dict[str, Any]  # see `row`
MakeRows = Callable[[dict[str, Any], Mapping[str, Any]], list[Row]]  # (result, results of earlier jobs by name) -> rows


def row(name: str, ours: timing.Summary, other: timing.Summary | None = None, other_name: str = "", **more: Any) -> Row:
    """A row of the table: our images/s, and those of the other side.

    Args:
      name: of the row, after the name of the job.
      other, other_name: of the other side; None for none.
      more: "matrix_share", "roofline_share", "limit", "epoch_s" (a summary), "compile_s" and "cold", if they are known;
        "figure": False to leave the row out of the figure; "alternating": False if the rounds of both sides do not
        alternate.
    """
    return {"name": name, "ours": ours, "other": other, "other_name": other_name, **more}


def no_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The rows of a job that has a table of its own, or none."""
    return []


def of_network(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The row of `benchmarks.step` and `benchmarks.evaluate`."""
    rates, more, size = result["rates"], {k: result[k] for k in ("compile_s", "cold")}, result["config"]["batch_size"]
    name = timing.PEER
    if peer := result.get("peer"):
        name += ", compiled" if peer["compiled"] else ", eager" + (" (compile failed)" if peer["compile_error"] else "")
    if "roofline" in result:
        more["matrix_share"] = result["share_of_matrix_rate"]
        more["roofline_share"] = result["roofline"]["share_with_overlap"]
    else:
        size = result["config"]["eval"]["batch_size"]
    return [row(f"{network(result['config'])}, batch {size:,}", rates[timing.OURS], rates.get(timing.PEER), name, **more)]


def network(config: Mapping[str, Any]) -> str:
    """The network of a config as text."""
    model, side = config["model"], config["data"]["image_size"]
    width = "" if model["width"] == 1 else f" x {model['width']:g}"
    return f"{model['name']}{width}, {side}x{side}, {model['dtype']}"


def of_epoch(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The row of `benchmarks.epoch`: the loop over resident images beside its step alone."""
    config, more = result["config"], {k: result[k] for k in ("compile_s", "cold", "epoch_s")}
    name = f"{result['images']:,} images of {result['size']}x{result['size']}, batch {config['batch_size']:,}"
    return [row(name, result["rates"][timing.OURS], result["rates"]["step alone"], "step alone", **more)]


def of_drawing(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The row of `benchmarks.sampler`, at the class size with the slowest drawing."""
    times, size = result["drawing"]["microseconds"], result["drawing"]["batch_size"]
    slowest = max(times, key=lambda name: times[name]["median"])
    rates = timing.summary([1e6 * size / us for us in times[slowest]["rounds"]])
    return [row(f"of {size}, from classes of {slowest} images", rates, figure=False)]


def of_pipeline(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The rows of `benchmarks.pipeline`: ours beside each other contender."""
    rates = dict(result["images_per_second"])
    ours = rates.pop(timing.OURS)
    return [row("", ours, other, name) for name, other in rates.items()] or [row("", ours)]


def of_predict(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The row of `benchmarks.predict`, beside the slower of reading and the forward pass."""
    slower = min(("reading_alone", "forward_pass_alone"), key=lambda name: result[name]["median"])
    size = f"{network(result['config'])}, batch {result['config']['eval']['batch_size']:,}"
    return [row(size, result["predict"], result[slower], slower.replace("_", " "))]


def of_loop(result: dict[str, Any], _: Mapping[str, Any]) -> list[Row]:
    """The row of `benchmarks.end_to_end`: the loop beside its step alone, and its limit."""
    size = f"{network(result['config'])}, batch {result['config']['batch_size']:,}"
    return [row(size, result["together"], result["step_alone"], "step alone", limit=limit(result))]


def limit(result: Mapping[str, Any]) -> str:
    """The limit of a training loop: "input", "step" or "host".

    The slower of input and step is the limit if the loop reaches 90 % of its rate; otherwise the host is the limit.

    Args:
      result: of `benchmarks.end_to_end`.
    """
    rates = {"input": result["input_alone"]["median"], "step": result["step_alone"]["median"]}
    slower = min(rates, key=lambda name: rates[name])
    return slower if result["together"]["median"] >= 0.9 * rates[slower] else "host"


def read_run(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads the rates of a run from its metrics.jsonl, without the first line, which includes compilation, and the last.

    A line is written when the next step has been dispatched. If dispatching waits for the step, as on CPUs, the first
    window includes the time of one more step, and the last that of one step less.

    Raises:
      ValueError: there are fewer than three lines.
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    if len(lines) < 3:
        raise ValueError(f"{workdir} has no window without compilation")
    return {"rates": {timing.OURS: timing.summary([line["images_per_second"] for line in lines[1:-1]])}}


def of_rates_beside(name: str, other_name: str) -> MakeRows:
    """Makes the row of a result with "rates", beside our rate of another job.

    Args:
      name, other_name: of the other job, and of the other side in the table.
    """

    def rows(result, before):
        other = before[name]["rates"][timing.OURS] if name in before else None
        return [row("", result["rates"][timing.OURS], other, other_name, alternating=False)]

    return rows
