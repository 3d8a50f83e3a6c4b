"""Counts the numbers that two devices exchange in a step, and prints them as JSON, by the dtype of the all-reduce.

A process of its own, because the number of devices is fixed when JAX starts, and one device exchanges nothing.
"""

import json
import math
import re

import jax
import numpy as np
from few_steps import make, make_step
from small_run import small_spec

from openset_jax.training import devices


def exchange(dtype):
    spec = small_spec(**{"optimizer.all_reduce_dtype": dtype})
    model, _, optimizer, begin = make(spec)
    rng = np.random.default_rng(0)
    batch = {
        "example": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 6, 16, np.int32),
        "position": np.arange(16, dtype=np.int32),
        "mask": np.ones(16, bool),
    }
    step = make_step(spec, model, optimizer)
    batches = devices.shard_steps([batch])
    # before XLA's CPU compiler turns sums of bfloat16 into sums of float32
    text = step.func.run.lower(*step.args, begin, batches).as_text()
    counts = {"f32": 0, "bf16": 0}
    for operands in re.findall(r"stablehlo.all_reduce.*?\}\) : \((.*?)\) ->", text, flags=re.DOTALL):
        for shape, kind in re.findall(r"tensor<((?:\d+x)*)(f32|bf16)>", operands):
            counts[kind] += math.prod(int(n) for n in shape.split("x") if n)
    after, metrics = step(devices.replicate(begin), batches)
    return counts | {
        "grad_norm": float(metrics["grad_norm"][0]),
        "parameters": sum(p.size for p in jax.tree.leaves(begin.params)),
        "kept": sorted({str(p.dtype) for p in jax.tree.leaves(after.params)}),
    }


if __name__ == "__main__":
    assert jax.device_count() == 2
    print(json.dumps({dtype: exchange(dtype) for dtype in ("float32", "bfloat16")}))
