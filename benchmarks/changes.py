"""The variants of the train step that `benchmarks.variants` measures: the production step with one thing replaced."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_YNN = "xla_cpu_experimental_ynn_fusion_type"
_BUFFERS = "xla_gpu_enable_command_buffer"
# XLA's compiler options by platform
OPTIONS = {
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
# variants that are the forms in use: the plain step has them
IN_USE = {
    "cpu": ("pooling: by slices, alone", "crops: by pixel", "first convolution: columns"),
    "gpu": ("first convolution: space to depth", "pooling: by parity", "crops: by pixel"),
    "tpu": ("first convolution: XLA's own", "pooling: by windows", "crops: by slices"),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """The production step with something replaced.

    Attributes:
      name: in the table.
      group: what it is a choice of; of each group at most one variant is in the last row.
      forms: fields of `openset_jax.model.forms.Forms`.
      step: keywords of `openset_jax.training.steps.train_step`.
      optimizer: (learning rate schedule, **options of `optimizer.make_optimizer`) -> the optimizer.
      fields: of the config.
      options: of XLA's compiler.
      prng: implementation of JAX's random keys, "" for the default.
      same_numbers: whether its losses are those of the plain step up to rounding.
      compare_after: steps after which its loss is compared with the plain step's, 0 for never.
      never: why it is not adopted however fast it is, "" if it may be.
    """

    name: str
    group: str
    forms: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    step: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Callable[..., Any] | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prng: str = ""
    same_numbers: bool = True
    compare_after: int = 0
    never: str = ""


PLAIN = Variant("plain", "")


def together(variants: Iterable[Variant]) -> Variant:
    """All of these replacements at once."""
    variants = list(variants)
    merged = {
        name: {k: v for variant in variants for k, v in getattr(variant, name).items()}
        for name in ("forms", "step", "fields", "options")
    }
    first = lambda name: next((found for variant in variants if (found := getattr(variant, name))), None)
    return Variant(
        "together: " + ", ".join(v.name for v in variants), "", **merged, optimizer=first("optimizer"),
        same_numbers=all(v.same_numbers for v in variants),
    )  # fmt: skip


def variants(config: Any, platform: str) -> list[Variant]:
    """The variants to measure, the most important first: all but the forms in use."""
    return [variant for variant in candidates(config, platform) if variant.name not in IN_USE[platform]]


def candidates(config: Any, platform: str) -> list[Variant]:
    """All variants. Another one is another line."""
    from benchmarks import forms
    from openset_jax.data import augment
    from openset_jax.platforms import convolution, max_pool

    first = lambda form: {"convolve": forms.first_convolution(form)}
    plainly = lambda x, kernel, stride, padding: convolution.convolve_plainly(x, kernel, stride, padding)
    pool = lambda spread, **options: {"max_pool": forms.max_pool_by(spread, **options)}
    padded = lambda n: lambda *given: forms.convolve_padded(*given, channels=n)

    def crop(form):
        given = {"image_size": config.data.image_size, "pad": config.augment.pad, "flip": config.augment.flip}
        return {"augment": functools.partial(augment.augment, **given, crop=form)}

    where, when, what = "first convolution", "steps a call", "optimizer"
    device, choice, changes = "depends on the device that holds an example", "set by the config", "changes the result"
    by_hand = "no test can say that an option computes the same"
    loose, masks = {"same_numbers": False}, "draws other masks, at rates of n/256"
    low = {"compare_after": 100, "never": changes}
    if config.model.stem == "imagenet":
        blocks = Variant(f"{where}: space to depth", where, first(convolution.convolve_blocks))
    else:
        columns = lambda x, kernel, stride, padding: convolution.convolve_columns(x, kernel, padding)
        blocks = Variant(f"{where}: columns", where, first(columns))
    return [
        blocks,
        Variant("pooling: by parity", "pooling", pool(max_pool.spread_by_parity)),
        Variant("crops: by pixel", "crops", step=crop(augment.crop_by_pixel)),
        Variant("pooling: by slices", "pooling", pool(max_pool.spread_by_slices)),
        Variant("ReLU: gradient by its output", "ReLU", {"relu": forms.relu_by_output}),
        Variant(f"{what}: one vector", what, optimizer=forms.flat_adam),
        Variant("no clipping", "clipping", fields={"optimizer.grad_clip": 0.0}, **loose, never=changes),
        Variant("dropout: a random byte each", "dropout", {"bernoulli": forms.bernoulli_of_bytes}, **loose, never=masks),
        Variant("random bits: rbg", "dropout", prng="rbg", **loose, never=device),
        Variant(f"{what}: moments in bfloat16", what, optimizer=forms.adam_of_moments("mu", "nu"), **low),
        Variant("pooling: after bias and ReLU", "order of pooling", {"pool_first": False}),
        Variant(f"{where}: 8 channels", where, first(padded(8))),
        Variant(f"{where}: 4 channels", where, first(padded(4))),
        Variant("pooling: by comparison", "pooling", {"max_pool": forms.max_pool_by_comparison}),
        *(Variant(f"XLA: {name}", "XLA", options=o, never=by_hand) for name, o in OPTIONS.get(platform, {}).items()),
        Variant("random bits: unsafe_rbg", "dropout", prng="unsafe_rbg", **loose, never=device),
        Variant("crops: by products", "crops", step=crop(forms.crop_by_products)),
        Variant(f"{what}: first moment in bfloat16", what, optimizer=forms.adam_of_moments("mu"), **low),
        Variant("pooling: by parity, alone", "pooling", pool(max_pool.spread_by_parity, alone=True)),
        Variant("pooling: by slices, alone", "pooling", pool(max_pool.spread_by_slices, alone=True)),
        Variant(f"{where}: patches", where, first(forms.convolve_patches)),
        Variant(f"{where}: XLA's own", where, first(plainly)),
        Variant("pooling: by windows", "pooling", {"max_pool": max_pool.max_pool_by_windows}),
        Variant("crops: by slices", "crops", step=crop(augment.crop_by_slices)),
        Variant("10 steps a call", when, fields={"steps_per_call": 10}, never=choice),
        Variant("100 steps a call", when, fields={"steps_per_call": 100}, never=choice),
        Variant("crops: one by one", "crops", step=crop(forms.crop_one_by_one)),
    ]
