"""The protocol with a process of another library, tested with a script that does no work."""

import json
import stat
import sys

import numpy as np
import pytest
from small_run import SMALL, run, small_config, small_spec

from benchmarks import inputs, peer, timing
from openset_jax import config as configs
from openset_jax.errors import UserError
from openset_jax.training.run_cache import RunCache

ANSWERS = """
import json, sys
job = json.loads(sys.stdin.readline())
print(json.dumps({"torch": "9.9", "compiled": True, "compile_error": None, "job": job}), flush=True)
for line in sys.stdin:
    steps = json.loads(line)["steps"]
    print(json.dumps({"images": steps * job["batch_size"], "seconds": steps * 0.5}), flush=True)
"""


@pytest.fixture
def fake_python(tmp_path):
    """A function: the text of a script -> an executable that runs this script and ignores its arguments."""

    def make(text):
        script = tmp_path / "fake_python"
        script.write_text(f"#!{sys.executable}\n{text}")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


def test_a_peer_answers_with_its_versions_and_then_with_rates(fake_python):
    with peer.open_peer(fake_python(ANSWERS), "torch_step.py", {"batch_size": 8}) as other:
        assert other.versions["torch"] == "9.9"
        assert other.versions["job"] == {"batch_size": 8}
        assert other.rate(steps=3) == other.rate(steps=7) == 16


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import json; print(json.dumps({'error': 'no CUDA device'}), flush=True)", "no CUDA device"),
        ("raise SystemExit", "ended; its own message is above"),
    ],
)
def test_a_peer_that_cannot_run_says_why(fake_python, script, says):
    with pytest.raises(UserError, match=says), peer.open_peer(fake_python(script), "torch_step.py", {"batch_size": 8}):
        pass


def test_a_python_that_is_not_there_is_named():
    with pytest.raises(UserError, match="'/no/python' cannot be run"), peer.open_peer("/no/python", "torch_step.py", {}):
        pass


@pytest.mark.parametrize("changes", [{"model.name": "alexnet_2012"}, {"model.norm": "local_response"}])
def test_a_network_that_the_peer_does_not_have_is_an_error(changes):
    with pytest.raises(UserError, match="PyTorch's side has no"):
        peer.network_job(small_spec(**changes), 6, "train")


def test_the_job_is_the_configs(fake_python):
    job = peer.network_job(small_spec(**{"model.norm": "batch"}), 6, "eval")
    assert (job["batch_size"], job["image_size"], job["pad"], job["flip"]) == (64, 16, 2, False)
    assert job["network"] == "alexnet"
    assert job["model"] == {
        "num_outputs": 6, "width": 0.0625, "stem": "small", "norm": "batch", "dropout": 0.5, "image_size": 16
    }  # fmt: skip
    assert job["device"] == "cpu"
    json.dumps(job)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_job_has_the_dtype_that_ours_computes_in(monkeypatch, dtype):
    monkeypatch.setattr(configs, "device_dtype", lambda: dtype)
    spec = inputs.resolve(small_config(**{"model.dtype": "auto"}))
    model = RunCache().network(spec.program, 5).model
    assert peer.network_job(spec, 6, "train")["dtype"] == dtype == np.dtype(model.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "evaluate"])
def test_the_benchmark_compares_with_the_peer(tmp_path, fake_python, name):
    out, fields = tmp_path / "out.json", [f"--config.{name}={value}" for name, value in SMALL.items()]
    fields += ["--rows=200"] if name == "evaluate" else []
    done = run(
        [sys.executable, "-m", f"benchmarks.{name}", "--config=configs/digits.py", *fields, "--rounds=3", "--peer",
         f"--peer_python={fake_python(ANSWERS)}", f"--json={out}"]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    size = SMALL["batch_size"] if name == "step" else SMALL["eval.batch_size"]
    assert result["peer_images_per_second"] == 2 * size
    assert result["ratio"] == pytest.approx(result["images_per_second"] / (2 * size))
    assert len(result["paired_ratio"]["rounds"]) == 3
    assert result["peer"]["job"]["mode"] == ("train" if name == "step" else "eval")
    assert "XLA_PYTHON_CLIENT_PREALLOCATE=false" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "evaluate"])
def test_with_a_time_limit_our_own_rate_is_written_before_the_peer_starts(tmp_path, fake_python, name):
    out, fields = tmp_path / "out.json", [f"--config.{name}={value}" for name, value in SMALL.items()]
    peer_python = fake_python("raise SystemExit")
    done = run(
        [sys.executable, "-m", f"benchmarks.{name}", "--config=configs/digits.py", *fields, "--rounds=2", "--peer",
         "--seconds=100", f"--peer_python={peer_python}", f"--json={out}"]
    )  # fmt: skip
    assert done.returncode == 2 and "ended; its own message is above" in done.stderr
    result = json.loads(out.read_text())
    assert list(result["rates"]) == [timing.OURS] and len(result["rates"][timing.OURS]["rounds"]) == 2
    assert result["left_out"] == {timing.PEER: "not done"}
