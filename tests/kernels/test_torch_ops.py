"""The kernel library as PyTorch operators, on the host: results, what tracing sees of them, torch.compile, torch.export."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mosaic_compile as mc

torch = pytest.importorskip("torch")

from mosaic_compile import kernels  # noqa: E402
from mosaic_compile.kernels import torch_ops  # noqa: E402
from mosaic_compile.kernels.quantized_matmul import quantized  # noqa: E402

F = torch.nn.functional


def floats(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def i32(*values: int) -> Any:
    return torch.tensor(values, dtype=torch.int32)


def rotated(x: Any, cos: Any, sin: Any, positions: Any) -> Any:
    expected = kernels.rope.reference(*(t.numpy() for t in (x, cos, sin, positions)))
    return torch.from_numpy(expected)


def one_after_the_other(q: Any, k: Any, v: Any, query_starts: Any, key_starts: Any, **options: Any) -> Any:
    outs = []
    for b in range(len(query_starts) - 1):
        s, t = (slice(*starts[b : b + 2].tolist()) for starts in (query_starts, key_starts))
        parts = (x.transpose(0, 1)[None] for x in (q[s], k[t], v[t]))
        outs.append(F.scaled_dot_product_attention(*parts, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(outs)


def of_last_tokens(
    q: Any, k_cache: Any, v_cache: Any, page_table: Any, lengths: Any, splits: int = 0, **_: Any
) -> Any:
    outs = []
    for b, n in enumerate(lengths.tolist()):
        k, v = (cache[page_table[b].long()].flatten(0, 1)[:n].transpose(0, 1) for cache in (k_cache, v_cache))
        outs.append(F.scaled_dot_product_attention(q[b, :, None], k, v, enable_gqa=True)[:, 0])
    return torch.stack(outs)


def products(a: Any, b: Any, scale: float, bias: Any, residual: Any, activation: str, *rest: Any) -> Any:
    return F.silu(scale * (a @ b) + bias) + residual


def sums_of_what_follows(x: Any, exclusive: bool, reverse: bool) -> Any:
    return (x.flip(-1).cumsum(-1).flip(-1) - x).to(torch.int32)


def rows_in_8_bits(x: Any, group: int = 32) -> tuple[Any, ...]:
    results = kernels.quantize_rows.reference(x.flatten(0, -2).numpy(), G=group)
    return tuple(torch.tensor(a).view(len(a), *x.shape[:-1], -1) for a in results)


def packed(weights: Any, bits: int, group: int = 32) -> tuple[Any, ...]:
    return tuple(map(torch.from_numpy, quantized(weights.numpy(), bits, group)))


def of_packed_weights(x: Any, w: Any, w_scales: Any, bits: int = 4, group: int = 32) -> Any:
    q, scales, sums = (a.numpy() for a in rows_in_8_bits(x.flatten(0, -2), group))
    given = (q.view(np.int32), scales, sums, w.numpy(), w_scales.numpy())
    expected = kernels.quantized_matmul.reference(*given, BITS=bits)
    return torch.from_numpy(expected).view(*x.shape[:-1], -1)


X, W = floats(0, 2, 3, 48), floats(1, 48)
Q, KV = floats(2, 2, 4, 20, 16), floats(3, 2, 2, 30, 16)
ROWS, ROWS_KV = floats(4, 30, 4, 16), floats(5, 40, 2, 16)
STARTS, KEY_STARTS = i32(0, 7, 7, 30), i32(0, 9, 12, 40)
CACHE = floats(6, 9, 16, 2, 16)
TABLE, LENGTHS = torch.tensor([[3, 1, 8], [0, 5, 2]], dtype=torch.int32), i32(33, 40)
ANGLES = floats(7, 50, 6)
WHOLE = torch.arange(-30, 90, dtype=torch.int32).view(2, 3, 20)
LONG, WEIGHTS = floats(25, 2, 6, 600), floats(26, 7, 600)  # rows of two blocks, the second one padded

# Operator, arguments, options, and what PyTorch computes.
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("matmul", (X, floats(8, 48, 24)), {}, lambda a, b: a @ b),
    ("matmul", (X, floats(8, 24, 48).T, 0.5, floats(9, 24), floats(10, 2, 3, 24), "silu"), {}, products),
    ("linear", (X, floats(8, 24, 48), floats(9, 24)), {}, F.linear),
    ("batched_matmul", (floats(11, 4, 5, 16), floats(12, 4, 16, 8)), {}, lambda a, b: a @ b),
    ("batched_matmul", (floats(11, 4, 5, 16), floats(12, 1, 16, 8)), {}, lambda a, b: a @ b),
    ("quantize_rows", (LONG,), {}, rows_in_8_bits),
    ("quantized_matmul", (LONG, *packed(WEIGHTS, 4)), {}, of_packed_weights),
    ("quantized_matmul", (LONG[0], *packed(WEIGHTS, 8, 64)), dict(bits=8, group=64), of_packed_weights),
    ("rms_norm", (X, W, 1e-5), {}, lambda x, w, eps: F.rms_norm(x, (48,), w, eps)),
    ("layer_norm", (X, W, W), {}, lambda x, w, bias: F.layer_norm(x, (48,), w, bias)),
    ("layer_norm", (X, W), {}, lambda x, w: F.layer_norm(x, (48,), w)),
    ("softmax", (X,), {}, lambda x: x.softmax(-1)),
    ("cumsum", (X,), {}, lambda x: x.cumsum(-1)),
    ("cumsum", (WHOLE,), dict(exclusive=True, reverse=True), sums_of_what_follows),
    ("gelu", (X,), {}, F.gelu),
    ("gelu", (X,), dict(approximate="tanh"), F.gelu),
    ("gated", (X, X + 1), {}, lambda gate, up: F.silu(gate) * up),
    ("gated", (X[..., :24], X[..., 24:], "gelu"), {}, lambda gate, up, _: F.gelu(gate) * up),
    ("rope", (ROWS, ANGLES.cos(), ANGLES.sin(), torch.arange(30, dtype=torch.int32)), {}, rotated),
    ("gather_rows", (X[0], torch.tensor([[2, 0, 1, 1], [1, 2, 2, 0]])), {}, lambda x, i: F.embedding(i, x)),
    ("histogram", (WHOLE.abs(), 90), {}, lambda x, bins: torch.bincount(x.flatten()).to(torch.int32)),
    (
        "cross_entropy",
        (X, torch.arange(6).view(2, 3)),
        {},
        lambda x, labels: F.cross_entropy(x.view(6, 48), labels.view(6), reduction="none").view(2, 3),
    ),
    (
        "flash_attention",
        (Q, KV, KV),
        {},
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
    ),
    (
        "flash_attention",
        (Q, Q, Q + 1),
        dict(causal=True, scale=0.3),
        lambda q, k, v, causal, scale: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale),
    ),
    ("varlen_attention", (ROWS, ROWS_KV, ROWS_KV, STARTS, KEY_STARTS), {}, one_after_the_other),
    ("paged_attention", (floats(13, 2, 4, 16), CACHE, CACHE, TABLE, LENGTHS), {}, of_last_tokens),
    ("paged_attention", (floats(13, 2, 4, 16), CACHE, CACHE, TABLE, LENGTHS), dict(splits=3), of_last_tokens),
]
each = pytest.mark.parametrize("name, arguments, options, expected", CASES, ids=[case[0] for case in CASES])


def function(name: str) -> Any:
    return getattr(torch_ops, name)


@each
def test_results(name, arguments, options, expected):
    """f32, from sums of a few dozen products of numbers around 1; or whole numbers."""
    results = function(name)(*arguments, **options)
    wanted = expected(*arguments, **options)
    for result, right in zip(*(x if isinstance(x, tuple) else (x,) for x in (results, wanted)), strict=True):
        right = right.float() if right.is_floating_point() else right
        torch.testing.assert_close(result, right, rtol=1e-4, atol=2e-5)  # types and shapes too


@each
def test_operators_are_what_pytorch_expects(name, arguments, options, expected):
    """Schema, shapes and types when traced, no aliases, with fixed and with symbolic sizes."""
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    overload = getattr(torch.ops.mosaic, name).default
    torch.library.opcheck(overload, arguments, options, test_utils=tests)


@each
def test_compile(name, arguments, options, expected):
    """One graph, with one node for the operator."""
    torch.compiler.reset()  # the same function is compiled for each case
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(
        lambda *given: function(name)(*given, **options) * 2, backend=backend, fullgraph=True
    )
    torch.testing.assert_close(compiled(*arguments), 2 * function(name)(*arguments, **options))
    called = [str(node.target) for node in graphs[0].graph.nodes if "mosaic" in str(node.target)]
    assert called == [f"mosaic.{name}.default"]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_a_layer(backend):
    """What surrounds operators is compiled; sizes may change."""
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")

    def layer(x, weight, w):
        normal = torch_ops.rms_norm(x + 1, weight)
        return torch_ops.gated(torch_ops.matmul(normal, w), torch_ops.matmul(normal, w * 2)) + x

    compiled = torch.compile(layer, backend=backend, fullgraph=True, dynamic=True)
    for rows in (3, 5):
        arguments = floats(rows, rows, 48), W, floats(20, 48, 48) / 8
        torch.testing.assert_close(compiled(*arguments), layer(*arguments), rtol=1e-4, atol=1e-4)


def test_export(tmp_path):
    """A model with operators is exported for any number of rows, saved, loaded, and gives the same."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(W, requires_grad=False)

        def forward(self, x):
            return torch_ops.softmax(torch_ops.rms_norm(x, self.weight))

    x = floats(21, 4, 48)
    rows = torch.export.Dim("rows")
    program = torch.export.export(Layer(), (x,), dynamic_shapes=({0: rows},))
    assert "mosaic.rms_norm.default" in program.graph_module.code
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for given in (x, floats(22, 9, 48)):
        torch.testing.assert_close(loaded(given), Layer()(given))


def test_export_of_packed_weights(tmp_path):
    """Words of weights, u32, are saved with a model; any number of indices."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", LONG.flatten(0, -2))
            for name, tensor in zip(("w", "w_scales"), packed(WEIGHTS, 4)):
                self.register_buffer(name, tensor)

        def forward(self, indices):
            rows = torch_ops.gather_rows(self.table, indices)
            sums = torch_ops.cumsum(torch_ops.gelu(torch_ops.quantized_matmul(rows, self.w, self.w_scales)))
            return sums, torch_ops.histogram(indices, 12), torch_ops.quantize_rows(rows)

    tokens = torch.export.Dim("tokens")
    indices = i32(3, 0, 11, 3).view(2, 2)
    program = torch.export.export(Model(), (indices,), dynamic_shapes=({1: tokens},))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for given in (indices, torch.arange(10, dtype=torch.int32).view(2, 5)):
        torch.testing.assert_close(loaded(given), Model()(given))


def test_types_of_products():
    a, b = floats(23, 8, 32, dtype=torch.bfloat16), floats(24, 32, 16, dtype=torch.bfloat16)
    assert torch_ops.matmul(a, b).dtype == torch.bfloat16
    assert torch_ops.matmul(a, b, out_dtype=torch.float32).dtype == torch.float32
    narrow = torch_ops.matmul(a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn))
    assert narrow.dtype == torch.bfloat16
    expected = a.to(torch.float8_e4m3fn).float() @ b.to(torch.float8_e4m3fn).float()
    torch.testing.assert_close(narrow.float(), expected, rtol=2**-8, atol=1e-5)


def test_windows_and_soft_caps():
    options = dict(window=5, softcap=2.0)
    result = torch_ops.flash_attention(Q, KV, KV, 0.25, True, **options)
    expected = kernels.flash_attention.reference(
        *(x.numpy() for x in (Q, KV, KV)), 0.25, causal=True, **options
    )
    np.testing.assert_allclose(result, expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits, error", [(8, 0.02), (4, 0.2)])
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_quantized_products_are_near_the_whole_ones(rows, bits, error):
    x = floats(27, rows, 600)
    wanted = F.linear(x, WEIGHTS)
    for given in (x, x.bfloat16()):
        result = torch_ops.quantized_matmul(given, *packed(WEIGHTS, bits), bits=bits)
        assert result.dtype == given.dtype
        assert (result.float() - wanted).norm() < error * wanted.norm()
    f16 = torch_ops.quantized_matmul(x, *packed(WEIGHTS, bits), bits=bits, out_dtype=torch.float16)
    assert f16.dtype == torch.float16


def test_types_of_running_sums():
    """As wide as the operator says: 32 bits, in which small integers do not wrap and floats are added."""
    ones = torch.ones(2, 3, 300)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32):
        sums = torch_ops.cumsum(ones.to(dtype))
        torch.testing.assert_close(sums, ones.to(dtype).cumsum(-1, dtype=torch.int32))
    sums = torch_ops.cumsum(ones.bfloat16(), out_dtype=torch.float32)
    torch.testing.assert_close(sums, ones.cumsum(-1))
    assert torch_ops.cumsum(ones.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(), (5,), (0,), (0, 5), (2, 3, 0), (2, 0, 5), (2, 3, 4, 5)])
def test_any_number_of_dimensions(shape):
    x, indices = floats(28, *shape), torch.ones(shape, dtype=torch.int64)
    torch.testing.assert_close(torch_ops.gelu(x), F.gelu(x), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(torch_ops.cumsum(x), x.cumsum(-1), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(torch_ops.gather_rows(X[0], indices), F.embedding(indices, X[0]))
    counts = torch_ops.histogram(indices, 3)
    torch.testing.assert_close(counts, i32(0, indices.numel(), 0))


def test_what_is_outside():
    """An index beyond the table gives zeros; a value that has no bin is not counted."""
    far = torch.tensor([-1, 3, 2**32 + 1, 1])
    rows = torch.stack([torch.zeros(48)] * 3 + [X[0, 1]])
    torch.testing.assert_close(torch_ops.gather_rows(X[0], far), rows)
    torch.testing.assert_close(torch_ops.histogram(i32(-1, 3, 2, 2, 4), 4), i32(0, 0, 2, 1))
    torch.testing.assert_close(torch_ops.histogram(far, 4), i32(0, 1, 0, 1))


PACKED = packed(WEIGHTS, 4)
MISTAKES: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("gelu", (X.double(),), {}, "the element type T cannot be f64"),
    ("gelu", (X,), dict(approximate="erf"), 'approximate is "none" or "tanh", not \'erf\''),
    ("cumsum", (WHOLE.long(),), {}, "the element type T cannot be i64"),
    ("cumsum", (X,), dict(out_dtype=torch.int32), "sums of f32 cannot be i32"),
    ("cumsum", (WHOLE,), dict(out_dtype=torch.float32), "sums of i32 cannot be f32"),
    ("gather_rows", (X[0], X[0, 0]), {}, "the element type Index cannot be f32"),
    ("gather_rows", (X, i32(1)), {}, "'table' is T[V, D] with 2 dimensions"),
    ("gather_rows", (W, i32(1)), {}, "'table' is T[V, D] with 2 dimensions"),
    ("histogram", (X, 4), {}, "the element type T cannot be f32"),
    ("quantize_rows", (WHOLE,), {}, "the element type T cannot be i32"),
    ("quantized_matmul", (WHOLE, *PACKED), {}, "the element type T cannot be i32"),
    ("quantized_matmul", (X, *PACKED), {}, "the dimension B is 1 in 'x', but 2 in 'w'"),
    ("quantized_matmul", (LONG, PACKED[0].view(torch.int32), PACKED[1]), {}, "but the array holds i32"),
    ("quantized_matmul", (LONG, PACKED[0], PACKED[1][1:]), {}, "the dimension N is 7 in 'w', but 6 in"),
    ("quantized_matmul", (LONG, *PACKED), dict(bits=8), "8 bits in groups of 32 are not in blocks of 64"),
    ("quantized_matmul", (LONG, *PACKED), dict(group=64), "4 bits in groups of 64 are not in blocks of 64"),
    ("quantized_matmul", (LONG, *PACKED), dict(bits=2, group=64), "weights of 2 bits"),
    ("quantized_matmul", (LONG, *PACKED), dict(bits=8, group=16), "in groups of 16"),
]


@pytest.mark.parametrize("name, arguments, options, message", MISTAKES)
def test_mistakes_are_told(name, arguments, options, message):
    with pytest.raises(mc.MosaicError, match=re.escape(message)):
        function(name)(*arguments, **options)


NO_OPERATORS = {
    "persistent_matmul": "matmul and linear call it on GPUs",
    "merge_attention": "paged_attention calls it after keys in parts",
    "split_k_matmul": "matmul's result; adds to what its caller set to zero",
    "stream_k_matmul": "matmul's result; the caller says how many programs share the work",
    "vector_add": "the first example of the language; PyTorch has +",
}


def test_every_kernel_is_an_operator_or_has_a_reason():
    operators = {name for name in kernels.__all__ if callable(getattr(torch_ops, name, None))}
    assert operators | NO_OPERATORS.keys() == set(kernels.__all__)
    assert not operators & NO_OPERATORS.keys()
    assert operators == {case[0] for case in CASES}  # each is tested
    table = (Path(__file__).parents[2] / "docs/torch.md").read_text()
    assert [name for name in operators if f"`{name}(" not in table] == []


def test_importing_the_kernels_needs_no_torch():
    code = "import sys, mosaic_compile.kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
