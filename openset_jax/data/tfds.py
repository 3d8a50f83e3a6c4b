"""Prepared TFDS data sets as a `Source`: random access to the records of their files. Needs TensorFlow and TFDS."""

import functools
import itertools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from openset_jax.data.pools import Source, missing_split
from openset_jax.data.tensorflow_cpu import tf
from openset_jax.errors import UserError

_LABELS_AT_ONCE = 4096


Read = Callable[[np.ndarray], list[bytes]]  # numbers of records in a file, int [n] -> serialised tf.Examples


class _Part(NamedTuple):
    """The records of one file that belong to one split: their numbers, labels and split code."""

    read: Read
    file_name: str
    records: np.ndarray
    labels: np.ndarray
    code: int


def open_tfds(name: str, dataset: str, data_dir: str, splits: dict[int, str]) -> Source:
    """Opens any prepared image classification set, in TFRecord or ArrayRecord files.

    Args:
      dataset: TFDS's name, optionally with config and version.
      data_dir: the folder in which it was prepared; "" for TFDS's default.
      splits: {TRAIN, VALIDATION, TEST or UNASSIGNED: split or slice, such as "train[:80%]"}.

    Raises:
      UserError: the data set or a split does not exist, is not prepared, is damaged, or has no images or no classes.
    """
    info = _prepared_info(name, dataset, data_dir)
    image_key, label_key = _image_and_label(name, info)
    if info.file_format.value not in _OPEN:
        raise UserError(f"{name}: prepared as {info.file_format.value}; prepare it as tfrecord or array_record")
    parts = [part for code, split in splits.items() for part in _parts(name, info, label_key, split, code)]
    if not parts:
        raise UserError(f"{name}: no images in {', '.join(splits.values())}")
    place = np.concatenate([np.stack([np.full(len(p.records), i), p.records], axis=1) for i, p in enumerate(parts)])

    def fetch(records):
        content, where = np.empty(len(records), object), place[records]
        for i in np.unique(where[:, 0]):
            here = where[:, 0] == i
            content[here] = parts[i].read(where[here, 1])
        return content.tolist()

    return Source(
        name=f"tfds:{info.full_name}",
        classes=tuple(info.features[label_key].names),
        roles=None,
        label=np.concatenate([part.labels for part in parts]).astype(np.int32),
        split=np.concatenate([np.full(len(part.records), part.code, np.uint8) for part in parts]),
        format=f"example:{image_key}",
        ids=lambda records: [f"{parts[i].file_name}#{record}" for i, record in place[records].tolist()],
        fetch=fetch,
    )


def _prepared_info(name: str, dataset: str, data_dir: str) -> Any:
    """Returns TFDS's `DatasetInfo`."""
    directory = os.path.expanduser(data_dir) or None
    if directory and not os.path.isdir(directory):
        raise UserError(f"{name}: data.tfds_data_dir={data_dir!r} is not a folder")
    try:
        builder = tfds.builder(dataset, data_dir=directory, try_gcs=False)
        info = builder.info
    except Exception as error:  # tfds has no common base class for errors of unknown data sets
        raise UserError(f"{name}: TFDS cannot open this data set ({str(error).strip().splitlines()[0]})") from error
    if not info.splits:
        raise UserError(
            f'{name}: not prepared in {builder.data_dir}. Prepare it once: python -c "import tensorflow_datasets as tfds; '
            f'tfds.builder({dataset!r}, data_dir={directory!r}).download_and_prepare()", or set data.tfds_data_dir'
        )
    return info


def _image_and_label(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the image and the label feature: the supervised keys, else the first feature of each type."""
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    supervised = info.supervised_keys or ()
    if not images or not labels:
        raise UserError(f"{name}: not an image classification set; its features are {', '.join(features)}")
    pick = lambda found: next((k for k in supervised if k in found), found[0])
    return pick(images), pick(labels)


def _parts(name: str, info: Any, label_key: str, split: str, code: int) -> Iterator[_Part]:
    """Yields the parts of a split or slice, one for each of its files."""
    if split.split("[")[0] not in info.splits:
        raise UserError(missing_split(name, split, list(info.splits)))
    try:
        instructions = info.splits[split].file_instructions
    except ValueError as error:
        raise UserError(f"{name}: {split!r} is not a slice that TFDS can read ({error})") from error
    for instruction in instructions:
        if not os.path.exists(instruction.filename):
            raise UserError(f"{name}: {instruction.filename} is missing; prepare the data set again")
        labels, read = _OPEN[info.file_format.value](instruction.filename, label_key)
        if len(labels) != instruction.examples_in_shard:
            raise UserError(
                f"{name}: {instruction.filename} has {len(labels):,} records, but its dataset_info.json says "
                f"{instruction.examples_in_shard:,}; prepare the data set again"
            )
        stop = instruction.skip + instruction.take if instruction.take >= 0 else instruction.examples_in_shard
        records = np.arange(instruction.skip, stop)
        yield _Part(read, os.path.basename(instruction.filename), records, labels[records], code)


def _parse_labels(path: str, serialized: Sequence[bytes], key: str) -> np.ndarray:
    try:
        return tf.io.parse_example(serialized, {key: tf.io.FixedLenFeature([], tf.int64)})[key].numpy()
    except (tf.errors.OpError, UnicodeDecodeError) as error:  # the message may quote the record, which is no UTF-8
        raise UserError(f"{path}: a record is damaged, or has no label {key!r}; prepare the data set again") from error


@functools.lru_cache(maxsize=64)  # limits the number of open files
def _array_record_reader(path: str) -> array_record_module.ArrayRecordReader:
    # the defaults read ahead, which makes random reads 15 times slower
    return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")


def _open_array_record(path: str, label_key: str) -> tuple[np.ndarray, Read]:
    """Returns the labels of all records of an ArrayRecord file, int64 [n], and random access to the records."""
    reader, step = _array_record_reader(path), _LABELS_AT_ONCE
    count, labels = reader.num_records(), [np.zeros(0, np.int64)]
    for i in range(0, count, step):
        labels.append(_parse_labels(path, reader.read(i, min(i + step, count)), label_key))
    return np.concatenate(labels), lambda records: _array_record_reader(path).read(records.tolist())


def _open_tfrecord(path: str, label_key: str) -> tuple[np.ndarray, Read]:
    """As `_open_array_record`, for a TFRecord file: an index of byte offsets, built with the labels, gives random access."""
    spans: list[tuple[int, int]] = []
    labels, records = [np.zeros(0, np.int64)], _tfrecords(path)
    while chunk := list(itertools.islice(records, _LABELS_AT_ONCE)):
        spans.extend((offset, len(content)) for offset, content in chunk)
        labels.append(_parse_labels(path, [content for _, content in chunk], label_key))
    offset, length = np.array(spans, np.int64).reshape(-1, 2).T

    def read(records):
        with open(path, "rb", buffering=0) as file:
            return [os.pread(file.fileno(), int(length[r]), int(offset[r])) for r in records]

    return np.concatenate(labels), read


def _tfrecords(path: str) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, content) of each record of a file.

    A record is a uint64 length, the length's uint32 checksum, the content, and the content's uint32 checksum.
    """
    with open(path, "rb") as file:
        position = 0
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            content = file.read(max(length, 0))
            if len(content) != length or len(file.read(4)) != 4:
                raise UserError(f"{path}: cut off after {position:,} bytes; prepare the data set again")
            yield position + 12, content
            position += length + 16


_OPEN = {"tfrecord": _open_tfrecord, "array_record": _open_array_record}
