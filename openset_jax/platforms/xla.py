"""The start of JAX, and options and workarounds for XLA's compilers."""

import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from openset_jax.errors import UserError


def isolated(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Returns function(*arrays); XLA first writes the arrays to memory, and does not fuse the function with their producers.

    If two fusions use a result, XLA's CPU compiler computes it in each of them, in the loop order of that fusion: for a
    transposition it computes a pooled map again, in an order that misses the caches. XLA removes `lax.optimization_barrier`
    before it fuses, but it keeps a conditional. The second branch is never taken: the condition, that a bit is 0 or 1, is
    always true, but the compiler does not know this.
    """
    bits = lax.bitcast_convert_type(arrays[0].ravel()[0].astype(jnp.float32), jnp.int32)
    nothing = lambda *arrays: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arrays))
    return lax.cond((bits & 1) < 2, function, nothing, *arrays)


# YNNPACK for products and sums, Eigen for convolutions: the gradients of kernels take 3 to 4 times as long in YNNPACK.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
# In jaxlib 0.11.2 YNNPACK's bfloat16 products read uninitialised memory.
_CPU_OPTIONS_OF_BFLOAT16 = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
_BFLOAT16_PRODUCT = re.compile(r"stablehlo\.dot_general.*bf16")


def compile_lowered(lowered: jax.stages.Lowered, options: Mapping[str, Any] | None = None) -> jax.stages.Compiled:
    """Compiles a program with the best options for the platform, and with further `options` of XLA."""
    if jax.default_backend() != "cpu":
        return lowered.compile(dict(options or {}))
    suited = _CPU_OPTIONS_OF_BFLOAT16 if _BFLOAT16_PRODUCT.search(lowered.as_text()) else _CPU_OPTIONS
    try:
        return lowered.compile({**suited, **(options or {})})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error) or options:
            raise
        return lowered.compile()  # a version of XLA without YNNPACK


def planned_bytes(program: jax.stages.Compiled) -> dict[str, int]:
    """Returns the bytes on one device that XLA plans for a training step, by part, and their "peak"."""
    plan: Any = program.memory_analysis()
    arguments, temporaries = plan.argument_size_in_bytes, plan.temp_size_in_bytes
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes  # the new state replaces the old one
    return {"state and batch": arguments, "temporaries": temporaries, "peak": arguments + temporaries + results}


def check_platform() -> None:
    """Raises UserError if JAX has no device, for example because there is none of the platform that JAX_PLATFORMS names."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a platform that is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        why = "".join(str(error).splitlines()[:1]) or "its plugin of JAX, or the device, is missing"
        raise UserError(
            f"JAX_PLATFORMS={asked}: JAX cannot use this platform here: {why}. Unset JAX_PLATFORMS to use the devices that "
            "there are, or set it to cpu"
        ) from error


def cache_compilations() -> None:
    """Keeps compiled programs in JAX_COMPILATION_CACHE_DIR, else in openset_jax/xla of XDG_CACHE_HOME or ~/.cache."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # JAX defines its options at run time
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache, "openset_jax", "xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
