"""TensorBoard's events after the step at which a run is resumed are removed."""

import sys

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.summary.writer.record_writer import RecordWriter

from openset_jax.training import event_files


def write(path, steps):
    with path.open("wb") as file:
        for event in (Event(file_version="brain.Event:2"), *(Event(step=step, wall_time=step) for step in steps)):
            RecordWriter(file).write(event.SerializeToString())


def steps_of(path):
    """As TensorBoard reads them, without the first event, the version of the format."""
    reader, events = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:  # the end, which no incomplete event precedes
            reader.file_handle.close()
            assert events[0].file_version
            return [event.step for event in events[1:]]
        events.append(Event.FromString(reader.record()))


@pytest.mark.parametrize(("step", "left"), [(0, []), (4, [2, 2, 4]), (5, [2, 2, 4]), (100, [2, 2, 4, 6])])
@pytest.mark.parametrize("lost", [0, 3, 10])
def test_events_after_the_step_and_an_incomplete_one_are_removed(tmp_path, step, left, lost):
    path = tmp_path / "events.out.tfevents.1.here"
    write(path, [2, 2, 4, 6])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - lost])
    for _ in range(2):
        event_files.cut_back(tmp_path, step)
        assert steps_of(path) == left[: 3 if lost else 4]


def test_the_files_of_all_starts_are_cut_and_others_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    event_files.cut_back(tmp_path, 3)
    names = ["events.out.tfevents.1.here", "events.out.tfevents.2.here"]
    for name in names:
        write(tmp_path / name, [1, 3, 5, 7])
    event_files.cut_back(tmp_path, 3)
    assert [steps_of(tmp_path / name) for name in names] == [[1, 3], [1, 3]]
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_without_tensorboard_the_events_stay_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    event_files.cut_back(tmp_path, 3)
    assert not capsys.readouterr().out
    path = tmp_path / "events.out.tfevents.1.here"
    write(path, [1, 5])
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    event_files.cut_back(tmp_path, 3)
    assert steps_of(path) == [1, 5]
    assert capsys.readouterr().out.startswith("TensorBoard is not installed: events after step 3 stay")
