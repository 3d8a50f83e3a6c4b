"""One device and many do the same, in one process and in two."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_run import ROOT, command, environment, lines, run, small_config

from openset_jax import build
from openset_jax.errors import UserError
from openset_jax.training import devices, state

SCRIPT = pathlib.Path(__file__).with_name("ten_steps.py")


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def ten_steps(out, *, device_count, processes=1, workdir=None):
    """Runs `ten_steps.py` and returns what it wrote."""
    port = free_port()
    env = environment(device_count) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    extra = [f"--workdir={workdir}"] if workdir else []
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, out, *([str(i), str(processes), str(port)] if processes > 1 else []), *extra],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(processes)
    ]  # fmt: skip
    for process in started:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    return dict(np.load(out))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return ten_steps(tmp_path_factory.mktemp("one") / "out.npz", device_count=1)


@pytest.mark.parametrize(("device_count", "processes"), [(2, 1), (4, 1), (8, 1), (2, 2)])
def test_any_number_of_devices_agrees_with_one(tmp_path, one_device, device_count, processes):
    many = ten_steps(tmp_path / "out.npz", device_count=device_count, processes=processes)
    assert many.keys() == one_device.keys()
    for name in (k for k in many if k.startswith("[")):  # after the first step
        difference = np.linalg.norm(many[name] - one_device[name]) / np.linalg.norm(one_device[name])
        assert difference < 1e-5, (name, difference)
    np.testing.assert_allclose(many["losses"], one_device["losses"], rtol=1e-4)
    assert one_device["losses"][-1] != one_device["losses"][0]


def test_a_checkpoint_of_four_devices_restores_on_one_and_two(tmp_path, one_device):
    written = ten_steps(tmp_path / "four.npz", device_count=4, workdir=tmp_path / "run")
    restored_on_one = restore(tmp_path / "run")
    for name, value in restored_on_one.items():
        np.testing.assert_array_equal(value, written["last" + name], err_msg=name)
    script = (
        "import sys, pathlib, numpy as np, test_devices, jax\n"
        "assert jax.device_count() == 2\n"
        "np.savez(sys.argv[2], **test_devices.restore(pathlib.Path(sys.argv[1]), replicate=True))\n"
    )
    env = environment(2) | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", SCRIPT.parent)))}
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "run", tmp_path / "two.npz"], cwd=ROOT, env=env, check=True, timeout=240
    )
    for name, value in np.load(tmp_path / "two.npz").items():
        np.testing.assert_array_equal(value, restored_on_one[name], err_msg=name)


def test_devices_exchange_each_gradient_once_and_half_the_bytes_in_bfloat16():
    env = environment(2) | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    script = SCRIPT.with_name("exchanged.py")
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    full, half = (json.loads(done.stdout)[dtype] for dtype in ("float32", "bfloat16"))
    metrics = 1 + 1 + 6  # loss, accuracy, the share of each class
    assert (full["f32"], full["bf16"]) == (full["parameters"] + metrics, 0)
    assert (half["f32"], half["bf16"]) == (metrics, full["parameters"])
    assert full["kept"] == half["kept"] == ["float32"]
    assert 0 < abs(full["grad_norm"] - half["grad_norm"]) < 2**-8 * full["grad_norm"]


def restore(workdir, replicate=False):
    """The state in a workdir of `ten_steps.py`, by path; on all devices first, if asked."""
    from openset_jax.training.checkpoints import Checkpoints

    config = small_config(**{"model.norm": "batch"})
    model = build.make_model(config, 5)
    _, optimizer = build.make_optimizer(config)
    saved = Checkpoints(workdir, writing=False)
    tree = saved.restore(10, state.create_state(model, optimizer, seed=1, image_size=16))
    saved.close()
    if replicate:
        tree = jax.device_get(devices.replicate(tree))
    return {jax.tree_util.keystr(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_prefetch_yields_every_batch_once_in_order():
    batches = [{"x": np.full((2, 3), i)} for i in range(7)]
    assert [int(b["x"][0, 0, 0]) for b in devices.prefetch(batches)] == list(range(7))
    assert list(devices.prefetch([])) == []


def test_prefetch_asks_for_two_batches_ahead_and_no_more():
    asked = []

    def source():
        for i in range(10):
            asked.append(i)
            yield {"x": np.zeros(1)}

    stream = devices.prefetch(source())
    next(stream)
    assert asked == [0, 1]
    next(stream)
    assert asked == [0, 1, 2]


def test_a_batch_that_does_not_divide_is_refused_by_field(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    devices.check_batch_size("batch_size", 64)
    with pytest.raises(UserError, match="eval.batch_size: 60 is not divisible by the 8 devices"):
        devices.check_batch_size("eval.batch_size", 60)


def test_a_coordinator_needs_the_number_of_this_process():
    with pytest.raises(UserError, match="--process_id"):
        devices.connect("localhost:1234")


def start_processes(workdir, **changes):
    """The train command as two processes with two devices each."""
    port = free_port()
    return [
        subprocess.Popen(
            command("train", f"--workdir={workdir}", f"--coordinator=localhost:{port}", "--num_processes=2",
                    f"--process_id={i}", **changes),
            cwd=ROOT, env=environment(2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_two_processes_stop_together_resume_and_do_what_one_process_does(tmp_path, uninterrupted):
    # SIGTERM to one of them: both save the same step and exit with 3
    slow = {"steps": 4000, "log_every": 5, "eval.every": 4000, "checkpoint.every": 4000}
    stopped = start_processes(tmp_path / "stopped", **slow)
    while not (tmp_path / "stopped/metrics.jsonl").exists() or not lines(tmp_path / "stopped"):
        assert all(process.poll() is None for process in stopped), finish(stopped)
        time.sleep(0.05)
    stopped[1].send_signal(signal.SIGTERM)
    codes, outputs = finish(stopped)
    assert codes == [3, 3], outputs
    assert any((tmp_path / "stopped/checkpoints").iterdir())

    for input, fields in (("stream", {"input": "stream"}), ("resident", {})):
        codes, outputs = finish(start_processes(tmp_path / input, **fields))
        assert codes == [0, 0], outputs
        assert "seen negatives" in outputs[0]
        assert "seen negatives" not in outputs[1]
        one, two = lines(uninterrupted), lines(tmp_path / input)
        assert [row["step"] for row in one] == [row["step"] for row in two]
        np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-3, err_msg=input)
        counts = [
            json.loads((folder / "metrics.json").read_text())["counts"] for folder in (uninterrupted, tmp_path / input)
        ]
        assert counts[0] == counts[1]
    # and it goes on, on another number of processes
    done = run(command("train", f"--workdir={tmp_path / 'resident'}", steps=14))
    assert done.returncode == 0, done.stderr
    assert "Resuming at step 12." in done.stdout
