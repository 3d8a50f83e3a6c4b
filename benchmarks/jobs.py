"""The benchmarks that `benchmarks.suite` runs: an entry for each, their order, and their shares of the time."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import job_rows
from benchmarks.job_rows import MakeRows
from openset_jax.errors import UserError

CORRECTNESS, RATES, STEP, PACKED = "correctness", "matrix and copy rates", "step", "packed images"
TRAINING, BEST_BATCH, LAYERS = "openset_jax.train, resident images", "best batch size", "layers"
FORWARD, EPOCH, MEMORY, START_UP = "forward pass", "epoch", "memory", "start-up"
STREAMING, CLASSIFYING, DRAWING = "streaming photographs", "classifying photographs", "drawing batches"
RESIDENT_LOOP, STREAMED_LOOP = "training loop, resident images", "training loop, streaming packed images"

# In order of importance: seconds of the five minutes of --minutes=5, and the least seconds that a job needs. The last
# jobs on accelerators use the time that the others leave.
ACCELERATOR_ORDER: dict[str, tuple[float, float]] = {
    CORRECTNESS: (85, 10), RATES: (16, 8), STEP: (95, 40), PACKED: (4, 3), TRAINING: (28, 25), BEST_BATCH: (32, 15),
    EPOCH: (30, 18), LAYERS: (10, 15), FORWARD: (0, 20), MEMORY: (0, 12), START_UP: (0, 25), RESIDENT_LOOP: (0, 25),
    STREAMED_LOOP: (0, 25), DRAWING: (0, 5), STREAMING: (0, 20), CLASSIFYING: (0, 20),
}  # fmt: skip
CPU_ORDER: dict[str, tuple[float, float]] = {
    CORRECTNESS: (85, 10), RATES: (16, 8), STEP: (47, 25), "step of digits": (15, 15), PACKED: (3, 1), TRAINING: (21, 25),
    FORWARD: (20, 15), "step of cifar10_open": (15, 15), "step of fashion_open": (15, 15), DRAWING: (3, 3),
    RESIDENT_LOOP: (12, 20), STREAMING: (8, 10), STREAMED_LOOP: (10, 20), CLASSIFYING: (6, 10), EPOCH: (8, 20),
    LAYERS: (6, 20), MEMORY: (4, 12), START_UP: (6, 20),
}  # fmt: skip
OPENING = 2  # the first jobs are the same on all platforms; they run before the platform is known
TOTAL_SHARE = 300

BATCH_SIZES = ("1024", "2048", "512", "4096", "8192")  # the most promising first, because the search may run out of time
CPU_FIELDS = ("--config.batch_size=64", "--config.eval.batch_size=64")
ACCELERATOR_FIELDS = ("--config.batch_size=1024", "--config.eval.batch_size=1024")
IMAGES = {"cpu": 3_000}  # packed; on an accelerator 140,000
FEW_IMAGES = {"cpu": 1_024}  # with --minutes; on an accelerator 8,192


@dataclasses.dataclass(frozen=True)
class Setting:
    """The platform, the config, and the resources of a suite.

    Attributes:
      platform: JAX's: "cpu", "gpu" or "tpu"; "" before it is known.
      config: the flags of the full-size config: its file first, then fields.
      scratch: folder that is removed at the end of the suite.
      size: side of packed images.
      images: number of packed images if there are no photographs; 0 for one that suits the platform.
      photos: folder of photographs; "" for none.
      peer_python: Python with PyTorch; "" for none.
      tensorflow: True if it is installed; streaming needs it.
      quick: fewer and shorter rounds.
      timed: True if there is a time limit.
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
    """One process, and the rows of the table that its result becomes.

    Attributes:
      name: in the table.
      command: arguments of Python, without the file for the result.
      rows: makes the rows of the table.
      read: path without suffix -> result; None for the file that --json=PATH.json writes.
      left_out: the reason why it is not run; "" if it is run.
      needs: name of a job that must have succeeded; "" for none.
      adapts: True if it takes --seconds, and measures less if the time is short.
      may_fail: True if exit code 1, with a result that has failed checks, is a valid outcome and not a crash.
      share: its seconds of `TOTAL_SHARE`.
      least: the seconds that it needs; with less time it is not started.
    """

    name: str
    command: list[str]
    rows: MakeRows
    read: Callable[[pathlib.Path], dict[str, Any]] | None = None
    left_out: str = ""
    needs: str = ""
    adapts: bool = False
    may_fail: bool = False
    share: float = 0.0
    least: float = 0.0


def config_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line that define the config: its file (by default configs/folder.py), then fields.

    Raises:
      UserError: one of them has no "=", so that its value is in another word.
    """
    found = [word for word in words if word.startswith("--config")]
    if without := [word for word in found if "=" not in word]:
        raise UserError(f"{without[0]}: write {without[0]}=VALUE")
    files = [word for word in found if word.startswith("--config=")] or ["--config=configs/folder.py"]
    return (*files, *(word for word in found if not word.startswith("--config=")))


def file_name(name: str) -> str:
    """The name of a job as a file name: all characters except letters and digits are replaced."""
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")


def jobs(setting: Setting) -> list[Job]:
    """The benchmarks of a platform, in order of importance. A new one needs an entry here, and a place in the order."""
    on_cpu, (file, *fields) = setting.platform in ("", "cpu"), setting.config
    short = setting.quick or setting.timed
    few = FEW_IMAGES if setting.timed else IMAGES
    images = setting.images or few.get(setting.platform, 8_192 if setting.timed else 140_000)
    steps = 12 if on_cpu else 400 if setting.timed else 1_600
    # the compiled program, which all benchmarks of this config share, contains the number of steps
    config = [file, *(CPU_FIELDS if on_cpu else ACCELERATOR_FIELDS), f"--config.steps={steps}", *fields]
    folder = setting.scratch / "packed"
    resident = [*config, f"--config.data.packed={folder}", "--config.input=resident"]
    streamed = [*config, f"--config.data.packed={folder}", "--config.input=stream"]
    peer = ["--peer", f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    loader = [f"--peer_python={setting.peer_python}"] if setting.peer_python else []
    rounds = [f"--rounds={3 if on_cpu or setting.quick else 5}"] if short else []
    draws = ["--draw_rounds=3", "--draws=50"] if short else []
    no_metrics = ["--rows=0"] if short else []  # not in the table, and slower than the forward pass
    known = [f"--rates={setting.scratch / file_name(RATES)}.json"] if setting.timed else []
    windows = ["--rounds=2", "--seconds=1", "--warmup=0.5"] if short else []
    streams = "" if setting.tensorflow else "TensorFlow is not installed, and streaming needs it"
    photos = streams or ("" if setting.photos else "no --photos")
    module = lambda name, *arguments: ["-m", f"benchmarks.{name}", *arguments]
    correctness = module("correctness", f"--keep={setting.scratch / CORRECTNESS}")
    train = ["-m", "openset_jax.train", *resident, f"--workdir={setting.scratch / file_name(TRAINING)}"]
    photo_count = 512 if on_cpu else 20_000

    found = [
        Job(CORRECTNESS, correctness, job_rows.no_rows, adapts=True, may_fail=True),
        Job(RATES, module("roofline"), job_rows.no_rows),
        Job(STEP, module("step", *config, *peer, *rounds, *known), job_rows.of_network, adapts=True),
        *[
            Job(
                f"step of {name}",
                module("step", f"--config=configs/{name}.py", *peer, *rounds, *known),
                job_rows.of_network,
                adapts=True,
            )
            for name in ("digits", "cifar10_open", "fashion_open")
        ],
        packing(setting, folder, images),
        Job(
            TRAINING,
            [*train, *run_of(steps)],
            job_rows.of_rates_beside(STEP, "the bare step"),
            job_rows.read_run,
            needs=PACKED,
        ),
        Job(
            BEST_BATCH,
            module("step", *config, *rounds, *known, f"--batch_sizes={','.join(BATCH_SIZES)}"),
            job_rows.of_network,
            adapts=True,
        ),
        Job(LAYERS, module("step", *config, *known, "--rounds=3", "--layers"), job_rows.no_rows, adapts=True),
        Job(FORWARD, module("evaluate", *config, *peer, *rounds, *no_metrics), job_rows.of_network, adapts=True),
        Job(EPOCH, module("epoch", *config, *rounds), job_rows.of_epoch, adapts=True),
        Job(DRAWING, module("sampler", *draws), job_rows.of_drawing),
        Job(
            STREAMING,
            module("pipeline", f"--photos={setting.photos}", *loader, *windows),
            job_rows.of_pipeline,
            left_out=photos,
        ),
        Job(
            CLASSIFYING,
            module("predict", *config, f"--photos={setting.photos}", f"--images={photo_count}", *rounds),
            job_rows.of_predict,
            left_out=photos,
        ),
        Job(STREAMED_LOOP, module("end_to_end", *streamed, *windows), job_rows.of_loop, left_out=streams, needs=PACKED),
        Job(RESIDENT_LOOP, module("end_to_end", *resident, *windows), job_rows.of_loop, needs=PACKED),
        Job(
            MEMORY,
            module("memory", *resident, f"--steps={20 if on_cpu else 400 if setting.timed else 10_000}"),
            job_rows.no_rows,
            needs=PACKED,
        ),
        Job(
            START_UP,
            module("startup", *resident, f"--rounds={2 if setting.timed else 3}"),
            job_rows.no_rows,
            needs=PACKED,
            adapts=True,
        ),
    ]
    by_name = {job.name: job for job in found}
    order = CPU_ORDER if on_cpu else ACCELERATOR_ORDER
    return [dataclasses.replace(by_name[name], share=share, least=least) for name, (share, least) in order.items()]


def packing(setting: Setting, folder: pathlib.Path, images: int) -> Job:
    """The job that packs the photographs; random images if there are none, or no TensorFlow to decode them."""
    read = lambda path: {"images": len(json.loads((folder / "index.json").read_text())["id"])}  # the last file to be written
    if not setting.photos or not setting.tensorflow:
        size = [f"--images={images}", f"--size={setting.size}"]
        return Job(PACKED, ["-m", "benchmarks.synthetic", *size, f"--out={folder}"], job_rows.no_rows, read)
    data = {"root": setting.photos, "stored_size": setting.size}
    fields = ["--config=configs/folder.py", *(f"--config.data.{name}={value}" for name, value in data.items())]
    return Job(PACKED, ["-m", "openset_jax.prepare", *fields, f"--out={folder}"], job_rows.no_rows, read)


def chosen(found: Sequence[Job], only: str) -> list[Job]:
    """The jobs whose name contains the text `only`, and the jobs that they need."""
    needed = {job.needs for job in found if only in job.name and not job.left_out}
    return [job for job in found if only in job.name or job.name in needed]


def run_of(steps: int) -> list[str]:
    """Config flags of a run that logs four times, and is evaluated once at its end."""
    fields: dict[str, Any] = {"steps": steps, "log_every": steps // 4, "eval.every": steps, "checkpoint.every": steps}
    fields["eval.compare_scores"] = False
    return [f"--config.{name}={value}" for name, value in fields.items()]
