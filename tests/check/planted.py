"""Kernels whose results are known, and mistakes planted in their compilation."""

from __future__ import annotations

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.mlir import ir
from mosaic_compile.passes import walk


def reference(x):
    out = 3 * x.astype(np.float64)
    out[16:32] += 0.5
    return out


def scale(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M", "N"]], *, BM: mc.Const = 16, BN: mc.Const = 16):
    m, n = mc.program_id(0), mc.program_id(1)
    tile = mc.load(x, (m, n), (BM, BN)) * 3.0
    if m == 1:
        tile = tile + 0.5
    mc.store(out, (m, n), tile)


def grid(M, N, BM, BN):
    return mc.cdiv(M, BM), mc.cdiv(N, BN)


SCALE = mc.kernel(scale, grid=grid, reference=reference)


def arguments(M: int = 40, N: int = 24) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((M, N)).astype(np.float32)
    return {"x": x, "out": np.full((M, N), np.nan, np.float32)}


def change_constant(module: ir.Module, old: float, new: float) -> None:
    """Replaces a float constant, of scalars and tiles."""
    found = 0
    for op in walk.operations(module.operation):
        value = op.attributes["value"] if op.name == "arith.constant" else None
        attribute = walk.splat(op.results[0]) if value is not None else None
        if isinstance(attribute, ir.FloatAttr) and attribute.value == old:
            with module.context, ir.Location.unknown():
                scalar = ir.FloatAttr.get(attribute.type, new)
                dense = isinstance(value, ir.DenseElementsAttr)
                op.attributes["value"] = (
                    ir.DenseElementsAttr.get_splat(value.type, scalar) if dense else scalar
                )
            found += 1
    assert found


def plant(monkeypatch: pytest.MonkeyPatch, pass_: type, old: float, new: float) -> None:
    """Makes a pass change a constant after its own work."""
    run = pass_.run

    def wrong(self, module):
        run(self, module)
        change_constant(module, old, new)

    monkeypatch.setattr(pass_, "run", wrong)
