"""Settings and fixtures for all tests."""

import fcntl
import gc
import importlib.util
import os
import pathlib

import hypothesis
import numpy as np
import pytest
import small_run

# Before anything imports jax. Many tests, and the processes they start, run the same small network: compile it once.
# JAX_PLATFORMS=cuda,cpu (or empty: what JAX finds) runs tests on an accelerator: those marked so, `-m accelerator`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache/xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {small_run.COMPILED_FAST}".strip()
else:  # where float32 products are rounded to TF32 or bfloat16 by default, and tests expect float32
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

gc.disable()  # until all tests are imported: see pytest_collection_finish

# Examples vary in cost by what they compile, and a shared machine makes any time limit a coin toss.
hypothesis.settings.register_profile("openset_jax", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("openset_jax")

_SHARED_DATA = pathlib.Path(__file__).parents[1] / "../shared/data"


def pytest_collection_finish() -> None:
    """Spares the garbage collector the modules, which live to the end: without this it takes a tenth of all time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def packed_digits() -> None:
    """Packs the images of the small run, by whichever worker comes first."""
    from small_run import PACKED, small_config

    from benchmarks.packed_digits import write_digits

    PACKED.mkdir(parents=True, exist_ok=True)
    with PACKED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (PACKED / "index.json").exists():
            write_digits(PACKED, size=small_config().data.stored_size)


@pytest.fixture(scope="session")
def tfds_dir() -> str:
    """Where the real mnist (TFRecord) and fashion_mnist (ArrayRecord) are prepared; skips where they are not."""
    directory = _SHARED_DATA / "tfds"
    if not directory.is_dir():
        pytest.skip(f"real data: {directory} is absent")
    return str(directory.resolve())


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> pathlib.Path:
    """The real photographs as folders by role; skips where they are absent."""
    script = _SHARED_DATA / "unpack.py"
    if not script.exists():
        pytest.skip(f"real data: {_SHARED_DATA} is absent")
    spec = importlib.util.spec_from_file_location("unpack", script)
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    out = tmp_path_factory.mktemp("photos")
    unpack.unpack_photos(out)
    return out / "photos"


@pytest.fixture(scope="session")
def make_source():
    """A function that makes a `Source` without images: (images of each class, ...) -> Records."""
    from openset_jax.data import pools

    def make(classes, *, name="fake", roles=None, splits=None, order=None, ids="{cls}/{i}"):
        """Args:
        classes: {name: number of images}, or [(name, number)] where a name stands under several roles.
        splits: the split of image i of a class, as a function of (class, i); UNASSIGNED if None.
        order: a permutation of all records.
        ids: a format of {cls} and {i}.
        """
        pairs = list(classes.items()) if isinstance(classes, dict) else list(classes)
        where = [(label, cls, i) for label, (cls, count) in enumerate(pairs) for i in range(count)]
        where = where if order is None else [where[j] for j in order]
        names = [ids.format(cls=cls, i=i) for _, cls, i in where]
        return pools.Source(
            name=name,
            classes=tuple(cls for cls, _ in pairs),
            roles=roles,
            label=np.array([label for label, _, _ in where], np.int32),
            split=np.array([pools.UNASSIGNED if splits is None else splits(cls, i) for _, cls, i in where], np.uint8),
            format="encoded",
            ids=lambda records: [names[r] for r in records],
            fetch=lambda records: [b""] * len(records),
        )

    return make
