"""The section of a machine, and adding it to RESULTS.md."""

import json
import sys
import types

import pytest
from small_run import run

from benchmarks import job_rows, jobs, results, tables, timing
from openset_jax.errors import UserError

MACHINE = {
    "cpu": "A CPU", "cores": 16, "memory_gib": 128.0, "system": "Linux", "busy_cores": 0.0, "date": "2026-12-01",
    "versions": {"python": "3.12.1", "jax": "0.11.2"}, "devices": ["NVIDIA H200"],
}  # fmt: skip
RATE = timing.summary([90.0, 100.0, 130.0])
LAYER = {"ms": timing.summary([2.0, 2.0]), "flops": 3e9, "bytes": 4e6, "bound_ms": 1.0, "share": 0.5}
RESULTS = {
    "correctness": {
        "checks": [{"name": "gradients", "passed": True, "detail": "1e-3", "seconds": 2.0}],
        "passed": True,
        "left_out": {"losses": "no time"},
    },
    "best batch size": {
        "batch_sizes": {"1024": 5_000.0, "8192": None},
        "batch_compilations": {"1024": {"compile_s": 2.0, "cold": False}},
    },
    "layers": {
        "config": {"batch_size": 1024},
        "step_ms": timing.summary([5.0]),
        "layers": {"conv1": LAYER, "fc6": LAYER},
        "layer_compilations": {"seconds": 9.0, "threads": 8, "cold": True},
    },
    "memory": {
        "planned": {"1024": {"state and batch": 2**30, "temporaries": 2**31, "peak": 3 * 2**30}},
        "run": [{"step": 40, "host": 2**30, "device": 2**31}, {"step": 400, "host": 2**30, "device": 2**31}],
    },
    "start-up": {
        "first": {"all": 38.0, "compilation": 25.0},
        "seconds": {"imports": timing.summary([2.0]), "all": timing.summary([11.0, 12.0])},
    },
}
EVERYTHING = {
    "machine": MACHINE,
    "roofline": {"platform": "gpu", "count": 1} | {
        name: timing.summary([1e12]) for name in ("matrix_rate_float32", "matrix_rate_bfloat16", "copy_rate")
    },
    "peer": {"torch": "2.11.0"},
    "minutes": 5.0,
    "seconds": 290.0,
    "complete": True,
    "pending": [],
    "jobs": [{"name": "correctness", "seconds": 88.2, "limit": 90.0, "outcome": "88 s"}],
    "table": [
        job_rows.row("step: alexnet", RATE, timing.summary([50.0]), "PyTorch, compiled", matrix_share=0.4,
                 roofline_share=0.5, compile_s=29.0, cold=True),
        job_rows.row("epoch: 140,000 images", RATE, epoch_s=timing.summary([2.05]), compile_s=1.0, cold=False),
    ],
    "left_out": {"layer fc7": "no time", "start-up: 1 of 2 starts": "each takes about 30 s", "layer fc8": "no time"},
    "failed": {},
    "results": RESULTS,
}  # fmt: skip


def test_a_section_has_all_that_was_measured():
    text = results.section(EVERYTHING)
    assert text.startswith("## 2026-12-01: 1 x NVIDIA H200\n\nA CPU, 16 cores, 128.0 GiB, Linux.\n")
    lines = text.splitlines()
    for line in (
        "python 3.12.1, jax 0.11.2, torch 2.11.0.",
        "Matrix products: 1.00 TFLOP/s in float32, 1.00 in bfloat16; copying: 1,000 GB/s read and written.",
        "`python -m benchmarks.suite --minutes=5`, 4.8 minutes.",
        "Correctness: 1 of 1 checks passed; 1 not done.",
        "- passed: gradients: 1e-3",
        "|  | images/s | range | beside | images/s | range | ratio | of matrix rate | of roofline | epoch, s |",
        "| step: alexnet | 100 | 90.0 to 130 | PyTorch, compiled | 50.0 | 50.0 to 50.0 | 2.00 | 40.0% | 50.0% |  |",
        "| epoch: 140,000 images | 100 | 90.0 to 130 |  |  |  |  |  |  | 2.05 |",
        "- First step with its compilation, step: alexnet: 29.0 s, compiled cold.",
        "- First step with its compilation, epoch: 140,000 images: 1.0 s, compiled before, read from the cache.",
        "| 1,024 | 5,000 | 2.0 | read from the cache |",
        "| 8,192 | does not fit |  |  |",
        "Layers alone, batch 1,024; the step takes 5.000 ms. Their programs were compiled cold in 9.0 s by 8 threads.",
        "| " + " | ".join(tables.LAYERS_HEADER) + " |",
        "| all of these | 4.000 | 2.000 | 50% |  |  |",
        "- Memory of a step as XLA plans it, batch 1,024, MiB on one device: 1,024 state and batch, 2,048 temporaries, "
        "3,072 peak.",
        "- Memory after 40 and 400 steps, MiB: host 1,024.0 and 1,024.0, device 2,048.0 and 2,048.0.",
        "- From the command to the end of the first step, s: 38.0 compiled cold, of which 25.0 for compilation; 11.5 (11.0 "
        "to 12.0) compiled before: imports 2.0.",
        "- Left out: layer fc7; layer fc8: no time.",
        "- Left out: start-up: 1 of 2 starts: each takes about 30 s.",
        "Wall time, s: correctness 88.",
    ):
        assert line in lines, line


def test_the_ratio_is_of_each_round_where_rounds_alternate_and_else_of_the_medians():
    ours, other = timing.summary([10.0, 30.0, 20.0]), timing.summary([10.0, 10.0, 5.0])
    assert results.cells(job_rows.row("step", ours, other, "PyTorch"))[6] == "3.00 (1.00 to 4.00)"
    assert results.cells(job_rows.row("step", ours, timing.summary([10.0]), "PyTorch"))[6] == "2.00"
    of_a_run = {"rates": {timing.OURS: ours}}
    [row] = job_rows.of_rates_beside(jobs.STEP, "the bare step")(of_a_run, {jobs.STEP: {"rates": {timing.OURS: other}}})
    assert results.cells(row)[6] == "2.00"


def test_a_section_of_nothing_but_the_machine():
    nothing = EVERYTHING | {
        "results": {},
        "table": [],
        "left_out": {},
        "jobs": [],
        "roofline": None,
        "peer": None,
        "minutes": 0.0,
    }
    text = results.section(nothing | {"complete": False, "pending": ["step"]})
    assert text.startswith("## 2026-12-01: 1 x NVIDIA H200\n")
    assert "was stopped. Still to come: step." in text and "|" not in text


OLD = """# Results

Introduction.

```bash
# no heading
```

## 2026-12-02: newer

New.

## 2026-12-01: 1 x NVIDIA H200

Old.

## 2026-11-30: older

Older.

## Not measured

# Calculated
"""


def headings(text):
    return [part.partition("\n")[0] for part in results.split(text)]


def test_a_section_replaces_the_one_with_its_heading_and_stands_by_its_date():
    text = results.with_section(OLD, results.section(EVERYTHING))
    assert headings(text) == headings(OLD)
    assert "\nOld.\n" not in text and "Correctness: 1 of 1" in text
    assert results.with_section(text, results.section(EVERYTHING)) == text
    without = results.with_section(OLD, "## 2026-12-03: another\n\nText.\n")
    assert headings(without)[1:3] == ["## 2026-12-03: another", "## 2026-12-02: newer"]
    assert without.replace("## 2026-12-03: another\n\nText.\n\n", "") == OLD
    last = results.with_section(OLD, "## 2026-01-01: another\n\nText.\n")
    assert headings(last)[4:6] == ["## 2026-01-01: another", "## Not measured"]


def test_the_results_that_are_there_keep_their_order():
    text = results.FILE.read_text()
    first, *others = headings(text)
    assert first == "# Results"
    assert results.with_section(text, "## 2100-01-01: a machine\n") == text.replace(
        others[0] + "\n", "## 2100-01-01: a machine\n\n" + others[0] + "\n", 1
    )


def test_the_command_writes_the_section_and_that_of_the_variants(tmp_path, monkeypatch):
    file, folder = tmp_path / "RESULTS.md", tmp_path / "out"
    file.write_text(OLD)
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(EVERYTHING))
    command = [sys.executable, "-m", "benchmarks.results", f"--file={file}", str(folder)]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert results.section(EVERYTHING) in file.read_text()
    (folder / "variants.json").write_text(json.dumps({"rows": 3, "machine": MACHINE}))
    fake = types.ModuleType("benchmarks.variant_table")
    fake.markdown = lambda result: f"### Variants\n\n{result['rows']} rows\n"
    monkeypatch.setitem(sys.modules, "benchmarks.variant_table", fake)
    assert results.section_of(folder).endswith("Wall time, s: correctness 88.\n\n### Variants\n\n3 rows\n")


def test_variants_of_another_machine_are_refused(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(EVERYTHING))
    (tmp_path / "variants.json").write_text(json.dumps({"machine": MACHINE | {"devices": ["NVIDIA H100"]}}))
    with pytest.raises(UserError, match="another machine .* devices differs"):
        results.section_of(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_without_results_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    done = run([sys.executable, "-m", "benchmarks.results", str(tmp_path)])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "results.json" in done.stderr and "Traceback" not in done.stderr
