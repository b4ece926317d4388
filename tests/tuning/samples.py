"""Kernels to be tuned."""

import mosaic_compile as mc

SLOW, FAST = dict(B=1), dict(B=2048)  # a program for each element, or for 2048


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[SLOW, FAST])
def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B) * 3.0)


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=512), dict(B=1024)])
def increment(x: mc.InOut[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(x, i, mc.load(x, i, B) + 1.0)


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=8), dict(B=16), dict(B=4)])
def picky(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
    assert B >= 16, "needs long tiles"
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B))


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=8), dict(B=4)])
def hopeless(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
    assert B >= 16, "needs long tiles"
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B))


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=1024, num_warps=4), dict(B=1024, num_warps=8)])
def warps(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B))


@mc.kernel(grid=lambda N: (N,))
def counted(counts: mc.i32["N"], x: mc.f32["N", "L"], out: mc.Out[mc.f32["N"]], *, B: mc.Const = 64):
    """Sums as many blocks of a row as `counts` says."""
    n = mc.program_id(0)
    acc = mc.zeros((1, B), mc.f32)
    for i in range(mc.gather(counts, n)):
        acc += mc.load(x, (n, i), (1, B))
    mc.store(out, n, mc.sum(acc, 1))


@mc.kernel(grid=(4,))
def triangle(x: mc.f32["N"], out: mc.Out[mc.f32[4]], *, B: mc.Const = 64):
    """Program p sums p blocks."""
    p = mc.program_id(0)
    acc = mc.zeros((B,), mc.f32)
    for i in range(p):
        acc += mc.load(x, i, B)
    mc.store(out, p, mc.sum(acc, 0))
