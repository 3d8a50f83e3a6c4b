"""Image files -> decisions: the same as evaluation's, whatever other files lie among them."""

import csv
import json
import os
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from small_run import LEARNS, open_small_pool, run, small_config, train

from openset_jax import predict
from openset_jax.data import given_vectors
from openset_jax.data.pools import TEST
from openset_jax.errors import UserError
from openset_jax.files import write_whole
from openset_jax.predict import Predictor


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(small_config(**LEARNS), folder)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run whose validation and test negatives are of the same groups, and that has learned to reject them."""
    folder = tmp_path_factory.mktemp("mixed")
    train(small_config(**LEARNS, **{"data.held_out_negatives": None}), folder)
    return folder


@pytest.fixture(scope="module")
def scored(workdir):
    """id -> row of scores.csv."""
    with (workdir / "scores.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, workdir):
    """The test images as files, named by their ids."""
    folder, pool = tmp_path_factory.mktemp("photos"), open_small_pool(input="stream")
    rows = pool.rows(TEST)
    for id_, content in zip(pool.ids(rows), pool.sources[0].fetch(pool.record[rows]), strict=True):
        path = folder / f"{id_}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(path)
    return folder


def id_of(photos, row):
    return row["id"][len(str(photos)) + 1 : -len(".png")]


def test_it_decides_as_evaluation_did(workdir, photos, scored):
    predictor = Predictor(workdir, batch_size=64)
    rows = list(predictor([photos]))
    assert len(rows) == len(scored) > 500, "more than one chunk"
    for row in rows:
        expected = scored[id_of(photos, row)]
        assert row["decision"] == expected["decision"]
        assert row["error"] is None
        assert row["score"] == pytest.approx(float(expected["score"]), abs=1e-4)
        assert row["p_none"] == pytest.approx(float(expected["p_none"]), abs=1e-5)
        assert row["p_best"] == pytest.approx(float(expected[f"p_{row['best_class']}"]), abs=1e-5)
        assert (row["decision"] == "none") == (row["score"] > row["threshold"])
    assert len({row["decision"] for row in rows}) >= 4


def test_images_in_memory_get_the_answers_of_their_files(workdir, photos, scored):
    ids = list(scored)[:5]
    paths = [photos / f"{id_}.png" for id_ in ids]
    pictures = {i: Image.open(paths[i]) for i in (0, 1)}
    given = [pictures[0], np.asarray(pictures[1]), str(paths[2]), paths[3], paths[4].read_bytes()]
    predictor = Predictor(workdir, batch_size=64)
    rows = list(predictor(given))
    assert [row["id"] for row in rows] == [0, 1, str(paths[2]), str(paths[3]), 4]
    for row, id_ in zip(rows, ids, strict=True):
        assert row["decision"] == scored[id_]["decision"]
        assert row["score"] == pytest.approx(float(scored[id_]["score"]), abs=1e-4)
    (row,) = predictor(str(paths[2]))
    assert row["id"] == str(paths[2]) and row["score"] == pytest.approx(rows[2]["score"]), "a text is one path"
    with pytest.raises(TypeError, match="image 0 is of type int"):
        next(predictor(5))
    with pytest.raises(UserError, match="^no images: give paths"):
        next(predictor([]))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_with_hostile_names_are_read_back(tmp_path, suffix):
    path, row = tmp_path / f"out{suffix}", {**dict.fromkeys(predict.COLUMNS), "decision": "=1+1", "threshold": "-inf"}
    ids = ["@eaDir/1.jpg", "caf\udce9\r\n.jpg", "béret.jpg"]
    with write_whole(path, newline="") as file:
        write = predict.row_writer(file, suffix)
        for id_ in ids:
            write(row | {"id": id_, "score": -0.5})
    if suffix == ".jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            row | {"id": id_, "score": -0.5} for id_ in ids
        ]
        return
    with path.open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["./@eaDir/1.jpg", *ids[1:]]
    assert [(row["decision"], row["score"], row["threshold"]) for row in rows] == [("'=1+1", "-0.5", "-inf")] * 3


def test_the_counts_of_very_many_classes_are_one_short_line():
    counts = {f"class {i}": i for i in range(1, 1001)} | {"none": 5, None: 2, "error": 7}
    line = predict.counts_line(counts)
    assert line.startswith("class 1000 1,000, class 999 999, ") and line.endswith(", none 5, error 2")
    assert len(line) < 400 and "983 more" in line
    assert predict.counts_line({"b": 1, "a\x1b": 3}) == "a\\x1b 3, b 1"


def huge_png(path):
    """50,000 x 50,000 pixels in a few bytes: whoever decodes it needs 7.5 GB."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def test_what_is_no_image_has_a_row_with_its_error_and_the_rest_go_on(tmp_path, workdir):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / "good.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    huge_png(tmp_path / "huge.png")
    out = tmp_path / "out.jsonl"
    done = run([sys.executable, "-m", "openset_jax.predict", f"--workdir={workdir}", str(tmp_path), f"--out={out}"])
    assert done.returncode == 0, done.stderr
    rows = {row["id"].rpartition("/")[2]: row for row in map(json.loads, out.read_text().splitlines())}
    assert list(rows) == ["cut.jpg", "empty.jpg", "good.jpg", "huge.png", "text.png"]
    assert rows.pop("good.jpg")["decision"]
    for name, row in rows.items():
        assert row["error"], name
        assert row["decision"] is None
        assert row["score"] is None
    assert rows["huge.png"]["error"] == "50,000 x 50,000 pixels, more than data.max_pixels=100,000,000"
    assert "empty" in rows["empty.jpg"]["error"]
    assert "error 4" in done.stdout


def test_vectors_are_refused_before_the_first_row(workdir):
    with pytest.raises(UserError, match="this run takes images, but these are vectors; give image files or folders"):
        Predictor(workdir)(given_vectors.of_memory(np.zeros((2, 5), np.float32)))


def test_the_command_writes_csv(tmp_path, workdir, photos, scored):
    out, files = tmp_path / "out.CSV", [str(photos / f"{id_}.png") for id_ in list(scored)[:40]]
    flags = [f"--workdir={workdir}", f"--out={out}", "--threshold=-1e9"]
    done = run([sys.executable, "-m", "openset_jax.predict", *flags, *files])
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(predict.COLUMNS)
    assert [row["id"] for row in rows] == files
    assert {row["decision"] for row in rows} == {"none"}


def test_overrides(workdir, photos, scored):
    files = [str(photos / f"{id_}.png") for id_ in list(scored)[:40]]
    predicted = lambda **options: list(Predictor(workdir, batch_size=64, **options)(files))
    plain, rare = predicted(), predicted(priors="none=0.001")
    assert "none" not in {row["decision"] for row in predicted(threshold=1e9)}
    assert sum(row["p_none"] for row in rare) < sum(row["p_none"] for row in plain)
    assert [row["decision"] for row in rare] == [row["decision"] for row in plain], "the threshold is as it was saved"


def of_kinds(photos, counts):
    """Files of so many test images of each digit."""
    pool = open_small_pool(input="stream")
    rows = pool.rows(TEST)
    ids, kinds = np.array(pool.ids(rows)), np.array(pool.group_names(rows))
    chosen = [ids[kinds == kind][:count] for kind, count in counts.items()]
    return [str(photos / f"{id_}.png") for id_ in np.concatenate(chosen)]


KNOWN = dict.fromkeys("01234", 10)
MIXES = [KNOWN | {"5": 30, "6": 20}, dict.fromkeys("1234", 20) | {"0": 30, "5": 7, "6": 5}]  # "none" is half, and a tenth


@pytest.mark.parametrize("how", ["em", "bbse"])
@pytest.mark.parametrize("counts", MIXES)
def test_the_mix_of_the_images_given_is_estimated_and_used_as_if_declared(mixed, photos, how, counts):
    files, said = of_kinds(photos, counts), []
    predictor = Predictor(mixed, priors=how, batch_size=32, report=said.append)
    rows = list(predictor(files))
    share = np.array([counts[kind] for kind in "01234"]) / len(files)
    np.testing.assert_allclose(predictor.classifier.prior, [*share, 1 - share.sum()], atol=0.04)
    assert len(said) == 1 and said[0].startswith(
        f"estimated class prior of {len(files)} images +/- standard error ({how.upper()}"
    )
    assert "WARNING" not in said[0]
    declared = json.dumps(dict(zip([*"01234", "none"], predictor.classifier.prior.tolist(), strict=True)))
    again = list(Predictor(mixed, priors=declared, batch_size=32)(files))
    for name in predict.COLUMNS:
        values, expected = ([row[name] for row in of] for of in (rows, again))
        # the declared prior is divided by its sum, which is 1 up to rounding
        assert values == (pytest.approx(expected, rel=1e-9) if name.startswith("p_") else expected), name
    plain = list(Predictor(mixed, batch_size=32)(files))
    assert [row["decision"] == "none" for row in rows] == [row["decision"] == "none" for row in plain], "same threshold"
    assert [row["p_none"] for row in rows] != [row["p_none"] for row in plain]


def test_unknown_kinds_among_the_images_are_a_warning_and_the_command_prints_it(tmp_path, mixed, photos):
    files = of_kinds(photos, KNOWN | {"8": 99, "9": 99})
    flags = [f"--workdir={mixed}", f"--out={tmp_path / 'out.csv'}", "--priors=em"]
    done = run([sys.executable, "-m", "openset_jax.predict", *flags, *files])
    assert done.returncode == 0, done.stderr
    mix, warning, counts, rows = done.stdout.splitlines()
    assert mix.startswith("estimated class prior of 248 images +/- standard error (EM, ") and "converged): 0 " in mix
    assert warning.startswith("WARNING: label shift is implausible: ")
    assert "none" in counts and rows.startswith("248 rows in ")


def test_what_an_estimate_needs(tmp_path, mixed, photos):
    (tmp_path / "empty.png").touch()
    for how in ("em", "bbse"):
        with pytest.raises(UserError, match=f"^--priors={how}: 1 images are too few"):
            list(Predictor(mixed, priors=how)([tmp_path]))
    (row,) = Predictor(mixed)([tmp_path])
    assert row["error"] and row["decision"] is None, "of nothing else is there an estimate"
    without = tmp_path / "run"
    shutil.copytree(mixed, without)
    (without / "validation.npz").unlink()
    with pytest.raises(UserError, match=r"validation.npz of step 100 is missing or damaged.*; delete decision.json .*run"):
        Predictor(without, priors="em")
    assert next(Predictor(without)(of_kinds(photos, {"0": 1})))["p_none"] is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priors": "9=0.5"}, "^--priors: no class '9'"),
        ({"priors": "0=0.9,none=0.9"}, "sum to 1.8"),
        ({"costs": "[[0, 1], [1, 0]]"}, r"must be \(6, 6\)"),
        ({"costs": "cheap"}, "--costs: 'cheap' is neither"),
        ({"threshold": float("nan")}, "--threshold: nan"),
    ],
)
def test_overrides_that_cannot_be(workdir, options, says):
    with pytest.raises(UserError, match=says):
        Predictor(workdir, **options)


def test_a_workdir_that_is_none(tmp_path):
    with pytest.raises(UserError, match="train first"):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x.txt", "neither .csv nor .jsonl"),
        ("folder.csv", "is a folder"),
        ("null.csv", "or a device"),
        ("1.csv", "is one of the files to classify"),
    ],
)
def test_where_rows_cannot_be_written(tmp_path, name, says):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "null.csv").symlink_to(os.devnull)
    (tmp_path / "1.csv").write_text("an image, for all that is known")
    files = str(tmp_path / "?.csv")
    done = run([sys.executable, "-m", "openset_jax.predict", f"--workdir={tmp_path}", f"--out={tmp_path / name}", files])
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out: ") and says in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "1.csv").read_text() == "an image, for all that is known"


def change_decision(**fields):
    def change(workdir):
        saved = json.loads((workdir / "decision.json").read_text())
        (workdir / "decision.json").write_text(json.dumps(saved | {"classifier": saved["classifier"] | fields}))

    return change


def forget_costs(workdir):
    saved = json.loads((workdir / "decision.json").read_text())
    del saved["asked"]["costs"]
    (workdir / "decision.json").write_text(json.dumps(saved))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda w: (w / "decision.json").unlink(), "has no decision.json, which training writes at its end; run .*evaluate"),
        (
            lambda w: (w / "decision.json").write_text('{"step":'),
            "decision.json is damaged.* to write it anew, run .*evaluate",
        ),
        (forget_costs, "decision.json is damaged.*costs.* to write it anew, run .*evaluate"),
        (change_decision(temperature=None), "decision.json is damaged"),
        (change_decision(objective="newer"), "decision.json is damaged.*newer"),
        (change_decision(prior=[0.5, 0.5]), "decision.json is damaged.*prior must have 6 numbers"),
        (change_decision(classes=list("56789")), "decision.json belongs to another run: it has the classes 5, 6, 7, 8, 9,"),
        (lambda w: (w / "validation.npz").write_bytes(b"PK"), "validation.npz of step 100 is missing or damaged"),
        (lambda w: (w / "validation.npz").write_bytes(b""), "validation.npz of step 100 is missing or damaged"),
        (lambda w: shutil.rmtree(w / "checkpoints/100/model"), "checkpoint of step 100 .* is damaged"),
        (lambda w: shutil.rmtree(w / "checkpoints/100/meta"), "checkpoint of step 100 .* is damaged"),
        (lambda w: (w / "checkpoints/100/meta/metadata").write_text(""), "checkpoint of step 100 .* is damaged"),
    ],
)
def test_a_damaged_workdir_says_what_is_damaged(tmp_path, workdir, damage, says):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    damage(copy)
    with pytest.raises(UserError, match=says):
        Predictor(copy, priors="em")
