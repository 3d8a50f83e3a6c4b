"""The training step against a plain implementation; it is compiled once."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_steps import NO_READER, batch_of, make, make_step, one_call
from jax import export
from small_run import small_spec

from openset_jax import config as configs
from openset_jax.data import augment
from openset_jax.training import devices, eval_program, run_cache, state, steps


def test_one_step_is_adamw_on_the_mean_cross_entropy():
    spec = small_spec(**{
        "model.dropout": 0.0, "augment.pad": 0, "optimizer.warmup_steps": 0, "optimizer.weight_decay": 0.1,
        "optimizer.schedule": "constant", "optimizer.learning_rate": 1e-3, "optimizer.grad_clip": 0.5,
    })  # fmt: skip
    model, _, optimizer, before = make(spec)
    batch = batch_of()
    after, metrics = one_call(spec, model, optimizer, before, batch)
    metrics = {name: value[0] for name, value in metrics.items()}

    def loss_of(params):
        logits, _ = model.apply({"params": params}, augment.normalise(batch["example"], spec.images.mean, spec.images.std))
        return -jax.nn.log_softmax(logits)[jnp.arange(8), batch["label"]].mean(), logits

    (loss, logits), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(before.params)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["correct"], (logits.argmax(1) == batch["label"]).mean())
    np.testing.assert_allclose(metrics["predicted"], np.bincount(logits.argmax(1), minlength=6) / 8)

    def adamw(p, g):  # in the first step the bias corrections cancel the decay of the moments
        g = np.asarray(g) * min(1.0, 0.5 / norm)
        return p - 1e-3 * (g / (np.abs(g) + 1e-8) + (0.1 * p if p.ndim > 1 else 0))

    expected = jax.tree.map(adamw, before.params, grads)
    # the sign of a gradient near 0, and so of Adam's first step, is uncertain: compare the other elements
    for path, new in jax.tree_util.tree_leaves_with_path(after.params):
        get = functools.partial(functools.reduce, lambda tree, key: tree[key.key], path)
        certain = np.abs(get(grads)) > 1e-6
        assert certain.mean() > 0.2, path
        np.testing.assert_allclose(np.asarray(new)[certain], np.asarray(get(expected))[certain], rtol=1e-3, atol=2e-6)
    assert after.step == 1


def test_the_step_depends_on_seed_and_step_only():
    spec = small_spec()
    model, _, optimizer, before = make(spec)
    run = lambda spec, begin: one_call(spec, model, optimizer, begin, batch_of())[1]["loss"]
    assert run(spec, before) == run(spec, before)
    assert run(spec, before) != run(small_spec(seed=1), before)
    assert run(spec, before) != run(spec, before.replace(step=np.int32(1)))


@pytest.mark.accelerator
def test_several_steps_compile_once_and_consume_their_state(monkeypatch):
    spec = small_spec()
    model, _, optimizer, before = make(spec)
    traced, train_step = [], steps.train_step
    monkeypatch.setattr(steps, "train_step", lambda *a, **k: traced.append(1) or train_step(*a, **k))
    step = make_step(spec, model, optimizer)
    current = devices.replicate(before)
    for i in range(4):
        given = current
        batch = devices.shard_steps([batch_of(seed=i)])
        with jax.transfer_guard("disallow"):
            current, metrics = step(current, batch)
        jax.block_until_ready(metrics)
        assert all(x.is_deleted() for x in jax.tree.leaves(given))
    assert before.params["conv1"]["kernel"].any()  # the host's copy is not consumed
    assert traced == [1]
    assert current.step == 4


def test_steps_of_one_call_equal_steps_of_separate_calls():
    spec = small_spec(**{"model.norm": "batch"})
    model, _, optimizer, begin = make(spec)
    batches = [batch_of(seed=i) for i in range(3)]
    together, metrics = one_call(spec, model, optimizer, begin, *batches)
    current, losses = begin, []
    for batch in batches:
        current, one = one_call(spec, model, optimizer, current, batch)
        current = jax.device_get(current)
        losses.append(float(one["loss"][0]))
    assert metrics["predicted"].shape == (3, 6)
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), jax.device_get(together), current)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_full_step_lowers_for_accelerators(platform):
    """Shows, without an accelerator, that no operation of the step exists on CPUs only."""
    from configs import default

    config = default.get_config()
    config.update_from_flattened_dict(
        {"model.dtype": "bfloat16", "batch_size": 8, "steps_per_call": 2, "data.packed": "/nowhere"}
    )
    (spec,) = configs.resolve(config, pathlib.Path("/nowhere"))
    model, _, optimizer = run_cache.RunCache().network(spec.program, 10)
    step = make_step(spec, model, optimizer, num_classes=10)

    def begin():
        variables = state.initial_variables(model, seed=0, shape=(224, 224, 3))
        return state.TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables["params"]))

    shape = lambda dtype, *dims: jax.ShapeDtypeStruct((jax.local_device_count(), 2, 8, *dims), dtype)
    batch = {"example": shape(np.uint8, 256, 256, 3), "label": shape(np.int32), "position": shape(np.int32)}
    constants = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step.args[1])
    exported = export.export(jax.jit(step.func.run), platforms=[platform])((), constants, jax.eval_shape(begin), batch)
    assert exported.platforms == (platform,)
    text = exported.mlir_module()
    assert "stablehlo.convolution" in text
    assert "bf16" in text


@pytest.mark.accelerator
def test_evaluation_gives_every_device_all_logits_in_order():
    spec = small_spec()
    model, _, _, before = make(spec)
    compute = lambda variables, images: {"logits": model.apply(variables, images.astype(jnp.float32) / 255)[0]}
    step = devices.pmap_eval(functools.partial(steps.eval_step, compute=compute), NO_READER)
    batch = batch_of() | {"mask": np.arange(8) < 5}
    out = step(devices.replicate(before.variables), devices.shard(batch))
    expected, _ = jax.jit(model.apply)(before.variables, batch["example"].astype(np.float32) / 255)
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out["mask"], batch["mask"])
    np.testing.assert_array_equal(out["position"], batch["position"])


@pytest.mark.accelerator
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_seed_as_argument_gives_the_stream_of_a_constant_seed(seed):
    given = jax.jit(lambda seed: jax.random.key_data(jax.random.key(seed)))(np.uint32(seed))
    np.testing.assert_array_equal(given, jax.random.key_data(jax.random.key(seed)))


def test_the_eval_step_in_bfloat16_has_the_logits_of_the_network_alone():
    """YNNPACK in jaxlib 0.11.2 made some logits NaN, different ones in each process."""
    spec = small_spec(**{"model.dtype": "bfloat16", "eval.batch_size": 64})
    model, _, _, before = make(spec)
    batch = batch_of(size=64) | {"mask": np.ones(64, bool)}
    step = eval_program.make_eval_steps(spec.program.forward, model, NO_READER)["logits"]
    found = np.stack([step(devices.replicate(before.variables), devices.shard(batch))["logits"] for _ in range(3)])
    images = augment.normalise(batch["example"], spec.images.mean, spec.images.std)
    expected, _ = jax.jit(model.apply)(before.variables, images)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.02 * np.abs(expected).max())
