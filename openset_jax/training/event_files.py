"""TensorBoard's event files of a run: cut back when the run is resumed, so that no step is drawn twice."""

import pathlib
import struct

from openset_jax.text import show


def cut_back(workdir: pathlib.Path, step: int) -> None:
    """Truncates each event file at its first event after `step`, or at an incomplete one.

    A file is a sequence of records: length (uint64), checksum (uint32), an `Event` of this length, checksum (uint32).
    Without TensorBoard, as on a machine without TensorFlow, prints that the events stay.
    """
    if not (paths := sorted(workdir.glob("events.out.tfevents.*"))):
        return
    try:
        from tensorboard.compat.proto import event_pb2
    except ModuleNotFoundError:
        show(f"TensorBoard is not installed: events after step {step} stay in {workdir}, and TensorBoard draws them, too.")
        return
    for path in paths:
        with path.open("r+b") as file:
            content, start = file.read(), 0
            while start + 12 <= len(content):
                end = start + 16 + struct.unpack_from("<Q", content, start)[0]
                if end > len(content) or event_pb2.Event.FromString(content[start + 12 : end - 4]).step > step:
                    break
                start = end
            file.truncate(start)
