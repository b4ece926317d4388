"""The kernel library as PyTorch operators, `torch.ops.mosaic.*`: torch.compile and torch.export keep each as one call.

Import this module to register them (it needs torch; `mosaic_compile.kernels` does not). Tensors lie on a GPU or on
the host, all of a call on one of the two. Results are new tensors; there are no gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mosaic_compile as mc
from mosaic_compile import kernels
from mosaic_compile.kernels.paged_attention import number_of_splits

_library = torch.library.Library("mosaic", "FRAGMENT")


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Registers a function as an operator of its name, with the schema that its annotations say.

    On meta tensors, which is what PyTorch traces with, it runs too: `_run` then does nothing, and what is left are
    the results' shapes and types. An operator defined this way costs a few µs a call less than `custom_op`'s.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    _library.define(function.__name__ + schema, tags=torch.Tag.pt2_compliant_tag)
    for key in ("CPU", "CUDA", "Meta"):
        _library.impl(function.__name__, function, key)
    overload = getattr(torch.ops.mosaic, function.__name__).default

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return overload(*args, **kwargs)

    return call


def _run(kernel: Any, *arguments: Any, **named: Any) -> None:
    if not arguments[0].is_meta:
        kernel(*arguments, **named)


def _rows(x: Tensor) -> Tensor:
    """All dimensions but the last as one."""
    return x.reshape(-1, x.shape[-1]) if x.ndim != 2 else x


def _product_type(a: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    return out_dtype or (a.dtype if a.element_size() > 1 else torch.bfloat16)


def _product_kernel(a: Tensor) -> Any:
    """What multiplies fastest where `a` lies."""
    return kernels.persistent_matmul if a.is_cuda else kernels.matmul


@_operator
def matmul(
    a: Tensor,
    b: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: str = "ieee",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """activation(scale * a @ b + bias) + residual, of `out_dtype`: a's type, or bf16 where that is fp8.

    a: (…, K). b: (K, N). bias: (N). residual: (…, N). The others as in mosaic_compile.kernels.matmul.
    """
    out = torch.empty((*a.shape[:-1], b.shape[1]), dtype=_product_type(a, out_dtype), device=a.device)
    added = None if residual is None else _rows(residual)
    options = dict(activation=activation, precision=precision)
    _run(_product_kernel(a), _rows(a), b, _rows(out), scale, bias, added, **options)
    return out


FEW_ROWS = 16  # what the first entry of linear's `tune` takes at once


@_operator
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float = 1.0,
    activation: str = "none",
    precision: str = "ieee",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """activation(scale * x @ weight.T + bias) + residual, as `matmul`: x (…, K), weight (N, K) as torch's linear has it."""
    out = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=_product_type(x, out_dtype), device=x.device)
    rows, added = _rows(x), None if residual is None else _rows(residual)
    options = dict(activation=activation, precision=precision)
    few = x.is_cuda and len(rows) <= FEW_ROWS
    kernel, factor = (kernels.linear, weight) if few else (_product_kernel(x), weight.T)
    _run(kernel, rows, factor, _rows(out), scale, bias, added, **options)
    return out


@_operator
def batched_matmul(
    a: Tensor,
    b: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: str = "ieee",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """activation(scale * a[i] @ b[i] + bias) + residual[i] for each i of a batch, as `matmul`.

    a: (B, M, K). b: (B, K, N); one of the two may have fewer matrices, which then serve so many neighbours.
    """
    shape = (max(a.shape[0], b.shape[0]), a.shape[1], b.shape[2])
    out = torch.empty(shape, dtype=_product_type(a, out_dtype), device=a.device)
    _run(kernels.batched_matmul, a, b, out, scale, bias, residual, activation=activation, precision=precision)
    return out


@_operator
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimension."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _run(kernels.rms_norm, _rows(x), weight, _rows(out), eps)
    return out


@_operator
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _run(kernels.layer_norm, _rows(x), weight, _rows(out), eps, bias)
    return out


@_operator
def softmax(x: Tensor) -> Tensor:
    """exp(x) / sum(exp(x)) over the last dimension."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _run(kernels.softmax, _rows(x), _rows(out))
    return out


@_operator
def gated(gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
    """activation(gate) * up: SwiGLU, or what mosaic_compile.kernels.gated makes of the activation."""
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    _run(kernels.gated, _rows(gate), _rows(up), _rows(out), activation=activation)
    return out


@_operator
def rope(
    x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None, interleaved: bool = False
) -> Tensor:
    """Rotary embedding of tokens x (S, H, D) by tables cos and sin (P, R), f32, at positions (S), i32."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _run(kernels.rope, x, cos, sin, out, positions, interleaved=interleaved)
    return out


@_operator
def cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of each row, f32: logits (…, V), labels (…), as torch's with reduction="none"."""
    loss = torch.empty(labels.shape, dtype=torch.float32, device=logits.device)
    options = dict(ignore_index=ignore_index, label_smoothing=label_smoothing)
    _run(kernels.cross_entropy, _rows(logits), labels.reshape(-1), loss.view(-1), **options)
    return loss


@_operator
def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    causal: bool = False,
    window: int = 0,
    softcap: float = 0.0,
) -> Tensor:
    """softmax(scale * q @ k^T) @ v: q (B, H, S, D), k and v (B, HK, T, D), scale D ** -0.5 unless given.

    causal, window, softcap: as in mosaic_compile.kernels.flash_attention.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    options = dict(causal=causal, window=window, softcap=softcap)
    _run(kernels.flash_attention, q, k, v, out, _scale(q, scale), **options)
    return out


@_operator
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    scale: float | None = None,
    causal: bool = False,
    window: int = 0,
    softcap: float = 0.0,
) -> Tensor:
    """`flash_attention` of sequences one after the other: q (S, H, D), k and v (T, HK, D).

    query_starts, key_starts: i32, where each sequence begins, and where the last one ends.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    options = dict(causal=causal, window=window, softcap=softcap)
    _run(kernels.varlen_attention, q, k, v, query_starts, key_starts, out, _scale(q, scale), **options)
    return out


@_operator
def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
    splits: int = 0,
) -> Tensor:
    """The attention of each sequence's last token, q (B, H, D), to its keys in a cache of pages.

    k_cache, v_cache: (pages, tokens of a page, HK, D). page_table: (B, most pages of a sequence), i32.
    lengths: (B), i32. splits: how many parts the keys are cut into; 0: as `number_of_splits` says for sequences as
    long as the table has room for, so that nothing waits for the lengths.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if q.is_meta:
        return out
    B, H, D = q.shape
    PAGE, HK = k_cache.shape[1:3]
    splits = splits or number_of_splits(B, HK, page_table.shape[1] * PAGE, _processors(q.device))
    given = (q.view(B, HK, H // HK, D), k_cache, v_cache, page_table, lengths)
    options = dict(window=window, softcap=softcap)
    if splits == 1:
        kernels.paged_attention(*given, out.view(1, B, HK, H // HK, D), _scale(q, scale), **options)
        return out
    parts = torch.empty((splits, B, HK, H // HK, D), dtype=torch.float32, device=q.device)
    lses = torch.empty((splits, B, HK, H // HK), dtype=torch.float32, device=q.device)
    kernels.paged_attention(*given, parts, _scale(q, scale), lses, **options)
    kernels.merge_attention(parts.view(splits, B * H, D), lses.view(splits, B * H), out.view(B * H, D))
    return out


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _processors(device: torch.device) -> int:
    """Multiprocessors of a GPU, or threads that kernels run on."""
    return _multiprocessors(device) if device.type == "cuda" else mc.get_num_threads()


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
