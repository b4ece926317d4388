"""The kernel library as PyTorch operators, on the host: results, what tracing sees of them, torch.compile, torch.export."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mosaic_compile import kernels  # noqa: E402
from mosaic_compile.kernels import torch_ops  # noqa: E402

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


X, W = floats(0, 2, 3, 48), floats(1, 48)
Q, KV = floats(2, 2, 4, 20, 16), floats(3, 2, 2, 30, 16)
ROWS, ROWS_KV = floats(4, 30, 4, 16), floats(5, 40, 2, 16)
STARTS, KEY_STARTS = i32(0, 7, 7, 30), i32(0, 9, 12, 40)
CACHE = floats(6, 9, 16, 2, 16)
TABLE, LENGTHS = torch.tensor([[3, 1, 8], [0, 5, 2]], dtype=torch.int32), i32(33, 40)
ANGLES = floats(7, 50, 6)

# Operator, arguments, options, and what PyTorch computes.
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("matmul", (X, floats(8, 48, 24)), {}, lambda a, b: a @ b),
    ("matmul", (X, floats(8, 24, 48).T, 0.5, floats(9, 24), floats(10, 2, 3, 24), "silu"), {}, products),
    ("linear", (X, floats(8, 24, 48), floats(9, 24)), {}, F.linear),
    ("batched_matmul", (floats(11, 4, 5, 16), floats(12, 4, 16, 8)), {}, lambda a, b: a @ b),
    ("batched_matmul", (floats(11, 4, 5, 16), floats(12, 1, 16, 8)), {}, lambda a, b: a @ b),
    ("rms_norm", (X, W, 1e-5), {}, lambda x, w, eps: F.rms_norm(x, (48,), w, eps)),
    ("layer_norm", (X, W, W), {}, lambda x, w, bias: F.layer_norm(x, (48,), w, bias)),
    ("layer_norm", (X, W), {}, lambda x, w: F.layer_norm(x, (48,), w)),
    ("softmax", (X,), {}, lambda x: x.softmax(-1)),
    ("gated", (X, X + 1), {}, lambda gate, up: F.silu(gate) * up),
    ("gated", (X[..., :24], X[..., 24:], "gelu"), {}, lambda gate, up, _: F.gelu(gate) * up),
    ("rope", (ROWS, ANGLES.cos(), ANGLES.sin(), torch.arange(30, dtype=torch.int32)), {}, rotated),
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
    """f32, from sums of a few dozen products of numbers around 1."""
    result = function(name)(*arguments, **options)
    wanted = expected(*arguments, **options)
    assert result.dtype == torch.float32 and result.shape == wanted.shape
    torch.testing.assert_close(result, wanted.float(), rtol=1e-4, atol=2e-5)


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


def test_importing_the_kernels_needs_no_torch():
    code = "import sys, mosaic_compile.kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
