"""TFDS sets, image folders, packed arrays and the embedded digits, all as a `Source` of records that are read by number.

Whatever the storage, reads are random access and nothing but labels and positions is held in memory.
"""

import functools
import io
import itertools
import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np

from openset_jax.data import packed
from openset_jax.data.pools import ROLES, TEST, TRAIN, UNASSIGNED, VALIDATION, Source
from openset_jax.errors import UserError, needing_tensorflow

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
KINDS = ("tfds:NAME", "folder:PATH", "packed:PATH", "digits")


def open_source(name: str, *, data_dir: str = "", train: str = "train", validation: str = "", test: str = "test") -> Source:
    """Opens `tfds:NAME`, `folder:PATH`, `packed:PATH` or `digits`.

    Args:
      name: the kind and the name or path.
      data_dir: where TFDS data sets are prepared; empty for TFDS's own default.
      train, validation, test: what the source calls its splits, "" where it has none; TFDS slices work ("train[:80%]").
        With neither validation nor test, the pool splits the images of `train`. Sources without splits (digits, folders
        by role), and packed arrays, which know their own, ignore all three.

    Raises:
      UserError: the source is unknown, missing, empty or not prepared.
    """
    kind, _, place = name.partition(":")
    splits = {code: split for code, split in zip((TRAIN, VALIDATION, TEST), (train, validation, test), strict=True) if split}
    if list(splits) == [TRAIN]:
        splits = {UNASSIGNED: train}
    if len(set(splits.values())) < len(splits):
        raise UserError(f"{name}: the splits {', '.join(splits.values())} are not different; one image has one split")
    if name == "digits":
        return _digits()
    if kind in ("folder", "packed") and place:
        root = pathlib.Path(place).expanduser()
        if not root.is_dir():
            raise UserError(f"{name}: there is no folder {str(root)!r}")
        name = f"{kind}:{os.path.normpath(root)}"
        return packed.open_packed(name, root) if kind == "packed" else _folder(name, root, splits)
    if kind == "tfds" and place:
        return _tfds(name, place, data_dir, splits)
    raise UserError(f"source {name!r}: not one of {', '.join(KINDS)}")


# --- digits -----------------------------------------------------------------------------------------------------------


def _digits() -> Source:
    """The 1,797 8x8 digits that come with scikit-learn (UCI Optical Recognition of Handwritten Digits, test part)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    encoded = []
    for image in (digits.images * (255 / 16)).round().astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append(file.getvalue())
    return Source(
        name="digits",
        classes=tuple(map(str, range(10))),
        roles=None,
        label=digits.target.astype(np.int32),
        split=np.full(len(encoded), UNASSIGNED, np.uint8),
        form="encoded",
        ids=lambda records: [f"digits#{r}" for r in records],
        fetch=lambda records: [encoded[r] for r in records],
    )


# --- folders ----------------------------------------------------------------------------------------------------------


def _folder(name: str, root: pathlib.Path, splits: dict[int, str]) -> Source:
    """ROOT/{known,negatives,held_out_negatives,unknown}/CLASS/**, or TFDS's ImageFolder layout ROOT/SPLIT/CLASS/*."""
    by_role = (root / "known").is_dir()
    tops = dict.fromkeys(ROLES, UNASSIGNED) if by_role else {split: code for code, split in splits.items()}
    if not tops:
        raise UserError(f"{name}: no split is named; set train, validation or test")
    classes, paths, labels, codes = {}, [], [], []
    for top, code in tops.items():
        if by_role and not (root / top).is_dir():
            continue
        if not (root / top).is_dir():
            existing = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
            raise UserError(f"{_no_split(name, top, existing)}. Folders by role need {root}/known/CLASS/")
        for folder in sorted(e.name for e in os.scandir(root / top) if e.is_dir() and not e.name.startswith(".")):
            found = sorted(_image_files(root, f"{top}/{folder}"))
            label = classes.setdefault((top if by_role else None, folder), len(classes))
            paths.extend(found)
            labels.extend([label] * len(found))
            codes.extend([code] * len(found))
    if not paths:
        raise UserError(
            f"{name}: no {', '.join(IMAGE_SUFFIXES)} files in {', '.join(f'{root}/{top}/CLASS/' for top in tops)}"
        )
    table = packed.byte_strings(paths)
    names = lambda records: [path.encode("latin-1") for path in table[records].tolist()]
    prefix = os.fsencode(root)
    return Source(
        name=name,
        classes=tuple(folder for _, folder in classes),
        roles=tuple(role for role, _ in classes) if by_role else None,
        label=np.array(labels, np.int32),
        split=np.array(codes, np.uint8),
        form="path",
        ids=lambda records: [os.fsdecode(path) for path in names(records)],
        fetch=lambda records: [prefix + b"/" + path for path in names(records)],
    )


def _no_split(name, split, existing):
    return (
        f"{name}: no split {split!r}; it has {', '.join(existing[:20]) or 'none'}. Name its splits in the config (train, "
        "validation, test; a source that has only one: leave the other two empty, and it is split by hash)"
    )


def _image_files(root: pathlib.Path, below: str):
    """Paths relative to root of the image files in a folder and its subfolders; hidden ones are left out."""
    for entry in os.scandir(root / below):
        path = f"{below}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(root, path)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            yield path


# --- TFDS -------------------------------------------------------------------------------------------------------------


def _tfds(name: str, dataset: str, data_dir: str, splits: dict[int, str]) -> Source:
    """Any prepared TFDS image classification set, in TFRecord or ArrayRecord files."""
    with needing_tensorflow(name):
        import tensorflow_datasets as tfds

    directory = os.path.expanduser(data_dir) or None
    if directory and not os.path.isdir(directory):
        raise UserError(f"{name}: data_dir {data_dir!r} is not a folder")
    try:
        builder = tfds.builder(dataset, data_dir=directory, try_gcs=False)
        info = builder.info
    except Exception as error:  # tfds has no common base class for "there is no such data set"
        raise UserError(f"{name}: TFDS knows no such data set ({str(error).strip().splitlines()[0]})") from error
    if not info.splits:
        raise UserError(
            f'{name}: not prepared in {builder.data_dir}. Prepare it once: python -c "import tensorflow_datasets as tfds; '
            f'tfds.builder({dataset!r}, data_dir={directory!r}).download_and_prepare()", or set data_dir to where it is'
        )
    image_key, label_key = _image_and_label(name, info, tfds)
    read_shard = {"tfrecord": _TFRecordShard, "array_record": _ArrayRecordShard}.get(info.file_format.value)
    if read_shard is None:
        raise UserError(f"{name}: prepared as {info.file_format.value}; prepare it as tfrecord or array_record")
    shards, labels, codes, names, places = [], [], [], [], []
    for code, split in splits.items():
        if split.split("[")[0] not in info.splits:
            raise UserError(_no_split(name, split, list(info.splits)))
        try:
            instructions = info.splits[split].file_instructions
        except ValueError as error:
            raise UserError(f"{name}: {split!r} is not a slice that TFDS can read ({error})") from error
        for instruction in instructions:
            if not os.path.exists(instruction.filename):
                raise UserError(f"{name}: {instruction.filename} is missing; prepare the data set again")
            shard = read_shard(instruction.filename)
            stop = instruction.skip + instruction.take if instruction.take >= 0 else instruction.examples_in_shard
            chosen = np.arange(instruction.skip, stop)
            found = shard.labels(label_key)
            if len(found) != instruction.examples_in_shard:
                raise UserError(
                    f"{name}: {instruction.filename} holds {len(found):,} records, not the "
                    f"{instruction.examples_in_shard:,} of its dataset_info.json; prepare the data set again"
                )
            labels.append(found[chosen])
            codes.append(np.full(len(chosen), code, np.uint8))
            places.append(np.stack([np.full(len(chosen), len(shards)), chosen], axis=1))
            names.append(os.path.basename(instruction.filename))
            shards.append(shard)
    if not places:
        raise UserError(f"{name}: no images in {', '.join(splits.values())}")
    place = np.concatenate(places)

    def fetch(records):
        content = [b""] * len(records)
        where = place[records]
        for i in np.unique(where[:, 0]):
            here = np.flatnonzero(where[:, 0] == i)
            for j, record in zip(here, shards[i].read(where[here, 1]), strict=True):
                content[j] = record
        return content

    return Source(
        name=f"tfds:{info.full_name}",
        classes=tuple(info.features[label_key].names),
        roles=None,
        label=np.concatenate(labels).astype(np.int32),
        split=np.concatenate(codes),
        form=f"example:{image_key}",
        ids=lambda records: [f"{names[s]}#{i}" for s, i in place[records].tolist()],
        fetch=fetch,
    )


def _image_and_label(name, info, tfds):
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    supervised = info.supervised_keys or ()
    if not images or not labels:
        raise UserError(f"{name}: not an image classification set; its features are {', '.join(features)}")
    pick = lambda found: next((k for k in supervised if k in found), found[0])
    return pick(images), pick(labels)


def _parse_labels(serialized: Sequence[bytes], key: str) -> np.ndarray:
    import tensorflow as tf

    return tf.io.parse_example(serialized, {key: tf.io.FixedLenFeature([], tf.int64)})[key].numpy()


@functools.lru_cache(maxsize=64)  # of a thousand shards, not all stay open
def _array_record_reader(path: str):
    from array_record.python import array_record_module

    # the defaults read ahead, which makes random reads 15 times slower
    return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")


class _ArrayRecordShard:
    """One ArrayRecord file: random access is what the format is for."""

    def __init__(self, path: str):
        self._path = path

    def labels(self, key: str) -> np.ndarray:
        reader = _array_record_reader(self._path)
        count = reader.num_records()
        parts = [_parse_labels(reader.read(i, min(i + 4096, count)), key) for i in range(0, count, 4096)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def read(self, records: np.ndarray) -> list[bytes]:
        return _array_record_reader(self._path).read(records.tolist())


class _TFRecordShard:
    """One TFRecord file: an index of byte offsets, built in the pass that reads the labels, gives it random access.

    A record is a uint64 length, its uint32 checksum, the content, and the content's uint32 checksum.
    """

    def __init__(self, path: str):
        self._path = path
        self._offset = self._length = np.zeros(0, np.int64)

    def labels(self, key: str) -> np.ndarray:
        spans, labels = [], []
        with open(self._path, "rb") as file:
            for chunk in _batched(self._records(file), 4096):
                spans.extend((offset, len(content)) for offset, content in chunk)
                labels.append(_parse_labels([content for _, content in chunk], key))
        self._offset, self._length = np.array(spans, np.int64).reshape(-1, 2).T
        return np.concatenate(labels) if labels else np.zeros(0, np.int64)

    def read(self, records: np.ndarray) -> list[bytes]:
        with open(self._path, "rb", buffering=0) as file:
            return [os.pread(file.fileno(), int(self._length[r]), int(self._offset[r])) for r in records]

    def _records(self, file):
        position = 0
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            content = file.read(max(length, 0))
            if len(content) != length or len(file.read(4)) != 4:
                raise UserError(f"{self._path}: cut off after {position:,} bytes; prepare the data set again")
            yield position + 12, content
            position += length + 16


def _batched(items, size):
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield chunk
