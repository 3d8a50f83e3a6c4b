"""Classifying photographs beside its two halves: reading the files alone, the forward pass alone, and `predict`, in rounds.

    python -m benchmarks.predict --photos=DIR --config=configs/folder.py --config.eval.batch_size=64
    python -m benchmarks.predict --photos=DIR --config=configs/digits.py --images=4096

Why: from files to rows nothing should be lost between the halves. `predict` is `openset_jax.predict.Predictor`, from paths
to rows, with a network that was never trained, at eval.batch_size; reading is the pipeline over the same files; the forward
pass has one batch, which is on the devices already. All do the same number of images from start to end, so that building
the pipeline counts. On a CPU both halves share the cores: there the time of both, one after the other, is what can be
expected.
"""

import math
import os
import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import common
from openset_jax import cli
from openset_jax.errors import UserError

TARGET, CLASSES = 0.9, 10
TOGETHER, READING, FORWARD = "predict", "reading alone", "forward pass alone"


def define_flags() -> None:
    cli.define_config(required=False, help="Whose network; configs/folder.py (the full AlexNet at 224) if not given.")
    flags.DEFINE_string("photos", None, "Folder of photographs; subfolders are looked into.", required=True)
    flags.DEFINE_integer("images", 1024, "Of a round; photographs come again where there are fewer.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Measured rounds of each; one more comes before.", lower_bound=1)
    flags.DEFINE_string("json", "", "File to write the result to.")


def main() -> None:
    args, file = flags.FLAGS, common.json_file(flags.FLAGS.json)
    from benchmarks.evaluate import Forward
    from configs import folder
    from openset_jax import config as configs
    from openset_jax.predict import Predictor, find_images
    from openset_jax.training import devices

    config, photos = args.config or folder.get_config(), pathlib.Path(args.photos).expanduser()
    config = common.checked(config)
    devices.check_batch_size("eval.batch_size", config.eval.batch_size)
    if not photos.is_dir():
        raise UserError(f"--photos: there is no folder {args.photos!r}")
    found, size = find_images([photos]), config.eval.batch_size
    machine = common.machine(devices=True)
    common.print_machine(machine)
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        files = link(found, root / "photos", args.images)
        write_untrained(config, root / "run")
        predict, forward = Predictor(root / "run", batch_size=size), Forward(config, CLASSES)
        contenders = {
            TOGETHER: lambda: timed(predict(files)),
            READING: lambda: timed(reading(files, size, config.data.stored_size)),
            FORWARD: lambda: math.ceil(args.images / size) * forward.group(math.ceil(args.images / size)),
        }
        seconds = common.alternate(args.rounds, contenders)
    rates = {name: [args.images / s for s in values] for name, values in seconds.items()}
    summaries = {name: common.summary(values) for name, values in rates.items()}
    slower = [min(pair) for pair in zip(rates[READING], rates[FORWARD], strict=True)]
    in_turn = [1 / (1 / a + 1 / b) for a, b in zip(rates[READING], rates[FORWARD], strict=True)]
    compared = {
        "the slower one": common.ratios(rates[TOGETHER], slower),
        "both in turn": common.ratios(rates[TOGETHER], in_turn),
    }
    print(f"{args.images:,} photographs, batches of {size}")
    common.print_table([["images/s", "median", "min", "max"], *(common.row(k, v) for k, v in summaries.items())])
    rows = [common.row(f"predict / {name}", ratio, 3) for name, ratio in compared.items()]
    common.print_table([["round by round", "median", "min", "max"], *rows])
    print(common.verdict("predict / the slower one, median of the rounds", compared["the slower one"]["median"], TARGET))
    result = {name.replace(" ", "_"): v for name, v in summaries.items()}
    result |= {"ratio": compared["the slower one"], "ratio_to_both_in_turn": compared["both in turn"]}
    common.write_json(file, result | {"images": args.images, "config": configs.to_json(config), "machine": machine})


def timed(items: Any) -> float:
    """Seconds until an iterator is at its end."""
    start = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - start


def reading(files: list[str], batch_size: int, stored_size: int) -> Any:
    """The batches that the predictor of these files reads, on the host."""
    import numpy as np

    from openset_jax.data import batches, pipeline
    from openset_jax.data.unreadable import Skipped
    from openset_jax.predict import file_pool

    pool = file_pool(files)
    skipped = Skipped(pool)
    plan = batches.evaluation(pool, np.arange(len(files)), batch_size=batch_size, skipped=skipped)
    return pipeline.stream(pool, plan, stored_size=stored_size, skipped=skipped)


def link(found: list[str], folder: pathlib.Path, count: int) -> list[str]:
    """So many files in a new folder, which are links to these, spread over all of them."""
    folder.mkdir()
    step = max(len(found) // count, 1)
    for i in range(count):
        path = found[i * step % len(found)]
        (folder / f"{i:09}{pathlib.Path(path).suffix}").symlink_to(os.path.abspath(path))
    return [str(path) for path in sorted(folder.iterdir())]


def write_untrained(config: Any, workdir: pathlib.Path) -> None:
    """The workdir of a run of no steps: what `Predictor` needs of one."""
    import jax
    import numpy as np

    from openset_jax import build
    from openset_jax import config as configs
    from openset_jax.openset.decision import classifier
    from openset_jax.training import checkpoints, progress, state, validation

    workdir.mkdir()
    names, prior = tuple(map(str, range(CLASSES))), [1 / (CLASSES + 1)] * (CLASSES + 1)
    model = build.make_model(config, CLASSES)
    variables = jax.jit(lambda: state.initial_variables(model, seed=config.seed, image_size=config.data.image_size))()
    initial = state.TrainState(np.int32(0), **variables, opt_state={})
    meta = {"config": configs.to_json(config), "classes": names, "fingerprint": "", "prior": prior}
    saved = checkpoints.Checkpoints(workdir, writing=True)
    saved.save(0, initial, meta | {"progress": vars(progress.Progress())}, best=None)
    saved.close()
    label = np.arange(100 * (CLASSES + 1)) % (CLASSES + 1)
    logits = np.random.default_rng(0).standard_normal((len(label), model.num_outputs), np.float32)
    asked = build.make_decision(config, names, prior)
    fitted = classifier.fit(config.objective.name, names, logits, label, training_prior=prior, **asked)
    validation.save_decision(fitted, logits, label, config=config, step=0, workdir=workdir)


if __name__ == "__main__":
    cli.run(main, define_flags)
