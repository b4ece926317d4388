"""Vector addition: the smallest kernel."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.f32, mc.bf16, mc.f16, mc.f64, mc.i64, mc.i32, mc.i16, mc.i8, mc.u8)


def reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """In float64; integers as they are, so that they wrap around."""
    return x + y if x.dtype.kind in "iu" else x.astype(np.float64) + y.astype(np.float64)


@mc.kernel(
    grid=lambda N, BLOCK: (mc.cdiv(N, BLOCK),),
    tune=dict(
        gpu=[dict(BLOCK=1024, num_warps=4), dict(BLOCK=4096, num_warps=8)],
        cpu=[dict(BLOCK=1024), dict(BLOCK=4096)],
    ),
    reference=reference,
)
def vector_add(x: T["N"], y: T["N"], out: mc.Out[T["N"]], *, BLOCK: mc.Const = 1024):
    """out = x + y, element by element.

    x, y, out: N elements of one type T. BLOCK: elements a program.
    """
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, BLOCK) + mc.load(y, i, BLOCK))
