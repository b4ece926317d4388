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
from mosaic_compile.errors import ArgumentError
from mosaic_compile.kernels.paged_attention import number_of_splits
from mosaic_compile.kernels.quantized_matmul import LANES

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
    """All dimensions but the last as one: always a matrix."""
    return x if x.ndim == 2 else torch.atleast_2d(x).flatten(0, -2)


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


FEW_ROWS = 128  # up to which `linear` is the faster on an H200


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
def quantize_rows(x: Tensor, group: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """x in 8 bits, in groups of the last dimension with a scale each: the numbers, scales and sums of groups.

    x: (…, K). Results: (B, …, 16 * group), i8; (B, …, 16), f32; (B, …, 16), i32, for B blocks of 16 groups,
    in the order that docs/quantization.md says: x as the kernel quantized_matmul takes it.
    """
    blocks = -(-x.shape[-1] // (LANES * group))  # not mc.cdiv, which does not know the sizes of tracing
    rows, outer = _rows(x), (blocks, *x.shape[:-1])
    q = torch.empty((*outer, LANES * group), dtype=torch.int8, device=x.device)
    scales = torch.empty((*outer, LANES), dtype=torch.float32, device=x.device)
    sums = torch.empty((*outer, LANES), dtype=torch.int32, device=x.device)
    results = (t.view(blocks, rows.shape[0], t.shape[-1]) for t in (q, scales, sums))
    _run(kernels.quantize_rows, rows, *results, G=group)
    return q, scales, sums


@_operator
def quantized_matmul(
    x: Tensor,
    w: Tensor,
    w_scales: Tensor,
    bits: int = 4,
    group: int = 32,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """x @ weights.T of packed weights, with x quantized by `quantize_rows`; of `out_dtype`, or x's type.

    x: (…, K). w: (N, B, 16 * group * bits / 32), u32, and w_scales: (N, B, 16), f16 or f32, as `quantized` of
    mosaic_compile.kernels.quantized_matmul makes them of weights (N, K) with the same bits (4, 8) and group.
    Their K is not in them, only how many blocks it takes: another K of as many is not noticed.
    """
    words = LANES * group * bits // 32
    if bits not in (4, 8) or group % 32 or w.shape[-1] != words:
        raise ArgumentError(
            f"weights of {bits} bits in groups of {group} are not in blocks of {w.shape[-1]} words",
            "give bits, 4 or 8, and group, 32, 64, 128 …, as the weights were packed",
        )
    out = torch.empty((*x.shape[:-1], w.shape[0]), dtype=out_dtype or x.dtype, device=x.device)
    if x.is_meta:
        return out
    rows = _rows(x)
    q, scales, sums = quantize_rows(rows, group)
    kernels.quantized_matmul(q.view(torch.int32), scales, sums, w, w_scales, _rows(out), BITS=bits)
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
def cumsum(
    x: Tensor, exclusive: bool = False, reverse: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Running sums over the last dimension, of `out_dtype`: x's type where that is floating-point, else i32.

    Integers, of up to 32 bits, are added in 32 bits and wrap, as in torch's cumsum with dtype=torch.int32.
    exclusive: without the element itself. reverse: from the end of the row.
    """
    out_dtype = out_dtype or (x.dtype if x.is_floating_point() else torch.int32)
    out = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    _run(kernels.cumsum, _rows(x), _rows(out), exclusive=exclusive, reverse=reverse)
    return out


@_operator
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x / 2 * (1 + erf(x / sqrt(2))), or its approximation by tanh: approximate is "none" or "tanh"."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _run(kernels.gelu, _rows(x), _rows(out), approximate=approximate)
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
def gather_rows(table: Tensor, indices: Tensor) -> Tensor:
    """table[indices], as torch's embedding: table (V, D), indices (…), i32 or i64; the result is (…, D).

    An index outside 0 … V - 1 gives zeros.
    """
    out = torch.empty((*indices.shape, *table.shape[1:]), dtype=table.dtype, device=table.device)
    _run(kernels.gather_rows, table, indices.reshape(-1), _rows(out))
    return out


@_operator
def histogram(values: Tensor, bins: int) -> Tensor:
    """How often each of 0 … bins - 1 is in values, i32 (bins): values (…), i32, i64 or u8; others do not count."""
    counts = torch.zeros(bins, dtype=torch.int32, device=values.device)
    _run(kernels.histogram, values.reshape(-1), counts)
    return counts


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
