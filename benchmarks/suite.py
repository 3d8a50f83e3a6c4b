"""All benchmarks of this machine, one after another, into one table, one JSON file and one figure.

    python -m benchmarks.suite --out=DIR
    python -m benchmarks.suite --out=DIR --photos=PHOTOS --peer_python=ENV/bin/python

Why: whoever wants to know whether this is fast on their machine should have to give one command. Each benchmark is a process
of its own, so that each has the accelerator to itself, and what PyTorch does beside it alternates with ours inside it. What
cannot run here (PyTorch, TensorFlow or photographs are missing) is left out, with the reason; what fails is reported, the
rest goes on, and the exit code is 1. Without photographs, packed images are random.

Writes DIR/results.json (everything), DIR/results.md (the table), DIR/throughput.png, and the output of each benchmark.
"""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

from absl import flags

from benchmarks import common, jobs
from benchmarks.peer import peer_python
from openset_jax import cli

JOB_SECONDS = 1800
IMAGES = {"cpu": 3_000}  # of the packed folder; on an accelerator the 140,000 of the founding problem
HEADER = ["", "images/s", "range", "beside", "images/s", "range", "ratio", "of matrix rate", "of roofline", "limit"]


def define_flags() -> None:
    flags.DEFINE_string("out", None, "Folder for the results; made if need be.", required=True)
    cli.define_config(required=False, help="The full-size config, configs/folder.py if not given; its data are not opened.")
    flags.DEFINE_string("photos", "", "Folder with known/CLASS/*.jpg and negatives/CLASS/*.jpg; empty: none are streamed.")
    flags.DEFINE_string("peer_python", "", "Python with torch; empty for this one, if it has torch.")
    flags.DEFINE_integer("images", 0, "Packed images to make where there are no photographs; 0 by platform.", lower_bound=0)
    flags.DEFINE_integer("size", 256, "Side of packed images.", lower_bound=8)
    flags.DEFINE_string("only", "", "Only benchmarks whose name contains this.")
    flags.DEFINE_bool("quick", False, "Fewer and shorter rounds.")


def main() -> None:
    args, out = flags.FLAGS, cli.make_workdir(flags.FLAGS.out)
    print("machine", flush=True)
    roofline, failure = run([*_module("roofline"), f"--json={out / 'machine.json'}"], out / "machine")
    if failure:
        print(f"the machine's rates could not be measured: {failure}; see {out / 'machine.log'}", file=sys.stderr)
        sys.exit(1)
    machine, platform = roofline["machine"], roofline["platform"]
    common.print_machine(machine)
    torch, left_out = find_torch(args.peer_python, roofline)
    results, failed, rows = {}, {}, []
    setting = jobs.Setting(
        platform=platform,
        config=tuple(a for a in sys.argv[1:] if a.startswith("--config")) or ("--config=configs/folder.py",),
        out=out,
        photos=args.photos,
        packed=str(out / "packed"),
        peer_python=torch,
        tensorflow=importlib.util.find_spec("tensorflow") is not None,
        quick=args.quick,
    )
    chosen = [job for job in jobs.jobs(setting) if args.only in job.name]
    if any(setting.packed in argument for job in chosen if not job.left_out for argument in job.command):
        failed |= make_packed(setting, args.images or IMAGES.get(platform, 140_000), args.size)
    for job in chosen:
        if job.left_out:
            left_out[job.name] = job.left_out
            continue
        print(f"{job.name} ...", end=" ", flush=True)
        start, path = time.perf_counter(), out / job.file
        shutil.rmtree(path, ignore_errors=True)  # the workdir of a run: it would go on
        json_flag = [] if job.read else [f"--json={path}.json"]
        result, failure = run([*job.command, *json_flag], path, job.read)
        print(failure or f"{time.perf_counter() - start:.0f} s", flush=True)
        if failure:
            failed[job.name] = failure
            continue
        results[job.name] = result
        rows += [line | {"name": ": ".join(filter(None, (job.name, line["name"])))} for line in job.rows(result, results)]
    everything = {
        "machine": machine,
        "roofline": {k: v for k, v in roofline.items() if k != "machine"},
        "peer": next((r["peer"] for r in results.values() if r.get("peer")), None),
        "table": rows,
        "left_out": left_out,
        "failed": failed,
        "results": results,
    }
    write(out, everything)
    sys.exit(1 if failed else 0)


def run(command: list[str], path: pathlib.Path, read: Any = None) -> tuple[dict[str, Any], str]:
    """Runs a process to its end, its output going to PATH.log: (its result, why there is none)."""
    log = path.with_name(path.name + ".log")
    with log.open("w") as output:
        try:
            code = subprocess.run(
                [sys.executable, *command], stdout=output, stderr=subprocess.STDOUT, timeout=JOB_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return {}, f"not done after {JOB_SECONDS} s"
    if code:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        return {}, f"FAILED with exit code {code}: {''.join(last)[:200]} ({log})"
    return (read(path) if read else json.loads(path.with_name(path.name + ".json").read_text())), ""


def find_torch(asked: str, roofline: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """(Python with a PyTorch that the step can be compared with, or ""; why there is none, as {"PyTorch": reason})."""
    if roofline["platform"] not in ("cpu", "gpu") or roofline["count"] > 1:
        return "", {common.PEER: f"it would use one CPU or GPU, and there are {roofline['count']} {roofline['platform']}s"}
    if not (python := peer_python(asked)):
        return "", {common.PEER: "this Python has no torch; --peer_python=PATH names one that has"}
    try:
        done = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
        why = (done.stderr.strip().splitlines() or ["it ended"])[-1] if done.returncode else ""
    except OSError as error:
        why = error.strerror
    return ("", {common.PEER: f"{python}: {why}"}) if why else (python, {})


def make_packed(setting: jobs.Setting, images: int, size: int) -> dict[str, str]:
    """The packed folder, from the photographs or from random numbers: {name: why it failed}, {} if it is there."""
    folder = pathlib.Path(setting.packed)
    if not setting.photos or not setting.tensorflow:
        from benchmarks import synthetic

        print(f"{images:,} random packed images of {size}x{size} ...", flush=True)
        synthetic.write_packed(folder, images=images, size=size)
        return {}
    if (folder / "index.json").exists():
        return {}
    fields = ["--config=configs/folder.py", f"--config.data.root={setting.photos}", f"--config.data.stored_size={size}"]
    print("packing the photographs ...", flush=True)
    read = lambda path: {}
    _, failure = run(["-m", "openset_jax.prepare", *fields, f"--out={folder}"], setting.out / "prepare", read)
    return {"packing the photographs": failure} if failure else {}


def write(out: pathlib.Path, everything: dict[str, Any]) -> None:
    """Prints the table, and writes the three files."""
    table = [HEADER, *map(cells, everything["table"])]
    common.print_table(table)
    for name in ("left_out", "failed"):
        for what, why in everything[name].items():
            print(f"{name.replace('_', ' ')}: {what}: {why}")
    (out / "results.json").write_text(json.dumps(everything, indent=2) + "\n")
    (out / "results.md").write_text(markdown(everything, table))
    drawn = [line for line in everything["table"] if line.get("figure", True)]
    if drawn:
        from benchmarks import figure

        machine = everything["machine"]
        figure.draw(out / "throughput.png", drawn, f"{device(machine)}, {machine['cores']} cores, {machine['date']}")
    print(f"results.json, results.md and the output of each benchmark are in {out}")


def cells(line: dict[str, Any]) -> list[str]:
    """A line of the table as text."""
    number = lambda v: f"{v:,.0f}" if v >= 100 else f"{v:,.1f}"
    span = lambda v: [number(v["median"]), f"{number(v['min'])} to {number(v['max'])}"] if v else ["", ""]
    percent = lambda key: f"{line[key]:.1%}" if key in line else ""
    ratio = f"{line['ours']['median'] / line['other']['median']:.2f}" if line["other"] else ""
    other = [line["other_name"] if line["other"] else "", *span(line["other"]), ratio]
    return [
        line["name"],
        *span(line["ours"]),
        *other,
        percent("matrix_share"),
        percent("roofline_share"),
        line.get("limit", ""),
    ]


def markdown(everything: dict[str, Any], table: list[list[str]]) -> str:
    """The section that `benchmarks/RESULTS.md` takes."""
    machine, roofline = everything["machine"], everything["roofline"]
    versions = machine["versions"] | {k: v for k, v in (everything["peer"] or {}).items() if k == "torch"}
    rates = {k: v["median"] for k, v in roofline.items() if isinstance(v, dict)}
    busy = f"; others used {machine['busy_cores']} cores as it began" if (machine["busy_cores"] or 0) > 0.3 else ""
    lines = [
        f"## {machine['date']}: {device(machine)}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB, {machine['system']}{busy}.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"Matrix products: {rates['matrix_rate_float32'] / 1e12:,.2f} TFLOP/s in float32, "
        f"{rates['matrix_rate_bfloat16'] / 1e12:,.2f} in bfloat16; copying: {rates['copy_rate'] / 1e9:,.0f} GB/s read and "
        "written. Medians, and the range over rounds that alternate.",
        "",
        *("| " + " | ".join(line) + " |" for line in table[:1]),
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(line) + " |" for line in table[1:]),
        "",
        *(f"Left out: {what}: {why}." for what, why in everything["left_out"].items()),
        *(f"Failed: {what}: {why}." for what, why in everything["failed"].items()),
    ]
    return "\n".join(lines) + "\n"


def device(machine: dict[str, Any]) -> str:
    """The accelerator, or the processor where there is none."""
    found = machine.get("devices") or ["cpu"]
    return machine["cpu"] if found[0] == "cpu" else f"{len(found)} x {found[0]}"


def _module(name: str) -> list[str]:
    return ["-m", f"benchmarks.{name}"]


if __name__ == "__main__":
    cli.run(main, define_flags)
