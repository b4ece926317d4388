"""Attention's variants, and the library as PyTorch operators, on a GPU: against float64 on the host."""

import numpy as np
import pytest

from mosaic_compile.kernels import flash_attention, paged_attention, varlen_attention

torch = pytest.importorskip("torch")

from mosaic_compile.kernels import torch_ops  # noqa: E402

from .test_library import EPS, assert_close, host, poisoned, randn  # noqa: E402

TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def i32(values):
    return torch.tensor(np.asarray(values), dtype=torch.int32, device="cuda")


@TYPES
@pytest.mark.parametrize("window,softcap", [(1, 0.0), (100, 0.0), (1000, 0.0), (0, 5.0), (200, 30.0)])
@pytest.mark.parametrize("S,T,D", [(300, 300, 64), (129, 500, 128), (1024, 1024, 128)])
def test_windows_and_soft_caps(window, softcap, S, T, D, dtype):
    q, k, v = (randn(1, h, n, D, dtype=dtype, seed=h) for h, n in ((4, S), (2, T), (1, T)))
    v = v.expand(1, 2, T, D).contiguous()
    options = dict(causal=True, window=window, softcap=softcap)
    out, lse = poisoned(1, 4, S, D, dtype=dtype), poisoned(1, 4, S)
    flash_attention(q, k, v, out, D**-0.5, lse, **options)
    expected, expected_lse = flash_attention.reference(host(q), host(k), host(v), D**-0.5, **options)
    assert_close(out, expected, 2 * EPS[dtype])
    assert np.abs(host(lse) - expected_lse).max() < 1e-3


@TYPES
@pytest.mark.parametrize(
    "options", [{}, dict(causal=True), dict(causal=True, window=100, softcap=20.0)], ids=str
)
@pytest.mark.parametrize("D", [64, 128])
def test_varlen_attention(options, D, dtype):
    """Empty sequences, short ones, and what neighbours hold stays with them."""
    query_lengths, key_lengths = [0, 1, 300, 17, 128, 0, 513], [5, 257, 300, 40, 128, 0, 700]
    query_starts, key_starts = (np.cumsum([0, *lengths]).tolist() for lengths in (query_lengths, key_lengths))
    q = randn(query_starts[-1], 4, D, dtype=dtype)
    k, v = (randn(key_starts[-1], 2, D, dtype=dtype, seed=seed) for seed in (1, 2))
    out, lse = poisoned(*q.shape, dtype=dtype), poisoned(4, len(q))
    starts = query_starts, key_starts
    expected, expected_lse = varlen_attention.reference(
        host(q), host(k), host(v), *starts, D**-0.5, **options
    )
    v[key_starts[2] : key_starts[3]] = float("inf")
    varlen_attention(q, k, v, *map(i32, starts), out, D**-0.5, lse, **options)
    kept = np.r_[0 : query_starts[2], query_starts[3] : len(q)]
    assert_close(out[kept], expected[kept], 2 * EPS[dtype])
    assert np.abs(host(lse) - expected_lse).max() < 1e-3


@TYPES
@pytest.mark.parametrize("page", [16, 64, 256])
@pytest.mark.parametrize("splits", [0, 1, 5])
@pytest.mark.parametrize("HK,G,D", [(8, 4, 128), (1, 40, 64), (2, 1, 256)])
@pytest.mark.parametrize("options", [{}, dict(window=300, softcap=20.0)], ids=str)
def test_paged_attention(page, splits, HK, G, D, options, dtype):
    """Through the operator; what is not read is NaN."""
    lengths = np.array([0, 1, 700, 64, 1025])
    most = -(-1025 // page)
    table = np.random.default_rng(0).permutation(5 * most + 3)[: 5 * most].reshape(5, most)
    k, v = (randn(5 * most + 3, page, HK, D, dtype=dtype, seed=seed) for seed in (1, 2))
    q = randn(5, HK * G, D, dtype=dtype)
    expected, _ = paged_attention.reference(
        host(q).reshape(5, HK, G, D),
        host(k),
        host(v),
        table,
        lengths,
        np.empty((1, 5, HK, G, D)),
        D**-0.5,
        **options,
    )
    unread = np.ones(k.shape[:2], bool)
    for b, n in enumerate(lengths):
        tokens = np.arange(max(0, n - options.get("window", n)), n)
        unread[table[b, tokens // page], tokens % page] = False
    k[torch.from_numpy(unread)] = float("nan")
    v[torch.from_numpy(unread)] = float("nan")
    out = torch_ops.paged_attention(q, k, v, i32(table), i32(lengths), splits=splits, **options)
    assert_close(out, expected.reshape(q.shape), 2 * EPS[dtype])


def test_a_step_of_decoding_in_a_graph():
    """Lengths that change between replays are read on the GPU."""
    q, k, v = (
        randn(*shape, dtype=torch.bfloat16) for shape in ((2, 8, 128), (40, 16, 2, 128), (40, 16, 2, 128))
    )
    table, lengths = i32(np.arange(40).reshape(2, 20)), i32([5, 300])
    torch_ops.paged_attention(q, k, v, table, lengths)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = torch_ops.paged_attention(q, k, v, table, lengths)
    for now in ([6, 301], [320, 1]):
        lengths.copy_(i32(now))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(out, torch_ops.paged_attention(q, k, v, table, lengths), rtol=0, atol=0)


def test_operators():
    """Traced and compiled as on the host."""
    x, w = randn(20, 512, dtype=torch.bfloat16), randn(512, dtype=torch.bfloat16)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.mosaic.rms_norm.default, (x, w), test_utils=tests)

    def layer(x, w):
        return torch_ops.gated(torch_ops.rms_norm(x, w), x) + x

    torch.testing.assert_close(
        torch.compile(layer, fullgraph=True)(x, w), layer(x, w), rtol=2**-6, atol=2**-6
    )
