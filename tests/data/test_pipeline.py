"""From rows to batches: an order that is a function of n, mixed sources, and unreadable files."""

import itertools
import pathlib

import numpy as np
import pytest
from pictures import by_pil, decode, difference, flower
from PIL import Image, ImageFilter

from openset_jax.data import batches, packed, pipeline, sources, streaming
from openset_jax.data.pool_builder import Selection, build_pool
from openset_jax.data.pools import TEST, VALIDATION
from openset_jax.data.sampler import make_sampler
from openset_jax.data.unreadable import Unreadable
from openset_jax.errors import UserError

tf = pytest.importorskip("tensorflow")

SIZE = 24  # stored size of the pools below


# --- pools of files ---------------------------------------------------------------------------------------------------


def write_images(root, classes=("known/a", "known/b", "negatives/n", "unknown/u"), count=16):
    """Writes different parts of a photograph in various sizes, half of them as JPEG and half as PNG."""
    rng, soft = np.random.default_rng(0), flower().filter(ImageFilter.GaussianBlur(2))
    for folder in classes:
        (root / folder).mkdir(parents=True)
        for i in range(count):
            width, height = rng.integers(SIZE - 4, 3 * SIZE, 2)
            left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
            part = soft.crop((left, top, left + width, top + height))
            part.save(root / folder / (f"{i}.png" if i % 2 else f"{i}.jpg"))


def pool_of(source, **roles):
    roles = roles or dict.fromkeys(("known", "negatives", "unknown"), ())
    chosen = {role: [Selection(source, classes)] for role, classes in roles.items()}
    return build_pool(chosen, stored_size=SIZE, validation_fraction=0.25, test_fraction=0.25)


def folder_pool(root):
    return pool_of(sources.open_source(f"folder:{root}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    write_images(root)
    Image.new("RGB", (30, 40)).save(root / "known/a/black.png")  # all zeros, which a string could lose at its end
    return root


@pytest.fixture(scope="module")
def pool(folder):
    return folder_pool(folder)


@pytest.fixture(scope="module")
def images(pool):
    """The images of all rows of the pool."""
    return pipeline.read_images(pool, np.arange(len(pool)))


def unreadable(pool, lines=None, max_fraction=0.5):
    return Unreadable(pool, max_fraction, report=(lines if lines is not None else []).append)


def training(pool, start, stop, *, batch_size=8, **options):
    members = pool.training_rows()
    sampler = make_sampler("natural", tuple(map(len, members)), batch_size=batch_size, seed=1)
    options = {"unreadable": unreadable(pool)} | options
    plan = batches.training(pool, members, sampler, start=start, stop=stop, **options)
    return list(streaming.stream(pool, plan, unreadable=options["unreadable"]))


def drawn_rows(pool, step, *, batch_size=8):
    """Returns the rows that the sampler of `training` draws."""
    members = pool.training_rows()
    sampler = make_sampler("natural", tuple(map(len, members)), batch_size=batch_size, seed=1)
    return np.array([members[k][i] for k, i in zip(*sampler.batch(step), strict=True)])


def evaluation(pool, rows, batch_size, **options):
    options = {"unreadable": unreadable(pool)} | options
    plan = batches.evaluation(pool, rows, batch_size=batch_size, **options)
    return list(streaming.stream(pool, plan, unreadable=options["unreadable"]))


def assert_same(batches, others):
    for batch, other in itertools.zip_longest(batches, others):
        assert batch.keys() == other.keys()
        for name, values in batch.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_a_row_is_the_image_of_its_file(folder, pool, images):
    for id_, image in zip(pool.ids(np.arange(len(pool))), images, strict=True):
        assert difference(image, by_pil((folder / id_).read_bytes(), SIZE)).mean() < 4, id_


@pytest.fixture(scope="module")
def training_run(pool):
    return training(pool, 0, 6)


def test_training_batches_are_what_the_sampler_draws(pool, images, training_run):
    assert len(training_run) == 6
    for step, batch in enumerate(training_run):
        assert {name: (values.dtype, values.shape) for name, values in batch.items()} == {
            "example": (np.uint8, (8, SIZE, SIZE, 3)),
            "label": (np.int32, (8,)),
            "position": (np.int32, (8,)),
            "mask": (bool, (8,)),
        }
        rows = drawn_rows(pool, step)
        np.testing.assert_array_equal(batch["example"], images[rows])
        expected = [pool.num_classes if pool.label[row] < 0 else pool.label[row] for row in rows]
        assert batch["label"].tolist() == expected
        assert batch["position"].tolist() == list(range(8))
        assert batch["mask"].all()


def test_two_iterations_are_equal_and_starting_late_equals_skipping(pool, training_run):
    assert_same(training(pool, 0, 6), training_run)
    assert_same(training(pool, 4, 6), training_run[4:])


def test_batches_far_into_the_stream_start_at_once(pool, images):
    (batch,) = training(pool, 10**9, 10**9 + 1)
    np.testing.assert_array_equal(batch["example"], images[drawn_rows(pool, 10**9)])


def test_no_batches_asked_for_are_no_batches(pool):
    assert training(pool, 3, 3) == []


def test_the_parts_of_hosts_are_the_global_training_batch(pool, training_run):
    parts = [training(pool, 2, 4, part=(host, 2)) for host in range(2)]
    assert_same([joined(of_one_batch) for of_one_batch in zip(*parts, strict=True)], training_run[2:4])


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "batch_size"), [(20, 8), (16, 8), (1, 4)])
def test_evaluation_covers_each_row_once_in_order_and_pads(pool, images, count, batch_size):
    rows = np.random.default_rng(0).permutation(len(pool))[:count]
    batches = evaluation(pool, rows, batch_size)
    assert len(batches) == -(-count // batch_size)
    assert {batch["example"].shape for batch in batches} == {(batch_size, SIZE, SIZE, 3)}
    every = joined(batches)
    assert every["mask"].tolist() == [True] * count + [False] * (len(batches) * batch_size - count)
    assert every["position"].tolist() == list(range(len(batches) * batch_size))
    np.testing.assert_array_equal(every["example"][:count], images[rows])
    np.testing.assert_array_equal(every["label"][:count], pool.label[rows])
    assert not every["example"][count:].any()
    assert {name: values.dtype for name, values in every.items()} == {
        "example": np.uint8, "label": np.int32, "position": np.int32, "mask": bool,
    }  # fmt: skip


def test_evaluation_of_no_rows_is_no_batches(pool):
    assert evaluation(pool, np.zeros(0, int), 8) == []


def test_the_parts_of_hosts_are_the_global_evaluation(pool):
    rows = np.arange(21)
    parts = [evaluation(pool, rows, 8, part=(host, 2)) for host in range(2)]
    assert_same([joined(of_one_batch) for of_one_batch in zip(*parts, strict=True)], evaluation(pool, rows, 8))


# --- packed, and mixed sources ----------------------------------------------------------------------------------------


def pack(pool, images, root):
    root.mkdir(exist_ok=True)
    np.save(root / "images.npy", images)
    packed.write_index(
        root,
        stored_size=images.shape[1],
        groups=list(zip(pool.roles, pool.groups, strict=True)),
        ids=pool.ids(np.arange(len(pool))),
        group=pool.group,
        split=pool.split,
    )
    return sources.open_source(f"packed:{root}")


def test_streamed_and_packed_batches_are_identical(pool, images, training_run, tmp_path):
    packed = pool_of(pack(pool, images, tmp_path))
    assert packed.fingerprint() == pool.fingerprint()
    assert packed.ids(np.arange(len(pool))) == pool.ids(np.arange(len(pool)))
    assert_same(training(packed, 0, 6), training_run)
    rows = pool.rows(TEST)
    np.testing.assert_array_equal(packed.rows(TEST), rows)
    assert_same(evaluation(packed, rows, 8), evaluation(pool, rows, 8))


def test_packed_at_another_size_is_an_error_that_names_both(pool, images, tmp_path):
    packed = pack(pool, images[:, 4:, 4:], tmp_path)
    with pytest.raises(UserError, match=rf"packed:.*20x20.*data\.stored_size is {SIZE}"):
        pool_of(packed)


def check_mixed(mixed, expected):
    """Asserts that batches of a pool of several sources have the right image for each row."""
    rows = np.random.default_rng(0).permutation(len(mixed))[:48]
    every = joined(evaluation(mixed, rows, 16))
    for row, image, label in zip(rows, every["example"], every["label"], strict=True):
        assert label == mixed.label[row]
        np.testing.assert_array_equal(image, expected(mixed.sources[mixed.source[row]], mixed.record[row]))


def mixed_selections(folder, pool, images, packed_at):
    digits, paths = sources.open_source("digits", stored_size=SIZE), sources.open_source(f"folder:{folder}")
    packed = pack(pool, images, packed_at)
    return {
        "known": [Selection(digits, ("3", "1"), limit=20), Selection(paths, ("a",)), Selection(packed, ("b",))],
        "negatives": [Selection(digits, ("5",), limit=20), Selection(paths)],
        "unknown": [Selection(packed)],
    }


def content_of(source, record):
    """Returns the image of one record, without the pipeline."""
    (content,) = source.fetch(np.array([record]))
    kind, _, detail = source.format.partition(":")
    if kind == "array":
        return content
    if kind == "path":
        content = pathlib.Path(content.decode()).read_bytes()
    if kind == "example":
        content = tf.train.Example.FromString(content).features.feature[detail].bytes_list.value[0]
    return decode(content, SIZE)


def test_one_pool_may_mix_paths_and_pixels(folder, pool, images, tmp_path):
    chosen = mixed_selections(folder, pool, images, tmp_path)
    mixed = build_pool(chosen, stored_size=SIZE, validation_fraction=0.25, test_fraction=0.25)
    assert {source.format for source in mixed.sources} == {"path", "array"}
    check_mixed(mixed, content_of)


def test_one_pool_may_mix_both_kinds_of_tfds_sets_too(folder, pool, images, tmp_path, tfds_dir):
    chosen = mixed_selections(folder, pool, images, tmp_path)
    for role, name, cls in (("negatives", "mnist", "7"), ("unknown", "fashion_mnist", "Bag")):
        source = sources.open_source(f"tfds:{name}", data_dir=tfds_dir, train="test[:100]", test="test[100:200]")
        chosen[role] = [*chosen[role], Selection(source, (cls,))]
    check_mixed(build_pool(chosen, stored_size=SIZE, validation_fraction=0.25, test_fraction=0.25), content_of)


# --- unreadable files -------------------------------------------------------------------------------------------------


def corrupt(path, kind="text"):
    content = path.read_bytes()
    if kind == "vanished":
        path.unlink()
    else:
        contents = {
            "text": b"not an image", "empty": b"", "cut off": content[: len(content) // 2], "short": b"\xff\xd8\xff\xe0",
            "noise": b"\xff\xd8\xff" + np.random.default_rng(0).bytes(500),
        }  # fmt: skip
        path.write_bytes(contents[kind])


@pytest.fixture
def own_folder(tmp_path):
    """A folder of images that a test may damage, and its pool."""
    write_images(tmp_path, count=12)
    return tmp_path, folder_pool(tmp_path)


def test_a_corrupt_training_image_is_named_once_and_replaced_by_the_next_of_its_class_wherever_one_starts(own_folder):
    root, pool = own_folder
    images = pipeline.read_images(pool, np.arange(len(pool)))
    steps = range(6)
    drawn = [drawn_rows(pool, step, batch_size=2).tolist() for step in steps]
    members = pool.training_rows()[0]
    first = next(row for rows in drawn for row in rows if row in members)
    following = np.roll(members, -members.tolist().index(first))
    bad, good = following[:2], following[2]  # two neighbours, so that the first replacement is bad too
    for row, kind in zip(bad, ("text", "vanished"), strict=True):
        corrupt(root / pool.ids([row])[0], kind)
    last = max(step for step in steps if set(bad) & set(drawn[step]))
    for start in {0, last}:
        lines = []
        batches = training(pool, start, len(steps), batch_size=2, unreadable=unreadable(pool, lines))
        assert len(batches) == len(steps) - start
        for step, batch in enumerate(batches, start):
            expected = [good if row in bad else row for row in drawn[step]]
            np.testing.assert_array_equal(batch["example"], images[expected])
            assert batch["label"].tolist() == [pool.label[r] if pool.label[r] >= 0 else 2 for r in drawn[step]]
            assert batch["mask"].all()
        assert all("skipped" in line and "(a)" in line for line in lines)
        named = [line.split("'")[1] for line in lines]
        assert len(named) == len(set(named))
        assert set(named) <= set(pool.ids(bad))
        if start == 0:
            assert set(named) == set(pool.ids(bad))


def test_bad_images_are_masked_in_evaluation_and_named_once(own_folder):
    root, pool = own_folder
    kinds = ["text", "empty", "cut off", "cut off", "vanished", "short", "noise", None, None]
    suffixes = [".jpg", ".png", ".jpg", ".png", ".jpg", ".png", ".jpg", ".jpg", ".png"]
    left = list(range(len(pool)))
    rows = []
    for suffix in suffixes:
        rows.append(next(row for row in left if pool.ids([row])[0].endswith(suffix)))
        left.remove(rows[-1])
    rows = np.array(rows)
    images = pipeline.read_images(pool, rows)
    for row, kind in zip(rows, kinds, strict=True):
        if kind:
            corrupt(root / pool.ids([row])[0], kind)
    lines = []
    shared = unreadable(pool, lines)
    (batch,) = evaluation(pool, rows, 9, unreadable=shared)
    assert batch["mask"].tolist() == [kind is None for kind in kinds]
    np.testing.assert_array_equal(batch["example"][7:], images[7:])
    np.testing.assert_array_equal(batch["label"][7:], pool.label[rows[7:]])
    assert set(shared.rows) == set(rows[:7].tolist())
    assert sorted(line.split("'")[1] for line in lines) == sorted(pool.ids(rows[:7]))
    (again,) = evaluation(pool, rows, 9, unreadable=shared)
    assert_same([again], [batch])
    assert len(lines) == 7


def test_unreadable_files_are_skipped_whatever_their_names_and_whatever_the_reason(own_folder):
    root, _ = own_folder
    latin_1, utf_8, large = (f"unknown/u/{name}" for name in ("b\udce9ret.jpg", "béret.jpg", "large.png"))
    for name in (latin_1, utf_8, large):
        Image.new("RGB", (300, 200)).save(root / name)
    pool, lines = folder_pool(root), []
    (root / latin_1).unlink()
    (root / utf_8).write_bytes(b"")
    rows = pool.rows(TEST, "unknown")
    limited = Unreadable(pool, 0.5, 59_999, report=lines.append)
    (batch,) = evaluation(pool, rows, len(rows), unreadable=limited)
    assert batch["mask"].tolist() == [id_ not in (latin_1, utf_8, large) for id_ in pool.ids(rows)]
    reasons = dict(zip(pool.ids(list(limited.rows)), limited.rows.values(), strict=True))
    assert reasons[latin_1].endswith("unknown/u/b\\xe9ret.jpg; No such file or directory")
    assert reasons[utf_8] == "an empty file"
    assert reasons[large] == "300 x 200 pixels, more than data.max_pixels=59,999"
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def test_the_reason_is_one_line_that_can_be_printed():
    bytes_of_a_file = b"{{node x}} pos 20 out of range for string b'\xff\xd8\x1b[31m' at index 0 [Op:Substr]"
    error = UnicodeDecodeError("utf-8", bytes_of_a_file, 0, 1, "invalid start byte")
    assert streaming._reason(error) == r"pos 20 out of range for string b'\xff\xd8\x1b[31m' at index 0"
    assert streaming._reason(OSError()) == "OSError"


def test_too_many_bad_images_end_the_run_with_the_count_and_the_setting(own_folder):
    root, pool = own_folder
    rows = pool.rows(VALIDATION)[:2]
    corrupt(root / pool.ids(rows)[0])
    with pytest.raises(UserError, match=r"1 of \d+ images could not be read.*data\.max_bad_fraction=0\.01"):
        evaluation(pool, rows, 2, unreadable=unreadable(pool, max_fraction=0.01))


def test_a_class_without_a_readable_image_is_an_error(own_folder):
    _, pool = own_folder
    bad = unreadable(pool, max_fraction=1)
    for row in pool.training_rows()[1]:
        bad.add(int(row), "as found before")
    with pytest.raises(UserError, match="none of the .* images of 'b' that training draws is readable"):
        training(pool, 0, 3, unreadable=bad)


def test_one_bad_image_does_not_set_the_pipeline_up_once_for_every_image_of_its_batch(own_folder, monkeypatch):
    """Setting up takes about half a second: once per image of a batch of 512, one bad file would cost four minutes."""
    root, pool = own_folder
    rows = np.arange(8)
    corrupt(root / pool.ids(rows)[5])
    original, set_up = tf.data.Dataset.range, []
    monkeypatch.setattr(tf.data.Dataset, "range", lambda *args, **kwargs: set_up.append(args) or original(*args, **kwargs))
    evaluation(pool, rows, 8)
    assert len(set_up) <= 5


# --- Unreadable -------------------------------------------------------------------------------------------------------


def fake_pool(make_source):
    return pool_of(make_source({"a": 100, "b": 100}, name="folder:/x"), known=())


def test_unreadable_names_image_source_group_and_reason(make_source):
    lines = []
    bad = unreadable(fake_pool(make_source), lines)
    bad.add(150, "it is a teapot")
    assert lines == ["skipped: unreadable image 'b/50' of folder:/x (b): it is a teapot"]


def test_unreadable_accepts_exactly_the_share_it_was_given(make_source):
    bad = unreadable(fake_pool(make_source), max_fraction=0.01)
    bad.add(0, "")
    bad.add(1, "")
    with pytest.raises(UserError, match=r"3 of 200 images.*max_bad_fraction=0\.01.*'a/2'"):
        bad.add(2, "")


def test_unreadable_masks_the_rows_that_were_added(make_source):
    bad = unreadable(fake_pool(make_source))
    rows = np.array([5, 6, -1, 5])
    assert bad.mask(rows).tolist() == [False] * 4
    bad.add(5, "")
    assert bad.mask(rows).tolist() == [True, False, False, True]
