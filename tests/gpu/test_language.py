"""Operations of the DSL on a GPU, against NumPy: what the library's kernels do not use."""

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.language.op import OPS

torch = pytest.importorskip("torch")

T = mc.DTypeVar("T", mc.f16, mc.i8, mc.f64, mc.f8e5m2)
U = mc.DTypeVar("U", mc.f32, mc.f16, mc.i32, mc.f64)

FUNCTIONS = [
    "exp",
    "exp2",
    "log",
    "log2",
    "sin",
    "cos",
    "tanh",
    "erf",
    "sqrt",
    "rsqrt",
    "floor",
    "ceil",
    "sigmoid",
    "abs",
]


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def elementwise(x: mc.f32["N"], y: mc.Out[mc.f32["N"]], *, function: mc.Const, B: mc.Const = 256):
    i = mc.program_id(0)
    mc.store(y, i, function(mc.load(x, i, B)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementwise(name):
    x = np.concatenate([np.linspace(0.01, 8, 500), [1e-6, 1e-3, 30.0]]).astype(np.float32)
    y = torch.full((x.size,), float("nan"), device="cuda")
    elementwise(torch.from_numpy(x).cuda(), y, function=getattr(mc, name))
    expected = OPS[name].reference(x.astype(np.float64))
    np.testing.assert_allclose(y.cpu().numpy(), expected, rtol=3e-6, atol=1e-6)


@mc.kernel(grid=(1,))
def to_fp8(x: mc.f32["N"], y: mc.Out[mc.f8e4m3["N"]], z: mc.Out[mc.f8e5m2["N"]], *, B: mc.Const = 512):
    v = mc.load(x, 0, B)
    mc.store(y, 0, v.to(mc.f8e4m3))
    mc.store(z, 0, v.to(mc.f8e5m2))


def test_fp8_conversions_are_pytorchs():
    special = [
        0.0,
        -0.0,
        448.0,
        449.0,
        464.0,
        464.1,
        -465.0,
        480.0,
        57344.0,
        61439.0,
        61440.0,
        -65536.0,
        1e30,
        np.inf,
        -np.inf,
        np.nan,
        2**-9,
        2**-10,
        1.5 * 2**-10,
        2**-16,
        2**-17,
        1e-9,
    ]
    x = torch.tensor(special + list(np.random.default_rng(0).normal(size=400) * 100), dtype=torch.float32)
    y = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device="cuda")
    z = torch.empty(x.shape, dtype=torch.float8_e5m2, device="cuda")
    to_fp8(x.cuda(), y, z)
    for result, dtype in ((y, torch.float8_e4m3fn), (z, torch.float8_e5m2)):
        np.testing.assert_array_equal(result.cpu().float().numpy(), x.to(dtype).float().numpy())


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def histogram(x: mc.i32["N"], counts: mc.InOut[mc.i32["BINS"]], *, B: mc.Const = 256):
    values = mc.load(x, mc.program_id(0), B, pad=-1)
    mc.scatter_add(counts, values, mc.ones(B, mc.i32))


def test_scatter_add():
    x = torch.randint(0, 37, (10_000,), dtype=torch.int32)
    counts = torch.zeros(37, dtype=torch.int32, device="cuda")
    histogram(x.cuda(), counts)
    np.testing.assert_array_equal(counts.cpu().numpy(), np.bincount(x.numpy(), minlength=37))


@mc.kernel(grid=lambda M, B: (mc.cdiv(M, B),))
def scans(
    x: mc.f32["M", 128], total: mc.Out[mc.f32["M", 128]], best: mc.Out[mc.i32["M"]], *, B: mc.Const = 16
):
    i = mc.program_id(0)
    rows = mc.load(x, (i, 0), (B, 128))
    mc.store(total, (i, 0), mc.cumsum(rows, 1, reverse=True))
    mc.store(best, i, mc.argmax(rows, 1))


def test_scan_and_argmax():
    x = torch.randn(50, 128)
    total, best = torch.empty(50, 128, device="cuda"), torch.empty(50, dtype=torch.int32, device="cuda")
    scans(x.cuda(), total, best)
    expected = np.flip(np.cumsum(np.flip(x.double().numpy(), 1), 1), 1)
    np.testing.assert_allclose(total.cpu().numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(best.cpu().numpy(), x.numpy().argmax(1))


@mc.kernel(grid=(4,))
def noise(out: mc.Out[mc.u32[1024]], uniform: mc.Out[mc.f32[1024]], seed: mc.i32):
    i = mc.program_id(0)
    offsets = i * 256 + mc.iota(256)
    mc.store(out, i, mc.random_bits(seed, offsets))
    mc.store(uniform, i, mc.random_uniform(seed, offsets))


def test_random_is_tritons():
    out = torch.empty(1024, dtype=torch.uint32, device="cuda")
    uniform = torch.empty(1024, device="cuda")
    noise(out, uniform, 1234)
    expected = OPS["random_bits"].reference(1234, np.arange(1024))
    np.testing.assert_array_equal(out.cpu().numpy(), expected)
    assert 0.45 < uniform.mean().item() < 0.55 and uniform.min() >= 0 and uniform.max() < 1


@mc.kernel(grid=(1,))
def unpack(x: mc.i4["M", "N"], y: mc.Out[mc.i8["M", "N"]], z: mc.Out[mc.i4["M", "N"]]):
    block = mc.load(x, (0, 0), (16, 64))
    mc.store(y, (0, 0), block.to(mc.i8))
    mc.store(z, (0, 0), block)


def test_packed_i4():
    packed = torch.randint(-128, 128, (16, 32), dtype=torch.int8)
    y, z = (
        torch.empty(16, 64, dtype=torch.int8, device="cuda"),
        torch.zeros(16, 32, dtype=torch.int8, device="cuda"),
    )
    unpack(packed.cuda(), y, z)
    low, high = (packed.numpy() << 4).astype(np.int8) >> 4, packed.numpy() >> 4
    np.testing.assert_array_equal(y.cpu().numpy(), np.stack([low, high], -1).reshape(16, 64))
    np.testing.assert_array_equal(z.cpu().numpy(), packed.numpy())


@mc.kernel(grid=lambda M, BM: (mc.cdiv(M, BM), 4))
def split_k(
    a: mc.f16["M", "K"],
    b: mc.f16["K", "N"],
    c: mc.InOut[mc.f32["M", "N"]],
    *,
    BM: mc.Const = 64,
    BN: mc.Const = 64,
    BK: mc.Const = 32,
):
    m = mc.program_id(0)
    acc = mc.zeros((BM, BN), mc.f32)
    for k in range(mc.program_id(1), mc.cdiv(a.shape[1], BK), mc.num_programs(1)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, 0), (BK, BN)), acc)
    mc.atomic_add(c, (m, 0), acc)


def test_atomic_split_k():
    a, b = torch.randn(100, 500, dtype=torch.float16), torch.randn(500, 60, dtype=torch.float16)
    c = torch.zeros(100, 60, device="cuda")
    split_k(a.cuda(), b.cuda(), c)
    expected = a.double().numpy() @ b.double().numpy()
    assert np.linalg.norm(c.cpu().numpy() - expected) < 1e-5 * np.linalg.norm(expected)


@mc.kernel(grid=lambda num_sms: (num_sms,))
def persistent_copy(x: mc.bf16["M", "N"], y: mc.Out[mc.bf16["M", "N"]], *, B: mc.Const = 64):
    rows, columns = mc.cdiv(x.shape[0], B), mc.cdiv(x.shape[1], B)
    for tile in range(mc.program_id(0), rows * columns, mc.num_programs(0)):
        index = (tile // columns, tile % columns)
        mc.store(y.T, (index[1], index[0]), mc.load(x, index, (B, B)).T)


def test_persistent_loop():
    x = torch.randn(1000, 777).bfloat16().cuda()
    y = torch.empty_like(x)
    persistent_copy(x, y)
    assert torch.equal(x, y)


@mc.kernel(grid=lambda P: (P,))
def paged(pages: mc.f32["P", 16, 32], table: mc.i32["P"], out: mc.Out[mc.f32["P", 16, 32]]):
    p = mc.program_id(0)
    page = mc.gather(table, p)
    mc.store(out[p], (0, 0), mc.load(pages[page], (0, 0), (16, 32)))


def test_index_from_memory():
    pages, table = torch.randn(40, 16, 32), torch.randperm(40, dtype=torch.int32)
    table[3] = 99  # beyond the pages: reads as zeros
    out = torch.full((40, 16, 32), float("nan"), device="cuda")
    paged(pages.cuda(), table.cuda(), out)
    expected = pages[table.clamp(max=39).long()]
    expected[3] = 0
    assert torch.equal(out.cpu(), expected)


def test_bf16_scalars_and_bools():
    from . import scalars

    x = torch.randn(100).bfloat16()
    flags = torch.rand(100) < 0.5
    out, negated = (
        torch.empty(100, dtype=torch.bfloat16, device="cuda"),
        torch.empty(100, dtype=torch.bool, device="cuda"),
    )
    scalars.scale(x.cuda(), flags.cuda(), out, negated, 1.5, 7)
    np.testing.assert_array_equal(negated.cpu().numpy(), ~flags.numpy())
    expected = torch.where(flags, x * 1.5 + 7, x)
    # a * b + c may be rounded once instead of twice
    np.testing.assert_allclose(out.cpu().float(), expected.float(), rtol=2**-7)
    assert ml_dtypes.bfloat16  # the element type of scalars in the launcher


@mc.kernel(grid=lambda M, BM: (mc.cdiv(M, BM),), tune=[dict(BM=128, num_warps=4), dict(BM=64, num_warps=4)])
def specialized(
    a: mc.bf16["M", "K"],
    b: mc.bf16["K", "N"],
    c: mc.Out[mc.bf16["M", "N"]],
    *,
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
):
    m = mc.program_id(0)
    acc = mc.zeros((BM, BN), mc.f32)
    for k in mc.range(mc.cdiv(a.shape[1], BK), warp_specialize=True, num_stages=3):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, 0), (BK, BN)), acc)
    mc.store(c, (m, 0), acc.to(mc.bf16))


@mc.kernel(grid=lambda M, BM: (mc.cdiv(M, BM),), tune=[dict(num_ctas=2, num_warps=4)])
def clustered(
    a: mc.bf16["M", "K"],
    b: mc.bf16["K", "N"],
    c: mc.Out[mc.bf16["M", "N"]],
    *,
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
):
    m = mc.program_id(0)
    acc = mc.zeros((BM, BN), mc.f32)
    for k in range(mc.cdiv(a.shape[1], BK)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, 0), (BK, BN)), acc)
    mc.store(c, (m, 0), acc.to(mc.bf16))


@pytest.mark.parametrize("kernel", [specialized, clustered])
def test_warp_specialization_and_clusters(kernel):
    a, b = torch.randn(1000, 520).bfloat16(), torch.randn(520, 120).bfloat16()
    c = torch.full((1000, 120), float("nan"), dtype=torch.bfloat16, device="cuda")
    kernel(a.cuda(), b.cuda(), c)
    expected = a.double().numpy() @ b.double().numpy()
    assert np.linalg.norm(c.cpu().double().numpy() - expected) < 2**-7 * np.linalg.norm(expected)


@mc.kernel(grid=lambda M, BM: (mc.cdiv(M, BM),))
def every_dot(
    a: T["M", "K"],
    b: T["K", "N"],
    c: mc.Out[U["M", "N"]],
    *,
    BM: mc.Const = 64,
    BN: mc.Const = 64,
    BK: mc.Const = 64,
):
    m = mc.program_id(0)
    acc = mc.zeros((BM, BN), c.dtype)
    for k in range(mc.cdiv(a.shape[1], BK)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b.T, (0, k), (BN, BK)).T, acc)
    mc.store(c, (m, 0), acc)


@pytest.mark.parametrize(
    "operands,result,tolerance",
    [
        (torch.int8, torch.int32, 0),
        (torch.float16, torch.float16, 5e-3),
        (torch.float16, torch.float32, 1e-5),
        (torch.float64, torch.float64, 1e-12),
        (torch.float8_e5m2, torch.float32, 1e-4),
    ],
)
def test_dot_accumulators(operands, result, tolerance):
    a, b = torch.randn(100, 200) * 3, torch.randn(200, 64) * 3
    a, b = a.to(operands), b.to(operands)
    c = torch.zeros(100, 64, dtype=result, device="cuda")
    every_dot(a.cuda(), b.cuda(), c)
    expected = a.double().numpy() @ b.double().numpy()
    assert np.linalg.norm(c.cpu().double().numpy() - expected) <= tolerance * np.linalg.norm(expected)
