"""Adds the results of `benchmarks.suite` on a machine to benchmarks/RESULTS.md, as a section.

    python -m benchmarks.results DIR [DIR ...]

DIR is the --out of the suite; it may also have the variants.json of `benchmarks.variants`. The newest section comes
first. A section with the same heading is replaced.
"""

import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import tables, timing
from openset_jax import cli
from openset_jax.errors import UserError
from openset_jax.files import write_whole

FILE = pathlib.Path(__file__).with_name("RESULTS.md")
HEADER = [
    "", "images/s", "range", "beside", "images/s", "range", "ratio", "of matrix rate", "of roofline", "epoch, s", "limit",
]  # fmt: skip
MIB = 2**20


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("file", str(FILE), "File to add the sections to.")


def main(folders: Sequence[str]) -> None:
    """Runs the command."""
    if not folders:
        raise UserError("give the --out folder of at least one run of benchmarks.suite")
    file = pathlib.Path(flags.FLAGS.file)
    try:
        text = file.read_text()
    except OSError as error:
        raise UserError(f"--file: {str(file)!r} cannot be read: {error.strerror}") from error
    for folder in folders:
        new = section_of(pathlib.Path(folder))
        text = with_section(text, new)
        print(new.partition("\n")[0])
    with write_whole(file) as out:
        out.write(text)


def section_of(folder: pathlib.Path) -> str:
    """The section of a folder of results.

    Raises:
      UserError: its results.json is missing, or not from the suite; or its variants.json is from another machine.
    """
    try:
        everything = json.loads((folder / "results.json").read_text())
        text = section(everything)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder / 'results.json')!r} is not a result of benchmarks.suite: {error!r}") from error
    variants = folder / "variants.json"
    if variants.exists():
        from benchmarks.variant_table import markdown

        found = json.loads(variants.read_text())
        for name in ("cpu", "devices", "versions"):
            if found["machine"].get(name) != everything["machine"].get(name):
                raise UserError(f"{str(variants)!r} is of another machine than results.json beside it: {name} differs")
        text += "\n" + markdown(found).rstrip("\n") + "\n"
    return text


def with_section(text: str, new: str) -> str:
    """Adds a section to the text, before the first section that is not newer; replaces a section with the same heading."""
    heading = new.partition("\n")[0]
    parts = [part for part in split(text) if part.partition("\n")[0] != heading]
    date, place = _date(heading), len(parts)
    for i, part in enumerate(parts[1:], 1):
        if not (other := _date(part)) or other <= date:
            place = i
            break
    parts.insert(place, new)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def split(text: str) -> list[str]:
    """Splits the text into its introduction and its sections (headings of level one or two, except in blocks of code)."""
    parts, code = [""], False
    for i, line in enumerate(text.splitlines(keepends=True)):
        code ^= line.startswith("```")
        if i and not code and line.startswith(("# ", "## ")):
            parts.append("")
        parts[-1] += line
    return parts


def _date(part: str) -> str:
    found = re.match(r"## (\d{4}-\d{2}-\d{2}): ", part)
    return found[1] if found else ""


def section(everything: Mapping[str, Any]) -> str:
    """The section of a machine, which is also the content of results.md.

    Args:
      everything: the content of results.json.
    """
    blocks = [block for block in _blocks(everything) if block]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def table(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the suite's table, without empty columns.

    Args:
      lines: see `job_rows.row`.
    """
    rows = [HEADER, *map(cells, lines)]
    kept = [i for i, column in enumerate(zip(*rows, strict=True)) if i < 3 or any(column[1:])]
    return [[row[i] for i in kept] for row in rows]


def cells(line: Mapping[str, Any]) -> list[str]:
    """A row of the table as text."""
    percent = lambda key: f"{line[key]:.1%}" if key in line else ""
    other = [line["other_name"] if line["other"] else "", *_span(line["other"]), _ratio(line)]
    epoch = f"{line['epoch_s']['median']:.3g}" if "epoch_s" in line else ""
    shares = [percent("matrix_share"), percent("roofline_share")]
    return [line["name"], *_span(line["ours"]), *other, *shares, epoch, line.get("limit", "")]


def device(machine: Mapping[str, Any]) -> str:
    """The accelerator; the processor if there is none."""
    found = machine.get("devices") or ["cpu"]
    return machine["cpu"] if found[0] == "cpu" else f"{len(found)} x {found[0]}"


def _blocks(everything: Mapping[str, Any]) -> Iterator[list[str]]:
    results, machine = everything["results"], everything["machine"]
    yield [f"## {machine['date']}: {device(machine)}"]
    yield list(_machine(everything))
    if correctness := results.get("correctness"):
        yield from _correctness(correctness)
    if everything["table"]:
        yield tables.markdown_table(table(everything["table"]))
    yield list(_compilations(everything["table"]))
    yield from _batch_sizes(results.get("best batch size"))
    yield from _layers(results.get("layers"))
    yield list(itertools.chain(_memory(results.get("memory")), _start_up(results.get("start-up"))))
    yield [f"- Left out: {names}: {reason}." for names, reason in tables.by_reason(everything["left_out"])]
    yield [f"- Failed: {names}: {reason}." for names, reason in tables.by_reason(everything["failed"])]
    jobs = "; ".join(f"{job['name']} {job['seconds']:.0f}" for job in everything["jobs"])
    yield [f"Wall time, s: {jobs}."] if jobs else []


def _machine(everything: Mapping[str, Any]) -> Iterator[str]:
    machine, roofline = everything["machine"], everything["roofline"] or {}
    versions = machine["versions"] | {k: v for k, v in (everything["peer"] or {}).items() if k == "torch"}
    busy = f"; others used {machine['busy_cores']} cores as it began" if (machine["busy_cores"] or 0) > 0.3 else ""
    system = machine["system"].partition("-")[0]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB, {system}{busy}."
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    if "copy_rate" in roofline:
        single, half = (f"{roofline[f'matrix_rate_{dtype}']['median'] / 1e12:,.2f}" for dtype in ("float32", "bfloat16"))
        copying = f"{roofline['copy_rate']['median'] / 1e9:,.0f} GB/s read and written"
        yield f"Matrix products: {single} TFLOP/s in float32, {half} in bfloat16; copying: {copying}."
    options = f" --minutes={everything['minutes']:g}" if everything["minutes"] else ""
    yield f"`python -m benchmarks.suite{options}`, {everything['seconds'] / 60:.1f} minutes."
    if not everything["complete"]:
        later = f" Still to come: {', '.join(everything['pending'])}." if everything["pending"] else ""
        yield f"**Not complete**: the suite was still running when this was written, or was stopped.{later}"


def _correctness(result: Mapping[str, Any]) -> Iterator[list[str]]:
    checks = result["checks"]
    passed = sum(check["passed"] for check in checks)
    not_done = f"; {len(result['left_out'])} not done" if result["left_out"] else ""
    yield [f"Correctness: {passed} of {len(checks)} checks passed{not_done}."]
    yield [f"- {'passed' if check['passed'] else '**FAILED**'}: {check_text(check)}" for check in checks]


def check_text(check: Mapping[str, Any]) -> str:
    """The name of a check, and its detail."""
    return f"{check['name']}: {check['detail']}" if check.get("detail") else check["name"]


def _compilations(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The seconds of the first steps, with compilation."""
    for line in lines:
        if "compile_s" in line:
            yield f"- First step with its compilation, {line['name']}: {tables.first_step_text(line)}."


def _batch_sizes(result: Mapping[str, Any] | None) -> Iterator[list[str]]:
    if not result:
        return
    rows = [["batch", "images/s", "first step, s", "compiled"]]
    for size, rate in result["batch_sizes"].items():
        compiled = result["batch_compilations"].get(size, {})
        how = ("cold" if compiled["cold"] else "read from the cache") if compiled else ""
        first = f"{compiled['compile_s']:.1f}" if compiled else ""
        rows.append([f"{int(size):,}", tables.number(rate) if rate else "does not fit", first, how])
    yield tables.markdown_table(rows)


def _layers(result: Mapping[str, Any] | None) -> Iterator[list[str]]:
    if not result or not result.get("layers"):
        return
    compiled, step = result["layer_compilations"], f"the step takes {result['step_ms']['median']:.3f} ms"
    how = "compiled cold" if compiled["cold"] else "read from the cache"
    programs = f"Their programs were {how} in {compiled['seconds']:.1f} s by {compiled['threads']} threads"
    yield [f"Layers alone, batch {result['config']['batch_size']:,}; {step}. {programs}."]
    yield tables.markdown_table([tables.LAYERS_HEADER, *tables.layer_rows(result["layers"])])


def _memory(result: Mapping[str, Any] | None) -> Iterator[str]:
    if not result:
        return
    for size, planned in result["planned"].items():
        parts = ", ".join(f"{planned[name] / MIB:,.0f} {name}" for name in ("state and batch", "temporaries", "peak"))
        yield f"- Memory of a step as XLA plans it, batch {int(size):,}, MiB on one device: {parts}."
    if samples := result.get("run"):
        first, last = samples[0], samples[-1]
        seen = ", ".join(f"{k} {first[k] / MIB:,.1f} and {last[k] / MIB:,.1f}" for k in last if k != "step")
        yield f"- Memory after {first['step']:,} and {last['step']:,} steps, MiB: {seen}."


def _start_up(result: Mapping[str, Any] | None) -> Iterator[str]:
    if not result:
        return
    parts = []
    if first := result["first"]:
        parts.append(f"{first['all']:.1f} compiled cold, of which {first['compilation']:.1f} for compilation")
    if seconds := result["seconds"]:
        stages = ", ".join(f"{stage} {v['median']:.1f}" for stage, v in seconds.items() if stage != "all")
        span = " to ".join(f"{seconds['all'][end]:.1f}" for end in ("min", "max"))
        parts.append(f"{seconds['all']['median']:.1f} ({span}) compiled before: {stages}")
    yield f"- From the command to the end of the first step, s: {'; '.join(parts)}."


def _ratio(line: Mapping[str, Any]) -> str:
    """The median and range of the ratios round by round if rounds alternate; otherwise the ratio of the medians."""
    ours, other = line["ours"], line["other"]
    if not other:
        return ""
    if not line.get("alternating", True) or len(ours["rounds"]) != len(other["rounds"]):
        return f"{ours['median'] / other['median']:.2f}"
    ratio = timing.ratios(ours["rounds"], other["rounds"])
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _span(values: Mapping[str, Any] | None) -> list[str]:
    if not values:
        return ["", ""]
    median, least, most = (tables.number(values[name]) for name in ("median", "min", "max"))
    return [median, f"{least} to {most}"]


if __name__ == "__main__":
    cli.run(main, define_flags, takes_arguments=True)
