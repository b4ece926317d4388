"""The kernel library: all ways to run each kernel agree, for GPUs with and without TMA and fp8, of both vendors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mosaic_compile import kernels
from mosaic_compile.check.inputs import Wanted, make_inputs

PRODUCT = dict(BM=16, BN=16, BK=32, scale=0.5)
PARTS = ("bias", "residual")
ROWS = dict(BM=4, BN=16)
ATTENTION = dict(BM=16, BN=16, D=24, scale=0.2)
DECODING = dict(BG=16, BN=16, D=24, PAGE=16, scale=0.2)

# Indices that depend on one another.
INDICES: dict[str, dict[str, np.ndarray]] = {
    "varlen_attention": dict(
        query_starts=np.array([0, 7, 7, 40], np.int32), key_starts=np.array([0, 7, 20, 61], np.int32)
    ),
    "paged_attention": dict(
        page_table=np.array([[8, 1, 3], [4, 2, 0], [7, 6, 5]], np.int32),
        lengths=np.array([33, 48, 1], np.int32),
    ),
}

# Kernel, what --set says, what --shape says, the optional arrays.
CASES: list[tuple[str, dict[str, Any], dict[str, int], tuple[str, ...]]] = [
    ("vector_add", dict(BLOCK=32), {}, ()),
    ("vector_add", dict(BLOCK=32, T="i8"), {}, ()),
    ("softmax", ROWS, dict(M=10), ()),
    ("softmax", dict(**ROWS, T="f32"), dict(M=10, N=13), ()),
    ("rms_norm", dict(**ROWS, T="f16"), dict(M=10), ()),
    ("layer_norm", ROWS, dict(M=10), ("bias", "mean", "rstd")),
    ("cumsum", ROWS, dict(M=10), ()),
    ("gelu", dict(**ROWS, T="f32"), dict(M=10), ()),
    ("gated", ROWS, dict(M=10), ()),
    ("cross_entropy", dict(**ROWS, label_smoothing=0.1), dict(M=10), ("lse",)),
    ("gather_rows", dict(BM=4, BN=16), dict(N=9, V=20, D=40), ()),
    ("histogram", dict(BLOCK=64), dict(N=300), ()),
    ("rope", dict(BS=4, BH=2, D=32, R=8), dict(S=5, H=3), ("positions",)),
    ("matmul", PRODUCT, dict(M=40, N=40, K=72), PARTS),
    ("matmul", dict(**PRODUCT, activation="gelu", T="f8e4m3"), dict(M=40, N=40, K=80), PARTS),
    ("matmul", dict(**PRODUCT, precision="tf32", T="f32", U="f32"), dict(M=40, N=40, K=72), ()),
    ("persistent_matmul", PRODUCT, dict(M=40, N=40, K=72), ()),
    ("batched_matmul", PRODUCT, dict(M=40, N=24, K=72, BB=1), ()),
    ("split_k_matmul", dict(**PRODUCT, SPLIT=3), dict(M=40, N=24, K=136), ()),
    ("stream_k_matmul", PRODUCT, dict(M=40, N=24, K=136), ()),
    ("linear", PRODUCT, dict(M=20, N=40, K=136), PARTS),
    ("linear", PRODUCT | dict(BM=1), dict(M=3, N=40, K=136), ()),
    ("quantize_rows", dict(T="f32"), dict(M=3, B=2, K=600, E=512), ()),
    ("quantized_matmul", dict(BM=2, BN=4), dict(M=3, N=9, B=2), ()),
    ("quantized_matmul", dict(BM=2, BN=4, BITS=8, L=128, S="f32"), dict(M=3, N=9, B=2), ()),
    ("flash_attention", dict(**ATTENTION, causal=True), dict(S=40, T=24), ("lse",)),
    ("flash_attention", dict(**ATTENTION, E="f32"), dict(S=24, T=40, H=4), ("lse",)),
    ("flash_attention", dict(**ATTENTION, causal=True, window=9, softcap=5.0), dict(S=40, T=24), ()),
    ("varlen_attention", dict(**ATTENTION, causal=True), dict(S=40, T=61, STARTS=4, H=4, HK=2), ("lse",)),
    ("varlen_attention", dict(**ATTENTION, E="f32"), dict(S=40, T=61, STARTS=4, H=4, HK=1), ()),
    ("paged_attention", DECODING, dict(SPLITS=2, B=3, HK=2, G=3, MOST=3, PAGES=9), ("lse",)),
    (
        "paged_attention",
        dict(**DECODING, P="bf16", window=20),
        dict(SPLITS=1, B=3, HK=2, G=3, MOST=3, PAGES=9),
        (),
    ),
    ("merge_attention", dict(BS=4, D=24), dict(SPLITS=5, N=7), ("lse",)),
]


@pytest.mark.parametrize("target", ["sm90", "sm80", "gfx942", "cpu"])
@pytest.mark.parametrize("name, given, dims, arrays", CASES, ids=[case[0] for case in CASES])
def test_agrees(name, given, dims, arrays, target):
    kernel = getattr(kernels, name)
    inputs = make_inputs(kernel, Wanted(given=given, dims=dims, arrays=frozenset(arrays)))
    report = kernel.check(**{**inputs.arguments, **INDICES.get(name, {})}, target=target)
    assert report.ok, report
    assert report.fault is None
    ran = [row.ran for row in report.rows if row.difference is not None]
    assert list(dict.fromkeys(ran)) == ["reference", "tile passes", "cpu" if target == "cpu" else "tt"]
    assert (
        target == "cpu"
        or report.rows[-1].reason.startswith("not on this machine")
        or report.rows[-1].ran == target
    )


def test_every_kernel_is_here():
    assert {case[0] for case in CASES} == {*kernels.__all__}
