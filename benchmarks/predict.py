"""Classifying photographs beside its two halves: reading the files alone, the forward pass alone, and `predict`, in rounds.

    python -m benchmarks.predict --photos=DIR --config=configs/folder.py --config.eval.batch_size=64
    python -m benchmarks.predict --photos=DIR --config=configs/digits.py --images=4096

Why: `predict` should be as fast as the slower of its halves. `predict` is `openset_jax.predict.Predictor`, from paths
to rows, with an untrained network, at eval.batch_size; reading is the pipeline over the same files; the forward pass
has one batch, which is already on the devices. Each processes the same number of images from start to end, so that
building the pipeline is part of the time. On a CPU both halves share the cores, and the expected time is that of both,
one after the other.
"""

from __future__ import annotations

import math
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from absl import flags

from benchmarks import hardware, inputs, outputs, tables, timing
from openset_jax import cli
from openset_jax.errors import UserError

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    import numpy as np

    from openset_jax.spec import RunSpec

TARGET, CLASSES = 0.9, 10
TOGETHER, READING, FORWARD = "predict", "reading alone", "forward pass alone"


def define_flags() -> None:
    """Defines the command's flags."""
    cli.define_config(required=False, help="The network's config; by default configs/folder.py (the full AlexNet at 224).")
    flags.DEFINE_string("photos", None, "Folder of photographs, with all its subfolders.", required=True)
    flags.DEFINE_integer("images", 1024, "Images of a round; photographs are repeated if there are fewer.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each; one more comes before.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    """Runs the command."""
    args, file = flags.FLAGS, outputs.json_file(flags.FLAGS.json)
    from benchmarks.evaluate import Forward
    from configs import folder
    from openset_jax.data.image_files import find_images
    from openset_jax.predict import Predictor
    from openset_jax.training import devices

    spec, photos = inputs.resolve(args.config or folder.get_config()), pathlib.Path(args.photos).expanduser()
    size = spec.evaluation.batch_size
    devices.check_batch_size("eval.batch_size", size)
    if not photos.is_dir():
        raise UserError(f"--photos: there is no folder {args.photos!r}")
    found = find_images([str(photos)])
    machine = hardware.describe(devices=True)
    hardware.print_description(machine)
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        files = link(found, root / "photos", args.images)
        write_untrained(spec, root / "run")
        predict, forward = Predictor(root / "run", batch_size=size), Forward(spec, CLASSES)
        batches = math.ceil(args.images / size)
        contenders = {
            TOGETHER: lambda: timed(predict(files)),
            READING: lambda: timed(read(files, size, spec.images.stored_size)),
            FORWARD: lambda: batches * forward.seconds_per_batch(batches),
        }
        seconds = timing.alternate(args.rounds, contenders)
    rates = {name: [args.images / s for s in values] for name, values in seconds.items()}
    summaries = {name: timing.summary(values) for name, values in rates.items()}
    slower = [min(pair) for pair in zip(rates[READING], rates[FORWARD], strict=True)]
    in_turn = [1 / (1 / a + 1 / b) for a, b in zip(rates[READING], rates[FORWARD], strict=True)]
    compared = {
        "the slower one": timing.ratios(rates[TOGETHER], slower),
        "both in turn": timing.ratios(rates[TOGETHER], in_turn),
    }
    print(f"{args.images:,} photographs, batches of {size}")
    tables.print_table([["images/s", "median", "min", "max"], *(tables.row(k, v) for k, v in summaries.items())])
    rows = [tables.row(f"predict / {name}", ratio, 3) for name, ratio in compared.items()]
    tables.print_table([["round by round", "median", "min", "max"], *rows])
    print(tables.verdict("predict / the slower one, median of the rounds", compared["the slower one"]["median"], TARGET))
    result = {name.replace(" ", "_"): v for name, v in summaries.items()}
    result |= {"ratio": compared["the slower one"], "ratio_to_both_in_turn": compared["both in turn"]}
    outputs.write_json(file, result | {"images": args.images, "config": spec.record, "machine": machine})


def timed(items: Iterable[object]) -> float:
    """Seconds of iterating to the end."""
    start = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - start


def read(files: list[str], batch_size: int, stored_size: int) -> Iterator[dict[str, np.ndarray]]:
    """The batches that a `Predictor` reads from these files, on the host."""
    import numpy as np

    from openset_jax.data import batches, given_images, streaming
    from openset_jax.data.unreadable import Unreadable

    pool = given_images.make_pool(files, files, stored_size)
    unreadable = Unreadable(pool)
    plan = batches.evaluation(pool, np.arange(len(files)), batch_size=batch_size, unreadable=unreadable)
    return streaming.stream(pool, plan, unreadable=unreadable)


def link(found: list[str], folder: pathlib.Path, count: int) -> list[str]:
    """Makes a new folder of `count` links to files, evenly spread over `found`; returns their paths."""
    folder.mkdir()
    step = max(len(found) // count, 1)
    for i in range(count):
        path = found[i * step % len(found)]
        (folder / f"{i:09}{pathlib.Path(path).suffix}").symlink_to(os.path.abspath(path))
    return [str(path) for path in sorted(folder.iterdir())]


def write_untrained(spec: RunSpec, workdir: pathlib.Path) -> None:
    """Writes the workdir of a run of no steps, as far as `Predictor` needs it."""
    import jax
    import numpy as np

    from openset_jax.openset.decision import classifier
    from openset_jax.training import saved_decision, state
    from openset_jax.training.checkpoints import Checkpoints
    from openset_jax.training.progress import Progress
    from openset_jax.training.run_cache import RunCache

    workdir.mkdir()
    names, prior = tuple(map(str, range(CLASSES))), np.full(CLASSES + 1, 1 / (CLASSES + 1))
    model = RunCache().network(spec.program, CLASSES).model
    variables = jax.jit(lambda: state.initial_variables(model, seed=spec.seed, shape=spec.inputs.shape))()
    initial = state.TrainState(np.int32(0), **variables, opt_state={})
    record = {"config": spec.record, "classes": names, "fingerprint": "", "prior": prior.tolist()}
    saved = Checkpoints(workdir, writing=True)
    saved.save(0, initial, record | {"progress": vars(Progress())}, best=None)
    saved.close()
    label = np.arange(100 * (CLASSES + 1)) % (CLASSES + 1)
    logits = np.random.default_rng(0).standard_normal((len(label), model.num_outputs), np.float32)
    asked = spec.decision.resolve(names, prior)._asdict()
    fitted = classifier.fit(spec.objective, names, logits, label, training_prior=prior, **asked)
    saved_decision.write(saved_decision.SavedDecision(0, fitted, spec.decision), logits, label, workdir)


if __name__ == "__main__":
    cli.run(main, define_flags)
