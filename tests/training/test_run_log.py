"""The lines of metrics.jsonl, TensorBoard events, and printed lines."""

import json
import sys

import pytest
from small_run import small_spec

from openset_jax.training.run_log import RunLog, cut_back

VALUES = {"loss": 1.0, "accuracy": 0.5, "none_rate": 0.25, "learning_rate": 0.1}


def spec_of(workdir):
    return small_spec(workdir, steps=100, batch_size=10)


def test_resuming_removes_lines_after_the_checkpoint_and_an_incomplete_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"ste')
    cut_back(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
    cut_back(path, 100)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
    cut_back(tmp_path / "absent.jsonl", 4)


def test_resuming_removes_unreadable_lines_names_them_and_keeps_the_others(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 2}\n{"st\0\0\0\n\xff\n{"step": 9}\n{"step": 4}\n{"st')
    cut_back(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
    assert capsys.readouterr().out == f"Warning: removed unreadable lines from {path}: 2, 3.\n"


def test_a_line_has_the_documented_fields_and_is_on_disk_at_once(tmp_path, capsys):
    pytest.importorskip("tensorflow")  # events are written if it is loaded
    log = RunLog(spec_of(tmp_path), 0)
    log.line(10, VALUES | {"validation_auroc": 0.9, "validation_auroc_seen": None})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row.items() >= (VALUES | {"step": 10, "validation_auroc": 0.9}).items()
    assert row["images_per_second"] > 0
    said = capsys.readouterr().out
    assert "step  10/100" in said
    assert "auroc 0.9000" in said
    log.line(20, VALUES | {"loss": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])["loss"] is None
    log.close()
    assert any(tmp_path.glob("events.out.tfevents.*"))


def test_without_tensorflow_there_are_no_events_and_the_log_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    log = RunLog(spec_of(tmp_path), 0)
    log.line(10, VALUES)
    log.close()
    assert "No TensorBoard events" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_line_of_a_postponed_evaluation_is_replaced_and_has_no_rate(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2}\n{"step": 4}\n'
    )  # the checkpoint of step 4 was saved before its line
    log = RunLog(spec_of(tmp_path), 4, step_unlogged=True)
    log.stop_clock(4)
    log.line(4, VALUES)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[1]["images_per_second"] is None
    assert "left" not in capsys.readouterr().out


def test_time_between_stopping_and_starting_the_clock_does_not_count(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("openset_jax.training.run_log.time.monotonic", lambda: now[0])
    log = RunLog(spec_of(tmp_path), 0)
    now[0] = 2.0
    log.stop_clock(10)
    now[0] = 50.0  # evaluating
    log.line(10, VALUES)
    log.start_clock(10)
    now[0] = 51.0
    log.line(20, VALUES)
    log.close()
    rates = [json.loads(line)["images_per_second"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rates == [50.0, 100.0]
