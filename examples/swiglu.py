"""The gated unit of most language models in one kernel: silu(x @ w_gate) * (x @ w_up).

To compile it for a Hopper GPU:

    mosaic-compile examples/swiglu.py --target sm90
"""

import numpy as np

import mosaic_compile as mc


def reference(x, w_gate, w_up):
    x, w_gate, w_up = (array.astype(np.float64) for array in (x, w_gate, w_up))
    gate = x @ w_gate
    return gate / (1 + np.exp(-gate)) * (x @ w_up)


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)),
    tune=[
        dict(BM=128, BN=128, BK=64, num_warps=8, num_stages=3),
        dict(BM=64, BN=64, BK=64, num_warps=4, num_stages=3),
    ],
    reference=reference,
)
def swiglu(
    x: mc.bf16["M", "K"],
    w_gate: mc.bf16["K", "N"],
    w_up: mc.bf16["K", "N"],
    out: mc.Out[mc.bf16["M", "N"]],
    *,
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
):
    """out = silu(x @ w_gate) * (x @ w_up): both products share each block of x."""
    m, n = mc.program_id(0), mc.program_id(1)
    gate = mc.zeros((BM, BN), mc.f32)
    up = mc.zeros((BM, BN), mc.f32)
    for k in range(mc.cdiv(x.shape[1], BK)):
        rows = mc.load(x, (m, k), (BM, BK))
        gate = mc.dot(rows, mc.load(w_gate, (k, n), (BK, BN)), gate)
        up = mc.dot(rows, mc.load(w_up, (k, n), (BK, BN)), up)
    mc.store(out, (m, n), (gate * mc.sigmoid(gate) * up).to(out.dtype))
