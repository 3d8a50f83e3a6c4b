"""The variants of the training step that `benchmarks.variants` measures: the step in use with one part replaced."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are used, so that --help answers at once
    from benchmarks.forms import MakeOptimizer
    from openset_jax.spec import ProgramSpec

_YNN = "xla_cpu_experimental_ynn_fusion_type"
_BUFFERS = "xla_gpu_enable_command_buffer"
# platform -> name -> options of XLA's compiler
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "without YNNPACK": {_YNN: ""},
        "fast min and max": {"xla_cpu_enable_fast_min_max": True},
    },
    "gpu": {
        "cuDNN fusions for convolutions": {"xla_gpu_experimental_enable_conv_fusion": True},
        "convolutions in NCHW": {"xla_gpu_force_conv_nchw": True},
        "command buffers with cuDNN": {_BUFFERS: "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE"},
        "no command buffers": {_BUFFERS: ""},
        "latency-hiding scheduler": {"xla_gpu_enable_latency_hiding_scheduler": True},
        "no Triton products": {"xla_gpu_enable_triton_gemm": False},
        "autotuned fusions": {"xla_gpu_experimental_enable_fusion_autotuner": True},
        "dependent launches": {"xla_gpu_enable_pdl": True, "xla_gpu_enable_pdl_launch": True},
        "cuDNN fusions for products": {"xla_gpu_cudnn_gemm_fusion_level": 2},
        "no autotuning": {"xla_gpu_autotune_level": 0},
    },
}
# platform -> variants that equal the plain step
IN_USE = {
    "cpu": ("pooling: by slices, alone", "crops: by pixel", "first convolution: columns"),
    "gpu": ("first convolution: space to depth", "pooling: by parity", "crops: by pixel"),
    "tpu": ("first convolution: XLA's own", "pooling: by windows", "crops: by slices"),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """The step in use with some parts replaced.

    Attributes:
      name: in the table.
      group: the part that is replaced; the last row of the table has at most one variant of each group.
      forms: fields of `openset_jax.model.layers.Ops`.
      step: keywords of `openset_jax.training.steps.train_step`.
      optimizer: replaces `state.make_optimizer`.
      fields: of `ProgramSpec`, by names with dots.
      options: of XLA's compiler.
      prng: implementation of JAX's random keys; "" for the default.
      same_numbers: True if its losses equal those of the plain step up to rounding.
      compare_after: step at which its loss is compared with the plain step's; 0 for never.
      never: the reason why it is not adopted even if it is faster; "" if it may be.
    """

    name: str
    group: str
    forms: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    step: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: MakeOptimizer | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prng: str = ""
    same_numbers: bool = True
    compare_after: int = 0
    never: str = ""


PLAIN = Variant("plain", "")


def together(variants: Iterable[Variant]) -> Variant:
    """The variant with all of these replacements."""
    variants = list(variants)
    merged: dict[str, Any] = {
        name: {k: v for variant in variants for k, v in getattr(variant, name).items()}
        for name in ("forms", "step", "fields", "options")
    }
    first = lambda name: next((found for variant in variants if (found := getattr(variant, name))), None)
    return Variant(
        "together: " + ", ".join(v.name for v in variants), "", **merged, optimizer=first("optimizer"),
        same_numbers=all(v.same_numbers for v in variants),
    )  # fmt: skip


def replaced(program: ProgramSpec, fields: Mapping[str, Any]) -> ProgramSpec:
    """The program with other values of some fields.

    Args:
      fields: by names with dots, such as "optimizer.grad_clip".
    """

    def replace(spec, name, value):
        first, _, rest = name.partition(".")
        return dataclasses.replace(spec, **{first: replace(getattr(spec, first), rest, value) if rest else value})

    for name, value in fields.items():
        program = replace(program, name, value)
    return program


def variants(program: ProgramSpec, platform: str) -> list[Variant]:
    """The variants to measure, the most important first: all except those in use."""
    return [variant for variant in candidates(program, platform) if variant.name not in IN_USE[platform]]


def candidates(program: ProgramSpec, platform: str) -> list[Variant]:
    """All variants. A new one is a new line."""
    from benchmarks import forms
    from openset_jax.data import augment
    from openset_jax.platforms import convolution, crop, max_pool

    first = lambda form: {"convolve": forms.first_convolution(form)}
    plainly = lambda x, kernel, stride, padding: convolution.convolve_plainly(x, kernel, stride, padding)
    pool = lambda spread, **options: {"max_pool": max_pool.max_pool_by(spread, **options)}
    padded = lambda n: lambda *given: forms.convolve_padded(*given, channels=n)

    def cropped(form):
        given = {"image_size": program.forward.images.image_size, "pad": program.pad, "flip": program.flip}
        return {"augment": functools.partial(augment.augment, **given, crop=form)}

    conv, calls, update = "first convolution", "steps a call", "optimizer"
    device, choice, changes = "depends on the device that holds an example", "set by the config", "changes the result"
    by_hand = "no test can show that an option gives the same results"
    loose, masks = {"same_numbers": False}, "draws other masks, at rates of n/256"
    low = {"compare_after": 100, "never": changes}
    if program.forward.network.stem == "imagenet":
        blocks = Variant(f"{conv}: space to depth", conv, first(convolution.convolve_blocks))
    else:
        columns = lambda x, kernel, stride, padding: convolution.convolve_columns(x, kernel, padding)
        blocks = Variant(f"{conv}: columns", conv, first(columns))
    return [
        blocks,
        Variant("pooling: by parity", "pooling", pool(max_pool.spread_by_parity)),
        Variant("crops: by pixel", "crops", step=cropped(crop.crop_by_pixel)),
        Variant("pooling: by slices", "pooling", pool(max_pool.spread_by_slices)),
        Variant("ReLU: gradient by its output", "ReLU", {"relu": forms.relu_by_output}),
        Variant(f"{update}: one vector", update, optimizer=forms.flat_adam),
        Variant("no clipping", "clipping", fields={"optimizer.grad_clip": 0.0}, **loose, never=changes),
        Variant("dropout: a random byte each", "dropout", {"bernoulli": forms.bernoulli_of_bytes}, **loose, never=masks),
        Variant("random bits: rbg", "dropout", prng="rbg", **loose, never=device),
        Variant(f"{update}: moments in bfloat16", update, optimizer=forms.adam_with_bfloat16("mu", "nu"), **low),
        Variant("pooling: after bias and ReLU", "order of pooling", {"pool_first": False}),
        Variant(f"{conv}: 8 channels", conv, first(padded(8))),
        Variant(f"{conv}: 4 channels", conv, first(padded(4))),
        Variant("pooling: by comparison", "pooling", {"max_pool": forms.max_pool_by_comparison}),
        *(Variant(f"XLA: {name}", "XLA", options=o, never=by_hand) for name, o in OPTIONS.get(platform, {}).items()),
        Variant("random bits: unsafe_rbg", "dropout", prng="unsafe_rbg", **loose, never=device),
        Variant("crops: by products", "crops", step=cropped(forms.crop_by_products)),
        Variant(f"{update}: first moment in bfloat16", update, optimizer=forms.adam_with_bfloat16("mu"), **low),
        Variant("pooling: by parity, alone", "pooling", pool(max_pool.spread_by_parity, alone=True)),
        Variant("pooling: by slices, alone", "pooling", pool(max_pool.spread_by_slices, alone=True)),
        Variant(f"{conv}: patches", conv, first(forms.convolve_patches)),
        Variant(f"{conv}: XLA's own", conv, first(plainly)),
        Variant("pooling: by windows", "pooling", {"max_pool": max_pool.max_pool_by_windows}),
        Variant("crops: by slices", "crops", step=cropped(crop.crop_by_slices)),
        Variant("10 steps a call", calls, fields={"steps_per_call": 10}, never=choice),
        Variant("100 steps a call", calls, fields={"steps_per_call": 100}, never=choice),
        Variant("crops: one by one", "crops", step=cropped(forms.crop_one_by_one)),
    ]
