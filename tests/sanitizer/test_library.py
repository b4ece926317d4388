"""The kernel library on ordinary inputs: nothing is found, and the results are the interpreter's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mosaic_compile import kernels
from mosaic_compile.kernels import quantize_rows
from mosaic_compile.kernels.quantized_matmul import quantized

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def output(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Contents that would show, were they read."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 77, dtype)


A, B, C = floats(37, 50), floats(50, 43), output(37, 43)
SMALL = dict(BM=16, BN=16, BK=16)
PRODUCT = dict(a=A, b=B, scale=0.5, bias=floats(43), residual=floats(37, 43), activation="silu", **SMALL)
X = floats(9, 37)
ROWS = dict(x=X, BM=4, BN=16)
ATTENTION = dict(
    q=floats(2, 4, 21, 24), k=floats(2, 2, 37, 24), v=floats(2, 2, 37, 24), scale=0.2, BM=16, BN=16
)

Q8 = quantize_rows.reference(floats(3, 600))
W4 = quantized(floats(9, 600), 4, 32)
SEQUENCES = dict(
    q=floats(40, 4, 24),
    k=floats(61, 2, 24),
    v=floats(61, 2, 24),
    query_starts=np.array([0, 7, 7, 40], np.int32),
    key_starts=np.array([0, 7, 20, 61], np.int32),
    scale=0.2,
    BM=16,
    BN=16,
)
DECODING = dict(
    q=floats(3, 2, 3, 24),
    k_cache=floats(9, 16, 2, 24),
    v_cache=floats(9, 16, 2, 24),
    page_table=np.array([[8, 1, 3], [4, 2, 0], [-1, -1, -1]], np.int32),
    lengths=np.array([33, 48, 0], np.int32),
    scale=0.2,
    BG=16,
    BN=16,
)

CASES: list[tuple[str, dict[str, Any]]] = [
    ("vector_add", dict(x=floats(1000), y=floats(1000), out=output(1000), BLOCK=64)),
    ("softmax", dict(**ROWS, out=output(9, 37))),
    ("rms_norm", dict(**ROWS, weight=floats(37), out=output(9, 37), eps=1e-5)),
    (
        "layer_norm",
        dict(
            **ROWS,
            weight=floats(37),
            out=output(9, 37),
            eps=1e-5,
            bias=floats(37),
            mean=output(9),
            rstd=output(9),
        ),
    ),
    ("cumsum", dict(**ROWS, out=output(9, 37))),
    ("cumsum", dict(**ROWS, out=output(9, 37), exclusive=True, reverse=True)),
    ("gelu", dict(**ROWS, out=output(9, 37))),
    ("gated", dict(gate=X * 100, up=X, out=output(9, 37), BM=4, BN=16)),  # e ** -x overflows, and gives 0
    (
        "cross_entropy",
        dict(
            logits=X,
            labels=np.array([3, 36, -100, 0, 1, 2, 3, 4, 5]),
            loss=output(9),
            lse=output(9),
            label_smoothing=0.1,
            BM=4,
            BN=16,
        ),
    ),
    (
        "gather_rows",
        dict(table=X, indices=np.array([3, 8, 0, 8, -1, 9], np.int32), out=output(6, 37), BM=4, BN=16),
    ),
    ("histogram", dict(values=RNG.integers(-3, 21, 1000, np.int32), counts=np.zeros(19, np.int32), BLOCK=64)),
    (
        "rope",
        dict(
            x=floats(7, 3, 24),
            cos=floats(50, 10),
            sin=floats(50, 10),
            positions=np.array([3, 0, 49, 2, 2, 1, 7], np.int32),
            out=output(7, 3, 24),
            BS=4,
            BH=2,
        ),
    ),
    ("matmul", dict(**PRODUCT, c=C)),
    ("persistent_matmul", dict(**PRODUCT, c=C)),
    ("split_k_matmul", dict(a=A, b=B, c=np.zeros((37, 43), np.float32), SPLIT=3, **SMALL)),
    ("stream_k_matmul", dict(a=A, b=B, c=np.zeros((37, 43), np.float32), **SMALL)),
    ("linear", dict(x=A, w=floats(43, 50), y=C, bias=floats(43), **SMALL)),
    ("linear", dict(x=A, w=floats(43, 50), y=C, **(SMALL | dict(BM=1)))),
    ("batched_matmul", dict(a=floats(3, 37, 50), b=floats(1, 50, 43), c=output(3, 37, 43), **SMALL)),
    (
        "quantize_rows",
        dict(
            x=floats(3, 600),
            q=output(2, 3, 512, dtype=np.int8),
            scales=output(2, 3, 16),
            sums=output(2, 3, 16, dtype=np.int32),
        ),
    ),
    (
        "quantized_matmul",
        dict(
            x=np.ascontiguousarray(Q8[0]).view(np.int32),
            x_scales=Q8[1],
            x_sums=Q8[2],
            w=W4[0],
            w_scales=W4[1],
            out=output(3, 9),
            BM=2,
            BN=4,
        ),
    ),
    ("flash_attention", dict(**ATTENTION, out=output(2, 4, 21, 24), lse=output(2, 4, 21), causal=True)),
    ("flash_attention", dict(**ATTENTION, out=output(2, 4, 21, 24))),
    ("flash_attention", dict(**ATTENTION, out=output(2, 4, 21, 24), causal=True, window=9, softcap=5.0)),
    ("varlen_attention", dict(**SEQUENCES, out=output(40, 4, 24), lse=output(4, 40), causal=True, window=12)),
    ("varlen_attention", dict(**SEQUENCES, out=output(40, 4, 24))),
    ("paged_attention", dict(**DECODING, out=output(3, 3, 2, 3, 24), lse=output(3, 3, 2, 3))),
    ("paged_attention", dict(**DECODING, out=output(1, 3, 2, 3, 24), window=20, softcap=5.0)),
    (
        "merge_attention",
        dict(parts=floats(5, 7, 24), lses=np.log(abs(floats(5, 7))), out=output(7, 24), lse=output(7), BS=4),
    ),
]


def copies(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value for name, value in arguments.items()
    }


def test_every_kernel_has_a_case():
    assert {name for name, _ in CASES} == set(kernels.__all__)


@pytest.mark.parametrize("name, arguments", CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("after", [None, "choose-memory-path"])
def test_library_is_clean(name, arguments, after):
    watched, plain = copies(arguments), copies(arguments)
    kernel = getattr(kernels, name)
    report = kernel.sanitize(**watched, after=after)
    assert report.ok, report.render()
    kernel.interpret(**plain, workers=1)
    for key, value in plain.items():
        np.testing.assert_array_equal(watched[key], value)
