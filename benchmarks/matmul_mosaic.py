"""The matmul of compile_time.py in our DSL: the same tiles, element types and options as matmul_triton.py."""

import mosaic_compile as mc


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)),
    tune=[dict(BM=128, BN=256, BK=64, num_warps=8, num_stages=3)],
)
def matmul(
    a: mc.bf16["M", "K"],
    b: mc.bf16["K", "N"],
    c: mc.Out[mc.bf16["M", "N"]],
    *,
    BM: mc.Const,
    BN: mc.Const,
    BK: mc.Const,
):
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((BM, BN), mc.f32)
    for k in range(mc.cdiv(a.shape[1], BK)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, n), (BK, BN)), acc)
    mc.store(c, (m, n), acc.to(c.dtype))
