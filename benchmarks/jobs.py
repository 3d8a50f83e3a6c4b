"""The benchmarks that `benchmarks.suite` runs: one entry for each, their order, their shares of the time."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import common

CORRECTNESS, RATES, STEP, PACKED = "correctness", "matrix and copy rates", "step", "packed images"
TRAINING, BEST_BATCH, LAYERS = "openset_jax.train, resident images", "best batch size", "layers"
FORWARD, EPOCH, MEMORY, START_UP = "forward pass", "epoch", "memory", "start-up"
STREAMING, CLASSIFYING, DRAWING = "streaming photographs", "classifying photographs", "drawing batches"
RESIDENT_LOOP, STREAMED_LOOP = "training loop, resident images", "training loop, streaming packed images"

# In order of importance: seconds of the five minutes of --minutes=5, and the seconds that a job needs at least. The last
# jobs of accelerators take what the others leave.
ACCELERATOR_ORDER = {
    CORRECTNESS: (85, 10), RATES: (16, 8), STEP: (95, 40), PACKED: (4, 3), TRAINING: (28, 25), BEST_BATCH: (32, 15),
    EPOCH: (30, 18), LAYERS: (10, 15), FORWARD: (0, 20), MEMORY: (0, 12), START_UP: (0, 25), RESIDENT_LOOP: (0, 25),
    STREAMED_LOOP: (0, 25), DRAWING: (0, 5), STREAMING: (0, 20), CLASSIFYING: (0, 20),
}  # fmt: skip
CPU_ORDER = {
    CORRECTNESS: (85, 10), RATES: (16, 8), STEP: (47, 25), "step of digits": (15, 15), PACKED: (3, 1), TRAINING: (21, 25),
    FORWARD: (20, 15), "step of cifar10_open": (15, 15), "step of fashion_open": (15, 15), DRAWING: (3, 3),
    RESIDENT_LOOP: (12, 20), STREAMING: (8, 10), STREAMED_LOOP: (10, 20), CLASSIFYING: (6, 10), EPOCH: (8, 20),
    LAYERS: (6, 20), MEMORY: (4, 12), START_UP: (6, 20),
}  # fmt: skip
OPENING = 2  # the first jobs are the same everywhere: they run before the platform is known
TOTAL_SHARE = 300

BATCH_SIZES = ("1024", "2048", "512", "4096", "8192")  # the most promising first: time may end the search
CPU_FIELDS = ("--config.batch_size=64", "--config.eval.batch_size=64")
ACCELERATOR_FIELDS = ("--config.batch_size=1024", "--config.eval.batch_size=1024")
IMAGES = {"cpu": 3_000}  # packed; on an accelerator the 140,000 of the founding problem
FEW_IMAGES = {"cpu": 1_024}  # with --minutes; on an accelerator 8,192


@dataclasses.dataclass(frozen=True)
class Setting:
    """What there is to measure with.

    Attributes:
      platform: JAX's: "cpu", "gpu" or "tpu"; "" before it is known.
      config: the flags of the full-size config: its file first, then fields.
      scratch: folder that is removed at the end of the suite.
      size: side of packed images.
      images: packed images to make where there are no photographs; 0 for a number that suits the platform.
      photos: folder of photographs, "" for none.
      peer_python: Python with PyTorch that the step can be compared with, "" for none.
      tensorflow: whether it is installed: streaming needs it.
      quick: fewer and shorter rounds.
      timed: whether there is a time limit.
    """

    platform: str
    config: tuple[str, ...]
    scratch: pathlib.Path
    size: int = 256
    images: int = 0
    photos: str = ""
    peer_python: str = ""
    tensorflow: bool = True
    quick: bool = False
    timed: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """One process, and what of its result goes into the table.

    Attributes:
      name: in the table.
      command: arguments of Python, without the file that the result goes to.
      rows: (result, results of the jobs before by name) -> lines of the table: see `row`.
      read: path without suffix -> result; None for the file that --json=PATH.json writes.
      left_out: why it is not run, "" if it is.
      needs: the name of a job that must have succeeded, "" for none.
      adapts: True if it takes --seconds, and measures less if they are few.
      may_fail: True if exit code 1 with a result that has failed checks is an outcome, not a crash.
      share: seconds of `TOTAL_SHARE` that it may take.
      least: seconds that it needs: with fewer it is not begun.
    """

    name: str
    command: list[str]
    rows: Callable[[dict[str, Any], Mapping[str, Any]], list[dict[str, Any]]]
    read: Callable[[pathlib.Path], dict[str, Any]] | None = None
    left_out: str = ""
    needs: str = ""
    adapts: bool = False
    may_fail: bool = False
    share: float = 0.0
    least: float = 0.0


def file_name(name: str) -> str:
    """The name with everything but letters and digits replaced."""
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")


def jobs(setting: Setting) -> list[Job]:
    """The benchmarks of this platform in order of importance. A new one needs an entry here, and a place in the order."""
    on_cpu, (file, *fields) = setting.platform in ("", "cpu"), setting.config
    short = setting.quick or setting.timed
    few = FEW_IMAGES if setting.timed else IMAGES
    images = setting.images or few.get(setting.platform, 8_192 if setting.timed else 140_000)
    steps = 12 if on_cpu else 400 if setting.timed else 1_600
    # the steps of the run are in its compiled program, which all benchmarks of this config share
    config = [file, *(CPU_FIELDS if on_cpu else ACCELERATOR_FIELDS), f"--config.steps={steps}", *fields]
    folder = setting.scratch / "packed"
    resident = [*config, f"--config.data.packed={folder}", "--config.input=resident"]
    streamed = [*config, f"--config.data.packed={folder}", "--config.input=stream"]
    peer = ["--peer", f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    loader = [f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    rounds = [f"--rounds={3 if on_cpu or setting.quick else 5}"] if short else []
    draws = ["--draw_rounds=3", "--draws=50"] if short else []
    no_metrics = ["--rows=0"] if short else []  # no line of the table, and they take longer than the forward pass
    known = [f"--rates={setting.scratch / file_name(RATES)}.json"] if setting.timed else []
    windows = ["--rounds=2", "--seconds=1", "--warmup=0.5"] if short else []
    streams = "" if setting.tensorflow else "TensorFlow is not installed, and streaming needs it"
    photos = streams or ("" if setting.photos else "no --photos")
    module = lambda name, *arguments: ["-m", f"benchmarks.{name}", *arguments]
    correctness = module("correctness", f"--keep={setting.scratch / CORRECTNESS}")
    train = ["-m", "openset_jax.train", *resident, f"--workdir={setting.scratch / file_name(TRAINING)}"]
    photo_count = 512 if on_cpu else 20_000

    found = [
        Job(CORRECTNESS, correctness, no_rows, adapts=True, may_fail=True),
        Job(RATES, module("roofline"), no_rows),
        Job(STEP, module("step", *config, *peer, *rounds, *known), network_rows, adapts=True),
        *[
            Job(
                f"step of {name}",
                module("step", f"--config=configs/{name}.py", *peer, *rounds, *known),
                network_rows,
                adapts=True,
            )
            for name in ("digits", "cifar10_open", "fashion_open")
        ],
        packing(setting, folder, images),
        Job(
            TRAINING,
            [*train, *run_of(steps)],
            against(STEP, "the bare step"),
            read_run,
            needs=PACKED,
        ),
        Job(
            BEST_BATCH,
            module("step", *config, *rounds, *known, f"--batch_sizes={','.join(BATCH_SIZES)}"),
            network_rows,
            adapts=True,
        ),
        Job(LAYERS, module("step", *config, *known, "--rounds=3", "--layers"), no_rows, adapts=True),
        Job(FORWARD, module("evaluate", *config, *peer, *rounds, *no_metrics), network_rows, adapts=True),
        Job(EPOCH, module("epoch", *config, *rounds), epoch_rows, adapts=True),
        Job(DRAWING, module("sampler", *draws), drawing_rows),
        Job(STREAMING, module("pipeline", f"--photos={setting.photos}", *loader, *windows), pipeline_rows, left_out=photos),
        Job(
            CLASSIFYING,
            module("predict", *config, f"--photos={setting.photos}", f"--images={photo_count}", *rounds),
            predict_rows,
            left_out=photos,
        ),
        Job(STREAMED_LOOP, module("end_to_end", *streamed, *windows), loop_rows, left_out=streams, needs=PACKED),
        Job(RESIDENT_LOOP, module("end_to_end", *resident, *windows), loop_rows, needs=PACKED),
        Job(
            MEMORY,
            module("memory", *resident, f"--steps={20 if on_cpu else 400 if setting.timed else 10_000}"),
            no_rows,
            needs=PACKED,
        ),
        Job(
            START_UP,
            module("startup", *resident, f"--rounds={2 if setting.timed else 3}"),
            no_rows,
            needs=PACKED,
            adapts=True,
        ),
    ]
    by_name = {job.name: job for job in found}
    order = CPU_ORDER if on_cpu else ACCELERATOR_ORDER
    return [dataclasses.replace(by_name[name], share=share, least=least) for name, (share, least) in order.items()]


def packing(setting: Setting, folder: pathlib.Path, images: int) -> Job:
    """Packs the photographs, or random images where there are none or nothing decodes them."""
    read = lambda path: {"images": len(json.loads((folder / "index.json").read_text())["id"])}  # written last
    if not setting.photos or not setting.tensorflow:
        size = [f"--images={images}", f"--size={setting.size}"]
        return Job(PACKED, ["-m", "benchmarks.synthetic", *size, f"--out={folder}"], no_rows, read)
    data = {"root": setting.photos, "stored_size": setting.size}
    fields = ["--config=configs/folder.py", *(f"--config.data.{name}={value}" for name, value in data.items())]
    return Job(PACKED, ["-m", "openset_jax.prepare", *fields, f"--out={folder}"], no_rows, read)


def chosen(found: Sequence[Job], only: str) -> list[Job]:
    """The jobs whose name contains `only`, and the jobs that these need."""
    needed = {job.needs for job in found if only in job.name and not job.left_out}
    return [job for job in found if only in job.name or job.name in needed]


def run_of(steps: int) -> list[str]:
    """Fields of a run of so many steps in four windows of the log, evaluated once at its end."""
    fields = {"steps": steps, "log_every": steps // 4, "eval.every": steps, "checkpoint.every": steps}
    fields["eval.compare_scores"] = False
    return [f"--config.{name}={value}" for name, value in fields.items()]


def row(name: str, ours: Any, other: Any = None, other_name: str = "", **more: Any) -> dict[str, Any]:
    """A line of the table: summaries of images/s, of ours and of what it is compared with, if anything.

    Args:
      name: what the name of the job does not say.
      more: where they are known "matrix_share", "roofline_share", "limit", "epoch_s" (a summary), "compile_s" and "cold";
        "figure": False to leave it out of the figure; "alternating": False if the rounds of the two sides do not alternate.
    """
    return {"name": name, "ours": ours, "other": other, "other_name": other_name, **more}


def no_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For a job that has a table of its own, or none."""
    return []


def network_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.step` and `benchmarks.evaluate`."""
    rates, more, size = result["rates"], {k: result[k] for k in ("compile_s", "cold")}, result["config"]["batch_size"]
    name = common.PEER
    if peer := result.get("peer"):
        name += ", compiled" if peer["compiled"] else ", eager" + (" (compile failed)" if peer["compile_error"] else "")
    if "roofline" in result:
        more["matrix_share"] = result["share_of_matrix_rate"]
        more["roofline_share"] = result["roofline"]["share_with_overlap"]
    else:
        size = result["config"]["eval"]["batch_size"]
    return [row(f"{network(result['config'])}, batch {size:,}", rates[common.OURS], rates.get(common.PEER), name, **more)]


def network(config: Mapping[str, Any]) -> str:
    """What runs, in words."""
    model, side = config["model"], config["data"]["image_size"]
    width = "" if model["width"] == 1 else f" x {model['width']:g}"
    return f"{model['name']}{width}, {side}x{side}, {model['dtype']}"


def epoch_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.epoch`: the loop over resident images beside its step alone."""
    config, more = result["config"], {k: result[k] for k in ("compile_s", "cold", "epoch_s")}
    name = f"{result['images']:,} images of {result['size']}x{result['size']}, batch {config['batch_size']:,}"
    return [row(name, result["rates"][common.OURS], result["rates"]["step alone"], "step alone", **more)]


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
    size = f"{network(result['config'])}, batch {result['config']['eval']['batch_size']:,}"
    return [row(size, result["predict"], result[slower], slower.replace("_", " "))]


def loop_rows(result: dict[str, Any], _: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of `benchmarks.end_to_end`: the loop beside its step alone, and which of input, step and host is the limit."""
    size = f"{network(result['config'])}, batch {result['config']['batch_size']:,}"
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

    Raises:
      ValueError: there are fewer than three lines.
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    if len(lines) < 3:
        raise ValueError(f"{workdir} has no window without compilation")
    return {"rates": {common.OURS: common.summary([line["images_per_second"] for line in lines[1:-1]])}}


def against(name: str, other_name: str) -> Callable[[dict[str, Any], Mapping[str, Any]], list[dict[str, Any]]]:
    """Rows of a result with "rates", beside our rate of the job called `name`."""

    def rows(result, before):
        other = before[name]["rates"][common.OURS] if name in before else None
        return [row("", result["rates"][common.OURS], other, other_name, alternating=False)]

    return rows
