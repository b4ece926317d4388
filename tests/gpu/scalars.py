"""A kernel with scalars of narrow types and arrays of truth values."""

import mosaic_compile as mc


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def scale(
    x: mc.bf16["N"],
    flags: mc.bool_["N"],
    out: mc.Out[mc.bf16["N"]],
    negated: mc.Out[mc.bool_["N"]],
    factor: mc.bf16,
    shift: mc.i8,
    *,
    B: mc.Const = 128,
):
    i = mc.program_id(0)
    values, chosen = mc.load(x, i, B), mc.load(flags, i, B)
    mc.store(out, i, mc.where(chosen, values * factor + shift.to(mc.bf16), values))
    mc.store(negated, i, ~chosen)
