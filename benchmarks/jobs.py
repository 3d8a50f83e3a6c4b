"""What `benchmarks.suite` runs on which machine: a list with one entry for each benchmark, and how its result is read."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import common

TRAINING = "openset_jax.train, resident images"
BATCH_SIZES = "256,512,1024,2048,4096,8192"
CPU_FIELDS = ("--config.batch_size=64", "--config.eval.batch_size=64")
ACCELERATOR_FIELDS = ("--config.batch_size=1024", "--config.eval.batch_size=1024", "--config.model.dtype=bfloat16")
SMALL = ("digits", "cifar10_open", "fashion_open")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What there is to measure with.

    Attributes:
      platform: JAX's: "cpu", "gpu" or "tpu".
      config: the flags of the full-size config: its file first, then fields.
      out: folder of the suite.
      photos: folder of photographs, "" for none.
      packed: folder of packed arrays.
      peer_python: Python with PyTorch that the step can be compared with, "" for none.
      tensorflow: whether it is installed: streaming needs it.
      quick: fewer and shorter rounds.
    """

    platform: str
    config: tuple[str, ...]
    out: pathlib.Path
    photos: str = ""
    packed: str = ""
    peer_python: str = ""
    tensorflow: bool = True
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """One process, and what of its result goes into the table.

    Attributes:
      name: in the table.
      command: arguments of Python, without the file that the result goes to.
      rows: (result, results of the jobs before by name) -> lines of the table: see `row`.
      read: path without suffix -> result; None for the file that --json=PATH.json writes.
      left_out: why it is not run, "" if it is.
    """

    name: str
    command: list[str]
    rows: Callable[[dict[str, Any], Mapping[str, Any]], list[dict[str, Any]]]
    read: Callable[[pathlib.Path], dict[str, Any]] | None = None
    left_out: str = ""

    @property
    def file(self) -> str:
        """A file name, without suffix."""
        return file_name(self.name)


def file_name(name: str) -> str:
    """The name with everything but letters and digits replaced."""
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")


def jobs(setting: Setting) -> list[Job]:
    """The list, in the order in which they run. Another benchmark is another line."""
    on_cpu, (file, *fields) = setting.platform == "cpu", setting.config
    config = [file, *(CPU_FIELDS if on_cpu else ACCELERATOR_FIELDS), *fields]
    packed = [*config, f"--config.data.packed={setting.packed}"]
    workdir = setting.out / file_name(TRAINING)
    resident = [*packed, "--config.input=resident"]
    peer = ["--peer", f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    loader = [f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    rounds = ["--rounds=3"] if setting.quick else []
    draws = ["--draw_rounds=3", "--draws=50"] if setting.quick else []
    timed = ["--rounds=2", "--seconds=1", "--warmup=0.5"] if setting.quick else []
    streams = "" if setting.tensorflow else "TensorFlow is not installed, and streaming needs it"
    photos = streams or ("" if setting.photos else "no --photos")
    module = lambda name, *arguments: ["-m", f"benchmarks.{name}", *arguments]

    found = [Job("step", module("step", *config, *peer, *rounds, "--layers"), network_rows)]
    if on_cpu:
        for name in SMALL:
            small = module("step", f"--config=configs/{name}.py", *peer, *rounds)
            found.append(Job(f"step of {name}", small, network_rows))
    else:
        sizes = module("step", *config, *peer, *rounds, f"--batch_sizes={BATCH_SIZES}")
        found.append(Job("step at the best batch", sizes, network_rows))
    found += [
        Job("forward pass", module("evaluate", *config, *peer, *rounds), network_rows),
        Job("drawing batches", module("sampler", *draws), drawing_rows),
        Job(
            "streaming photographs",
            module("pipeline", f"--photos={setting.photos}", *loader, *timed),
            pipeline_rows,
            left_out=photos,
        ),
        Job(
            "classifying photographs",
            module("predict", *config, f"--photos={setting.photos}", f"--images={512 if on_cpu else 20_000}", *rounds),
            predict_rows,
            left_out=photos,
        ),
        Job("training loop, streaming packed images", module("end_to_end", *packed, *timed), loop_rows, left_out=streams),
        Job("training loop, resident images", module("end_to_end", *resident, *timed), loop_rows),
        Job(
            TRAINING,
            ["-m", "openset_jax.train", *resident, *run_of(12 if on_cpu else 1_600), f"--workdir={workdir}"],
            against("step", "the bare step"),
            read_run,
        ),
        Job("memory", module("memory", *resident, f"--steps={20 if on_cpu else 10_000}"), lambda result, before: []),
        Job("startup", module("startup", *resident, "--rounds=3"), lambda result, before: []),
    ]
    return found


def run_of(steps: int) -> list[str]:
    """Fields of a run of so many steps in four windows of the log, evaluated once at its end."""
    fields = {"steps": steps, "log_every": steps // 4, "eval.every": steps, "checkpoint.every": steps}
    fields["eval.compare_scores"] = False
    return [f"--config.{name}={value}" for name, value in fields.items()]


def row(name: str, ours: Any, other: Any = None, other_name: str = "", **more: Any) -> dict[str, Any]:
    """A line of the table: summaries of images/s, of ours and of what it is compared with, if anything.

    Args:
      name: what the name of the job does not say.
      more: "matrix_share", "roofline_share", "limit" where they are known; "figure": False to leave it out.
    """
    return {"name": name, "ours": ours, "other": other, "other_name": other_name, **more}


def network_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.step` and `benchmarks.evaluate`."""
    rates, more, size = result["rates"], {}, result["config"]["batch_size"]
    name = common.PEER
    if peer := result.get("peer"):
        name += ", compiled" if peer["compiled"] else ", eager" + (" (compile failed)" if peer["compile_error"] else "")
    if "roofline" in result:
        more = {
            "matrix_share": result["share_of_matrix_rate"],
            "roofline_share": result["roofline"]["share_with_overlap"],
        }
    else:
        size = result["config"]["eval"]["batch_size"]
    return [row(f"{network(result['config'])}, batch {size}", rates[common.OURS], rates.get(common.PEER), name, **more)]


def network(config: Mapping[str, Any]) -> str:
    """What runs, in words."""
    model, side = config["model"], config["data"]["image_size"]
    width = "" if model["width"] == 1 else f" x {model['width']:g}"
    return f"{model['name']}{width}, {side}x{side}, {model['dtype']}"


def drawing_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.sampler`: the size of classes at which drawing is slowest."""
    times, size = result["drawing"]["microseconds"], result["drawing"]["batch_size"]
    slowest = max(times, key=lambda name: times[name]["median"])
    rates = common.summary([1e6 * size / us for us in times[slowest]["rounds"]])
    return [row(f"of {size}, from classes of {slowest} images", rates, figure=False)]


def pipeline_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.pipeline`: ours beside each other contender."""
    rates = dict(result["images_per_second"])
    ours = rates.pop(common.OURS)
    return [row("", ours, other, name) for name, other in rates.items()] or [row("", ours)]


def predict_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.predict`: from files to rows, beside the slower of reading and the forward pass."""
    slower = min(("reading_alone", "forward_pass_alone"), key=lambda name: result[name]["median"])
    size = f"{network(result['config'])}, batch {result['config']['eval']['batch_size']}"
    return [row(size, result["predict"], result[slower], slower.replace("_", " "))]


def loop_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.end_to_end`: the loop beside its step alone, and which of input, step and host is the limit."""
    size = f"{network(result['config'])}, batch {result['config']['batch_size']}"
    return [row(size, result["together"], result["step_alone"], "step alone", limit=limit(result))]


def limit(result: Mapping[str, Any]) -> str:
    """ "input", "step" or "host": what holds a training loop back, from the rates of `benchmarks.end_to_end`.

    The slower of input and step is the limit where the loop reaches 90 % of it; else what lies between them is: the host.
    """
    rates = {"input": result["input_alone"]["median"], "step": result["step_alone"]["median"]}
    slower = min(rates, key=rates.get)
    return slower if result["together"]["median"] >= 0.9 * rates[slower] else "host"


def read_run(workdir: pathlib.Path) -> dict[str, Any]:
    """The rates in a run's metrics.jsonl, less the first line, which has compilation in it, and the last.

    A line is written when the next step is under way. Where dispatching a step waits for it, as CPUs may, the first window
    has the time of one more step, and the last one of one less.
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {"rates": {common.OURS: common.summary([line["images_per_second"] for line in lines[1:-1] or lines])}}


def against(name: str, other_name: str) -> Callable[[dict[str, Any], Mapping[str, Any]], list[dict[str, Any]]]:
    """Rows of a result with "rates", beside our rate of the job called `name`."""

    def rows(result, before):
        other = before[name]["rates"][common.OURS] if name in before else None
        return [row("", result["rates"][common.OURS], other, other_name)]

    return rows
