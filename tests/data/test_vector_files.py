"""Vectors as a source: the layouts that are read, and what is wrong with the others."""

import dataclasses

import numpy as np
import pytest
import vectors
from vectors import SIZE

from openset_jax.data import packed, pools, sources, vector_files
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.errors import UserError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, which reads Parquet files, is not installed")


def open_(path, **options):
    return sources.open_source(f"features:{path}", **options)


def pool_of(path, roles=pools.ROLES):
    return build_pool({role: [Selection(open_(path))] for role in roles}, stored_size=None)


def write_parquet(path, array, rows, type_=None):
    """One file with the columns of the index, and the vectors."""
    from pyarrow import parquet

    columns = {name: [row[name] for row in rows] for name in rows[0]}
    embedding = pyarrow.array([list(map(float, vector)) for vector in array], type_ or pyarrow.list_(pyarrow.float32()))
    parquet.write_table(pyarrow.table({**columns, "embedding": embedding}), path)


def test_the_vectors_of_a_folder_have_the_roles_and_ids_of_its_index(tmp_path):
    array, rows = vectors.vectors()
    pool = pool_of(vectors.write(tmp_path, array, rows))
    assert pool.array == pools.ArrayType((SIZE,), np.dtype(np.float16))
    assert dict(zip(pool.groups, pool.roles, strict=True)) == vectors.ROLES
    assert len(pool) == len(rows)
    read = pool.sources[0].fetch(pool.record)
    by_id = {row["id"]: vector for row, vector in zip(rows, array, strict=True)}
    np.testing.assert_array_equal(read, [by_id[id_] for id_ in pool.ids(np.arange(len(pool)))])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_parquet_file_holds_the_same(tmp_path, dtype):
    array, rows = vectors.vectors()
    of_folder = pool_of(vectors.write(tmp_path / "folder", array.astype(np.float32), rows))
    lists = {"float16": pyarrow.list_(pyarrow.float16(), SIZE), "float64": pyarrow.list_(pyarrow.float64())}
    type_ = lists.get(dtype)
    if dtype == "float16":
        array = list(array)
    write_parquet(tmp_path / "all.parquet", array, rows, type_)
    pool = pool_of(tmp_path / "all.parquet")
    assert pool.array.dtype == ("float16" if dtype == "float16" else "float32")
    assert pool.counts() == of_folder.counts()
    everything = np.arange(len(pool))
    assert pool.ids(everything) == of_folder.ids(everything)
    np.testing.assert_array_equal(pool.sources[0].fetch(everything), of_folder.sources[0].fetch(everything))


def test_an_index_may_be_a_parquet_file(tmp_path):
    from pyarrow import parquet

    array, rows = vectors.vectors()
    folder = vectors.write(tmp_path, array, rows)
    expected = pool_of(folder).fingerprint()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "index.parquet")
    (folder / "index.csv").unlink()
    assert pool_of(folder).fingerprint() == expected


def test_without_roles_the_splits_are_those_of_the_config_and_others_are_not_used(tmp_path):
    array, rows = vectors.vectors(count=60)
    for i, row in enumerate(rows):
        del row["role"]
        row["split"] = ("fit", "exam", "other")[i % 3]
    source = open_(vectors.write(tmp_path, array, rows), train="fit", test="exam")
    assert source.roles is None
    used = np.flatnonzero(source.label >= 0)
    assert used.tolist() == [i for i in range(300) if i % 3 < 2]
    assert [int(s) for s in source.split[used[:4]]] == [pools.TRAIN, pools.TEST] * 2
    pool = build_pool({"known": [Selection(source)]}, stored_size=None)
    assert len(pool) == 200
    assert pool.ids(np.arange(len(pool))) == [rows[i]["id"] for i in used]
    np.testing.assert_array_equal(source.fetch(pool.record), array[used])
    with pytest.raises(UserError, match="no split 'test'; it has exam, fit, other"):
        open_(tmp_path, train="fit")


def test_roles_and_splits_may_be_given_together(tmp_path):
    array, rows = vectors.vectors(count=6)
    for i, row in enumerate(rows):
        row["split"] = pools.SPLITS[i % 3]
    counts = pool_of(vectors.write(tmp_path, array, rows)).counts()
    assert counts["known"]["a"] == counts["negatives"]["car"] == {"train": 2, "validation": 2, "test": 2}
    assert counts["unknown"]["tree"] == {"train": 0, "validation": 0, "test": 2}
    rows[4]["split"] = "training"
    with pytest.raises(UserError, match=r"index\.csv, row 5: 'split' is 'training', not one of train, validation, test"):
        open_(vectors.write(tmp_path, array, rows))


def test_the_fingerprint_contains_vectors_but_not_their_order(tmp_path):
    array, rows = vectors.vectors(count=20)
    expected = pool_of(vectors.write(tmp_path / "a", array, rows)).fingerprint()
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = vectors.write(tmp_path / "b", array[order], [rows[i] for i in order])
    assert pool_of(shuffled).fingerprint() == expected
    assert pool_of(vectors.write(tmp_path / "c", array.astype(np.float32), rows)).fingerprint() == expected
    other = vectors.write(tmp_path / "d", array[::-1], rows)  # the same ids, as of another network
    assert pool_of(other).fingerprint() != expected


def change(rows, row, **cells):
    return [{**r, **cells} if i == row else r for i, r in enumerate(rows)]


def only(rows, *columns):
    return [{name: row[name] for name in columns} for row in rows]


WRONG = {
    "lengths": (lambda a, rows: (a[:-1], rows), r"index\.csv has 25 rows, but there are 24 vectors"),
    "dtype": (lambda a, rows: (a.astype(np.float64), rows), r"the vectors are float64 \[25, 12\]; save them as float16"),
    "images": (lambda a, rows: (np.zeros((25, 4, 4), np.float32), rows), r"the vectors are float32 \[25, 4, 4\]"),
    "integers": (lambda a, rows: (a.astype(np.int32), rows), "the vectors are int32"),
    "columns": (lambda a, rows: (np.asfortranarray(a), rows), "cannot be read .*not stored row by row; save numpy.ascont"),
    "objects": (lambda a, rows: (np.array([[1], [1, 2]], object), rows), r"features.npy: an array \[2\] of Python objects"),
    "nothing": (lambda a, rows: (a[:0], rows), "there are no vectors"),
    "no features": (lambda a, rows: (a[:, :0], rows), r"the vectors are float16 \[25, 0\]"),
    "no class": (lambda a, rows: (a, only(rows, "id", "role")), "no column 'class'; it has id, role"),
    "neither": (lambda a, rows: (a, only(rows, "id", "class")), "neither a column 'role' nor a column 'split'"),
    "role": (lambda a, rows: (a, change(rows, 2, role="knwon")), "row 3: 'role' is 'knwon', not one of known, negatives"),
    "empty": (lambda a, rows: (a, change(rows, 7, **{"class": ""})), "row 8: 'class' is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_wrong_files_are_refused_by_name(tmp_path, what):
    alter, says = WRONG[what]
    folder = vectors.write(tmp_path, *alter(*vectors.vectors(count=5)))
    with pytest.raises(UserError, match=f"^features:.*{says}"):
        open_(folder)


def test_missing_and_damaged_files_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="'.*/nowhere' does not exist; with configs/features.py, name it by --config"):
        open_(tmp_path / "nowhere")
    folder = vectors.write(tmp_path, *vectors.vectors(count=5))
    whole = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"cannot be read \(features\.npy: .* bytes are too few .* truncated\)"):
        open_(folder)
    (folder / "features.npy").write_bytes(b"PK" + whole[2:])
    with pytest.raises(UserError, match=r"cannot be read \(features\.npy: not a file of numpy\.save: "):
        open_(folder)
    (folder / "features.npy").write_bytes(whole)
    index = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(index.replace("a/3.jpg,a", "a/3.jpg"))
    with pytest.raises(UserError, match=r"index\.csv, row 4: 2 cells, but the first line has 3"):
        open_(folder)
    (folder / "index.csv").write_text(index.replace("a/3.jpg", '"a/3.jpg') + "x" * 140_000)
    with pytest.raises(UserError, match=r"index\.csv, row 4: field larger .*; is a quotation mark missing\?"):
        open_(folder)
    (folder / "index.csv").write_text("")
    with pytest.raises(UserError, match=r"index\.csv has no column 'id'; it has no columns"):
        open_(folder)
    (folder / "index.csv").unlink()
    with pytest.raises(UserError, match=r"no index\.csv or index\.parquet, with the id and the class"):
        open_(folder)
    (folder / "features.npy").unlink()
    with pytest.raises(UserError, match=r"there is no features\.npy, with the vectors, in this folder"):
        open_(folder)


def test_wrong_parquet_files_are_refused_by_name(tmp_path):
    array, rows = vectors.vectors(count=5)
    path = tmp_path / "all.parquet"
    write_parquet(path, [*array[:3], array[3][:5], *array[4:]], rows)
    with pytest.raises(UserError, match="the vector in row 4 has 5 numbers, but row 1 has 12"):
        open_(path)
    from pyarrow import parquet

    fixed = pyarrow.list_(pyarrow.float32(), SIZE)
    for says, embedding in {
        "the vector in row 2 has 0 numbers, but row 1 has 12": pyarrow.array([list(range(12)), None] * 2, fixed),
        "the column 'embedding' has the type float;": pyarrow.array([0.5] * 4, pyarrow.float32()),
        "the column 'embedding' has the type list<.*int64>; it must have lists of floating-point": pyarrow.array([[1]] * 4),
        "there are no vectors": pyarrow.array([], fixed),
    }.items():
        table = {"id": list(map(str, range(len(embedding)))), "class": ["a"] * len(embedding)}
        parquet.write_table(pyarrow.table({**table, "embedding": embedding}), path)
        with pytest.raises(UserError, match=says):
            open_(path)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match="no column 'embedding' with the vectors; it has id, class, role"):
        open_(path)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="cannot be read"):
        open_(path)


def test_vectors_of_two_lengths_and_vectors_beside_images_are_refused(tmp_path, make_source):
    array, rows = vectors.vectors(count=5)
    of_12 = open_(vectors.write(tmp_path / "a", array, rows))
    of_11 = open_(vectors.write(tmp_path / "b", array[:, 1:], rows))
    with pytest.raises(UserError, match="the same number of features, but features:.*a has 12, features:.*b has 11"):
        build_pool({"known": [Selection(of_12)], "negatives": [Selection(of_11)]}, stored_size=None)
    with pytest.raises(UserError, match="^features:.* has vectors, but model.name is a network for images; configs/"):
        build_pool({"known": [Selection(of_12)]})
    images = make_source({"cat": 30})
    with pytest.raises(UserError, match=" has images, but model.name is a network for vectors; configs/"):
        build_pool({"known": [Selection(images)]}, stored_size=None)


def test_numbers_that_are_not_finite_are_counted_and_named(tmp_path, monkeypatch):
    array, rows = vectors.vectors()
    array[3, 2], array[81, 0], array[81, 1] = np.nan, np.inf, -np.inf
    pool = pool_of(vectors.write(tmp_path, array, rows))
    monkeypatch.setattr(packed, "_AT_ONCE", 60)  # two vectors
    says = r"2 of 200 vectors have numbers that are not finite: row 4 \('a/3.jpg'\), row 82 \('car/1.jpg'\); compute"
    with pytest.raises(UserError, match=says):
        vector_files.check_finite(pool)
    array[[3, 81]] = 1
    vector_files.check_finite(pool_of(vectors.write(tmp_path, array, rows)))


def test_paths_of_images_are_relative_to_the_folder(tmp_path):
    array, rows = vectors.vectors()
    given = [{**row, "image": f"pictures/{i}.png" if i else ""} for i, row in enumerate(rows)]
    pool = pool_of(vectors.write(tmp_path, array, given))
    paths = dict(zip(pool.ids(np.arange(len(pool))), pool.pictures(np.arange(len(pool))), strict=True))
    assert paths["a/0.jpg"] == ""
    assert paths["a/1.jpg"] == str(tmp_path / "pictures/1.png")
    bare = dataclasses.replace(pool, sources=tuple(dataclasses.replace(s, pictures=None) for s in pool.sources))
    assert bare.pictures(np.arange(3)) == ["", "", ""]


def test_an_id_that_occurs_twice_is_refused_with_its_rows(tmp_path):
    array, rows = vectors.vectors(count=20)
    rows[7]["id"] = rows[3]["id"]
    with pytest.raises(UserError, match=r"rows 4 and 8 have the same id, 'a/3\.jpg' \(repeated ids: 1\); make each"):
        build_pool({"known": [Selection(open_(vectors.write(tmp_path, array, rows)))]}, stored_size=None)


def test_parts_are_in_the_order_of_the_file_whatever_that_of_the_pool(tmp_path, monkeypatch):
    array, rows = vectors.vectors(count=20)
    order = np.random.default_rng(0).permutation(len(rows))
    source = open_(vectors.write(tmp_path, array[order], [rows[i] for i in order]))
    pool = build_pool({role: [Selection(source)] for role in pools.ROLES}, stored_size=None)
    monkeypatch.setattr(packed, "_AT_ONCE", 7 * pool.array.nbytes)
    parts = list(packed.parts(pool, np.arange(len(pool))))
    assert {len(part) for part, _ in parts} == {7, len(pool) % 7}
    read = np.concatenate([part for part, _ in parts])
    assert (np.diff(pool.record[read]) == 1).all()
    np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in parts]), array[order])


def test_a_parquet_file_is_in_memory_once(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(size=(2_000, 1_000)).astype(np.float32)  # 8 MB
    write_parquet(
        tmp_path / "all.parquet", array, [{"id": str(i), "class": "a", "role": "known"} for i in range(len(array))]
    )
    monkeypatch.setattr(vector_files, "_READ_AT_ONCE", 64)
    held, before = list[int](), pyarrow.total_allocated_bytes()
    array_type = lambda *shape: held.append(pyarrow.total_allocated_bytes()) or pools.ArrayType(*shape)
    monkeypatch.setattr(vector_files, "ArrayType", array_type)  # when all is read
    source = open_(tmp_path / "all.parquet")
    np.testing.assert_array_equal(source.fetch(np.arange(2_000)), array)
    assert held[0] - before < array.nbytes / 2
