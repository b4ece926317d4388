"""The kernel library on a GPU, against float64 on the host: random shapes with edges, element types, options."""

import math

import numpy as np
import pytest

from mosaic_compile.kernels import (
    batched_matmul,
    cross_entropy,
    cumsum,
    flash_attention,
    gated,
    gather_rows,
    gelu,
    histogram,
    layer_norm,
    linear,
    matmul,
    persistent_matmul,
    rms_norm,
    rope,
    softmax,
    split_k_matmul,
    stream_k_matmul,
    vector_add,
)

torch = pytest.importorskip("torch")

EPS = {torch.float32: 2**-23, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def randn(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype).cuda()


def poisoned(*shape, dtype=torch.float32):
    """An output whose every element must be written."""
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


def host(x):
    return x.detach().cpu().double().numpy()


def assert_close(result, expected, tolerance):
    """Relative error of the norm, and that nothing is NaN where the reference is not."""
    result = host(result)
    assert not np.isnan(result[~np.isnan(expected)]).any(), "elements were not written, or are NaN"
    scale = np.linalg.norm(expected) or 1.0
    assert np.linalg.norm(result - expected) <= tolerance * scale


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 1_000_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vector_add(n, dtype):
    a, b, c = randn(n, dtype=dtype), randn(n, dtype=dtype, seed=1), poisoned(n, dtype=dtype)
    vector_add(a, b, c)
    assert_close(c, host(a) + host(b), EPS[dtype])


@pytest.mark.parametrize("shape", [(1, 1), (7, 127), (33, 1000), (64, 4096), (5, 10000), (3, 4097)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_softmax(shape, dtype):
    x, out = randn(*shape, dtype=dtype) * 4, poisoned(*shape, dtype=dtype)
    softmax(x, out)
    assert_close(out, softmax.reference(host(x)), EPS[dtype] + 1e-5)


@pytest.mark.parametrize("shape", [(1, 16), (7, 129), (64, 4096), (5, 8192)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(shape, dtype):
    x, w, out = (
        randn(*shape, dtype=dtype),
        randn(shape[1], dtype=dtype, seed=1),
        poisoned(*shape, dtype=dtype),
    )
    rms_norm(x, w, out, 1e-5)
    x64, w64 = host(x), host(w)
    expected = x64 / np.sqrt((x64**2).mean(1, keepdims=True) + 1e-5) * w64
    assert_close(out, expected, 2 * EPS[dtype] + 1e-5)


MATRICES = [(1, 1), (7, 127), (33, 1000), (64, 4096), (5, 10000), (3, 4097)]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(shape, dtype, approximate):
    x, out = randn(*shape, dtype=dtype) * 3, poisoned(*shape, dtype=dtype)
    gelu(x, out, approximate=approximate)
    assert_close(out, gelu.reference(host(x), approximate=approximate), EPS[dtype] + 1e-5)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_gated(shape, dtype, activation):
    """Both factors are halves of one array."""
    m, n = shape
    both, out = randn(m, 2 * n, dtype=dtype) * 3, poisoned(m, n, dtype=dtype)
    gated(both[:, :n], both[:, n:], out, activation=activation)
    expected = gated.reference(host(both[:, :n]), host(both[:, n:]), activation=activation)
    assert_close(out, expected, EPS[dtype] + 1e-5)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("far", [0, 100])
def test_layer_norm(shape, dtype, far):
    m, n = shape
    x, out = randn(m, n, dtype=dtype) * 3 + far, poisoned(m, n, dtype=dtype)
    w, b = randn(n, dtype=dtype, seed=1), randn(n, dtype=dtype, seed=2)
    mean, rstd = poisoned(m), poisoned(m)
    layer_norm(x, w, out, 1e-5, b, mean, rstd)
    expected, expected_mean, expected_rstd = layer_norm.reference(host(x), host(w), 1e-5, host(b))
    assert_close(out, expected, EPS[dtype] + 1e-4)
    assert_close(mean, expected_mean, 1e-5)
    assert_close(rstd, expected_rstd, 1e-4)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("exclusive,reverse", [(False, False), (True, False), (False, True), (True, True)])
def test_cumsum(shape, dtype, exclusive, reverse):
    x, out = randn(*shape, dtype=dtype), poisoned(*shape, dtype=dtype)
    cumsum(x, out, exclusive=exclusive, reverse=reverse)
    assert_close(out, cumsum.reference(host(x), exclusive=exclusive, reverse=reverse), EPS[dtype] + 1e-4)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.uint8])
def test_cumsum_of_integers(shape, dtype):
    x = (randn(*shape) * 20).abs().to(dtype)
    out = torch.full(shape, -1, dtype=torch.int32, device="cuda")
    cumsum(x, out)
    np.testing.assert_array_equal(out.cpu().numpy(), cumsum.reference(x.cpu().numpy()))


@pytest.mark.parametrize("shape", [*MATRICES, (9, 128_256)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy(shape, dtype, label_smoothing):
    m, v = shape
    logits, labels = randn(m, v, dtype=dtype) * 4, torch.arange(m, device="cuda") * 7 % v
    labels[m // 2] = -100
    loss, lse = poisoned(m), poisoned(m)
    cross_entropy(logits, labels, loss, lse, label_smoothing=label_smoothing)
    expected, expected_lse = cross_entropy.reference(
        host(logits), labels.cpu().numpy(), label_smoothing=label_smoothing
    )
    assert_close(loss, expected, 1e-5)
    assert_close(lse, expected_lse, 1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 64, 32), (129, 32, 128, 64), (33, 5, 80, 40), (7, 8, 96, 16)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("at", [False, True])
def test_rope(shape, dtype, interleaved, at):
    s, h, d, r = shape
    x, out, angles = randn(s, h, d, dtype=dtype), poisoned(s, h, d, dtype=dtype), randn(500, r, seed=1)
    cos, sin = angles.cos(), angles.sin()
    positions = torch.arange(s, device="cuda", dtype=torch.int32) * 17 % 500 if at else None
    rope(x, cos, sin, out, positions, interleaved=interleaved)
    rows = positions.cpu().numpy() if at else None
    expected = rope.reference(host(x), host(cos), host(sin), rows, interleaved=interleaved)
    assert_close(out, expected, EPS[dtype] + 1e-6)


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 1_000_003])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("bins", [10, 256])
def test_histogram(n, dtype, bins):
    values = (randn(n).abs() * 40).to(dtype)
    counts = torch.ones(bins, dtype=torch.int32, device="cuda")
    histogram(values, counts)
    expected = histogram.reference(values.cpu().numpy(), np.ones(bins, np.int32))
    np.testing.assert_array_equal(counts.cpu().numpy(), expected)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_gather_rows(shape, dtype, index):
    """Every seventh index lies outside the table."""
    n, d = shape
    table, out = (randn(50, d) * 50).to(dtype), torch.full((n, d), 77, device="cuda").to(dtype)
    indices = (torch.arange(n, device="cuda") * 13 % 50).to(index)
    indices[::7] = 50
    gather_rows(table, indices, out)
    expected = gather_rows.reference(host(table), indices.cpu().numpy())
    np.testing.assert_array_equal(host(out), expected)


SHAPES = [
    (128, 256, 64),
    (1, 1, 1),
    (127, 129, 65),
    (129, 255, 1),
    (256, 512, 1000),
    (1000, 776, 520),
    (16, 4096, 4096),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_matmul(shape, dtype):
    m, n, k = shape
    a, b, c = randn(m, k, dtype=dtype), randn(k, n, dtype=dtype, seed=1), poisoned(m, n, dtype=dtype)
    matmul(a, b, c, 1.0)
    assert_close(c, host(a) @ host(b), EPS[dtype] + 1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (3000, 2100, 200)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_persistent_matmul(shape, dtype):
    """Among them more tiles than multiprocessors."""
    m, n, k = shape
    a, b, c = randn(m, k, dtype=dtype), randn(k, n, dtype=dtype, seed=1), poisoned(m, n, dtype=dtype)
    bias, residual = randn(n, dtype=dtype, seed=2), randn(m, n, dtype=dtype, seed=3)
    persistent_matmul(a, b, c, 0.5, bias, residual, activation="silu")
    expected = matmul.reference(host(a), host(b), 0.5, host(bias), host(residual), activation="silu")
    assert_close(c, expected, 2 * EPS[dtype] + 1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (16, 64, 65_536)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_split_k_matmul(shape, dtype):
    """Added to what is in c."""
    m, n, k = shape
    a, b, c = randn(m, k, dtype=dtype), randn(k, n, dtype=dtype, seed=1), randn(m, n, seed=2)
    expected = split_k_matmul.reference(host(a), host(b), host(c), 0.5)
    split_k_matmul(a, b, c, 0.5)
    assert_close(c, expected, 1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, (16, 64, 65_536), (300, 5000, 520)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_stream_k_matmul(shape, dtype):
    """Added to what is in c."""
    m, n, k = shape
    a, b, c = randn(m, k, dtype=dtype), randn(k, n, dtype=dtype, seed=1), randn(m, n, seed=2)
    expected = stream_k_matmul.reference(host(a), host(b), host(c), 0.5)
    stream_k_matmul(a, b, c, 0.5)
    assert_close(c, expected, 1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 4096, 4096), (3, 100, 1000), (17, 776, 520), (128, 512, 65), (200, 64, 64)]
)
@pytest.mark.parametrize("candidate", range(len(linear.tune["gpu"])))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear(shape, candidate, dtype):
    """With each of the tiles that `tune` offers."""
    m, n, k = shape
    x, w, y = randn(m, k, dtype=dtype), randn(n, k, dtype=dtype, seed=1), poisoned(m, n, dtype=dtype)
    bias, residual = randn(n, dtype=dtype, seed=2), randn(m, n, dtype=dtype, seed=3)
    linear(x, w, y, 0.5, bias, residual, activation="silu", **linear.tune["gpu"][candidate])
    expected = linear.reference(host(x), host(w), 0.5, host(bias), host(residual), activation="silu")
    assert_close(y, expected, 2 * EPS[dtype] + 1e-5)


@pytest.mark.parametrize("candidate", range(len(matmul.tune["gpu"])))
@pytest.mark.parametrize("kernel", [matmul, persistent_matmul, batched_matmul], ids=lambda k: k.name)
def test_tiles_of_products(kernel, candidate):
    """Each of the tiles that `tune` offers, over more tiles than multiprocessors and ragged edges."""
    m, n, k, dtype = 1530, 3080, 328, torch.bfloat16
    a, b, c = randn(m, k, dtype=dtype), randn(k, n, dtype=dtype, seed=1), poisoned(m, n, dtype=dtype)
    batch = (None,) if kernel is batched_matmul else ()
    kernel(a[batch], b[batch], c[batch], **matmul.tune["gpu"][candidate])
    assert_close(c, host(a) @ host(b), EPS[dtype])


@pytest.mark.parametrize("batch", [(1, 1, 1), (5, 5, 5), (5, 1, 5), (5, 5, 1), (6, 2, 6)])
@pytest.mark.parametrize("shape", [(128, 256, 64), (127, 129, 65), (1, 1, 1), (200, 264, 520)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_batched_matmul(batch, shape, dtype):
    (count, of_a, of_b), (m, n, k) = batch, shape
    a, b = randn(of_a, m, k, dtype=dtype), randn(of_b, k, n, dtype=dtype, seed=1)
    bias, residual = randn(n, dtype=dtype, seed=2), randn(count, m, n, dtype=dtype, seed=3)
    c = poisoned(count, m, n, dtype=dtype)
    batched_matmul(a, b, c, 0.5, bias, residual, activation="gelu")
    expected = batched_matmul.reference(host(a), host(b), 0.5, host(bias), host(residual), activation="gelu")
    assert_close(c, expected, 2 * EPS[dtype] + 1e-5)


@pytest.mark.parametrize("layout", ["a.T", "b.T", "both", "padded", "offset"])
def test_matmul_of_views(layout):
    m, n, k = 256, 384, 192
    a, b = randn(m, k, dtype=torch.bfloat16), randn(k, n, dtype=torch.bfloat16, seed=1)
    if layout in ("a.T", "both"):
        a = a.T.contiguous().T
    if layout in ("b.T", "both"):
        b = b.T.contiguous().T
    if layout == "padded":
        a = torch.nn.functional.pad(a, (0, 5))[:, :k]
    if layout == "offset":
        a = torch.cat([a.flatten()[:3], a.flatten()])[3:].view(
            m, k
        )  # an address that is no multiple of 16 bytes
    c = poisoned(m, n, dtype=torch.bfloat16)
    matmul(a, b, c, 1.0)
    assert_close(c, host(a) @ host(b), EPS[torch.bfloat16])


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
def test_matmul_epilogue(activation):
    m, n, k = 200, 264, 128
    a, b = randn(m, k, dtype=torch.bfloat16), randn(k, n, dtype=torch.bfloat16, seed=1)
    bias, residual = randn(n, dtype=torch.bfloat16, seed=2), randn(m, n, dtype=torch.bfloat16, seed=3)
    c = poisoned(m, n, dtype=torch.bfloat16)
    matmul(a, b, c, 0.125, bias, residual, activation=activation)
    expected = matmul.reference(host(a), host(b), 0.125, host(bias), host(residual), activation=activation)
    assert_close(c, expected, 2 * EPS[torch.bfloat16])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_matmul_fp8(dtype):
    a, b = randn(256, 512).to(dtype), randn(512, 256, seed=1).to(dtype)
    c = poisoned(256, 256, dtype=torch.bfloat16)
    matmul(a, b, c, 1.0)
    assert_close(c, host(a.float()) @ host(b.float()), EPS[torch.bfloat16] + 1e-4)


@pytest.mark.parametrize("precision,tolerance", [("ieee", 1e-6), ("tf32", 1e-3), ("tf32x3", 1e-5)])
def test_matmul_f32_precisions(precision, tolerance):
    a, b, c = randn(256, 512), randn(512, 256, seed=1), poisoned(256, 256)
    matmul(a, b, c, 1.0, precision=precision)
    assert_close(c, host(a) @ host(b), tolerance)


def test_large_strides():
    """Offsets beyond 2**31 elements."""
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GB of GPU memory")
    big = torch.empty(70_000, 65_536, dtype=torch.bfloat16, device="cuda")
    big[-64:].normal_()
    b, c = randn(64, 64, dtype=torch.bfloat16), poisoned(64, 64, dtype=torch.bfloat16)
    a = big[-64:, :64]
    matmul(a, b, c, 1.0)
    assert_close(c, host(a) @ host(b), EPS[torch.bfloat16])
    x = big.view(-1)[-(65_536 * 64) :].view(64, 65_536)
    out = big.view(-1)[: 65_536 * 64].view(64, 65_536)
    softmax(x, out)
    assert_close(out, softmax.reference(host(x)), EPS[torch.bfloat16] + 1e-5)


ATTENTION = [
    # B, H, HK, S, T, D
    (1, 1, 1, 128, 128, 64),
    (2, 4, 4, 200, 200, 64),
    (2, 4, 2, 129, 300, 128),
    (1, 8, 1, 1, 257, 128),
    (1, 2, 2, 300, 129, 64),
    (1, 2, 1, 256, 256, 256),
    (1, 2, 2, 1024, 1024, 128),
    (1, 1, 1, 77, 77, 80),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", ATTENTION)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flash_attention(shape, causal, dtype):
    B, H, HK, S, T, D = shape
    q = randn(B, H, S, D, dtype=dtype)
    k, v = randn(B, HK, T, D, dtype=dtype, seed=1), randn(B, HK, T, D, dtype=dtype, seed=2)
    out, lse = poisoned(B, H, S, D, dtype=dtype), poisoned(B, H, S)
    flash_attention(q, k, v, out, D**-0.5, lse, causal=causal)
    expected, expected_lse = flash_attention.reference(host(q), host(k), host(v), D**-0.5, causal=causal)
    assert_close(out, expected, 2 * EPS[dtype])
    finite = np.isfinite(expected_lse)
    assert np.abs(host(lse)[finite] - expected_lse[finite]).max() < 1e-3
    assert (host(lse)[~finite] == -math.inf).all()


def test_streams_and_repeats():
    """A kernel runs on PyTorch's current stream, and in a CUDA graph."""
    x, out = randn(64, 512), poisoned(64, 512)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        softmax(x, out)
    stream.synchronize()
    assert_close(out, softmax.reference(host(x)), 1e-5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        softmax(x, out)
    x.copy_(randn(64, 512, seed=9))
    graph.replay()
    torch.cuda.synchronize()
    assert_close(out, softmax.reference(host(x)), 1e-5)


def test_zero_sizes():
    a, b = torch.empty(0, 64, dtype=torch.bfloat16, device="cuda"), randn(64, 32, dtype=torch.bfloat16)
    matmul(a, b, torch.empty(0, 32, dtype=torch.bfloat16, device="cuda"), 1.0)
    a, b = (
        torch.empty(8, 0, dtype=torch.bfloat16, device="cuda"),
        torch.empty(0, 32, dtype=torch.bfloat16, device="cuda"),
    )
    c = poisoned(8, 32, dtype=torch.bfloat16)
    matmul(a, b, c, 1.0)
    torch.cuda.synchronize()
    assert (c == 0).all()


@pytest.mark.parametrize("rows", [(1,), (2, 8), (3, 50)])
def test_linear_as_an_operator(rows):
    """Few rows and many take kernels of their own."""
    from mosaic_compile.kernels import torch_ops

    x, w = randn(*rows, 200, dtype=torch.bfloat16), randn(72, 200, dtype=torch.bfloat16, seed=1)
    bias = randn(72, dtype=torch.bfloat16, seed=2)
    assert_close(torch_ops.linear(x, w, bias), host(x) @ host(w).T + host(bias), EPS[torch.bfloat16])
    assert_close(torch_ops.matmul(x, w.T, 1.0, bias), host(x) @ host(w).T + host(bias), EPS[torch.bfloat16])
