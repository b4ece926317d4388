"""choose-memory-path: what TMA moves, and the reason where it does not."""

import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.passes.choose_memory_path import ChooseMemoryPath
from mosaic_compile.passes.propagate_divisibility import PropagateDivisibility

from .helpers import PREPARE, checked, filecheck, run_passes

PASSES = (*PREPARE, PropagateDivisibility(), ChooseMemoryPath(tma=True))


@checked(*PASSES)
@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)))
def test_matrix_product(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.bf16["M", "N"]):
    # CHECK: tile.load{{.*}}path = "descriptor", path_reason = "all conditions of TMA hold"
    # CHECK: tile.load{{.*}}path = "descriptor"
    # CHECK: tile.store{{.*}}path = "descriptor"
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((64, 64), mc.f32)
    for k in range(mc.cdiv(a.shape[1], 64)):
        acc = mc.dot(mc.load(a, (m, k), (64, 64)), mc.load(b, (k, n), (64, 64)), acc)
    mc.store(c, (m, n), acc.to(c.dtype))


@checked(*PREPARE, ChooseMemoryPath())
@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)))
def test_without_tma(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.f32["M", "N"]):
    # CHECK-COUNT-3: path = "pointers", path_reason = "the target has no tensor memory accelerator"
    m, n = mc.program_id(0), mc.program_id(1)
    mc.store(c, (m, n), mc.dot(mc.load(a, (m, 0), (64, 64)), mc.load(b, (0, n), (64, 64))))


@checked(*PASSES)
@mc.kernel
def test_elementwise(x: mc.f32["M", "N"], y: mc.f32["M", "N"]):
    # CHECK-COUNT-2: path = "pointers", path_reason = "the tile takes part in no matrix product: threads load it straight to registers"
    mc.store(y, (0, 0), mc.load(x, (0, 0), (64, 64)))


@checked(*PASSES)
@mc.kernel
def test_in_place(x: mc.bf16["M", "N"]):
    # CHECK-COUNT-2: path = "pointers", path_reason = "the kernel reads and writes the array, and TMA keeps no order with other accesses"
    tile = mc.load(x, (0, 0), (64, 64))
    mc.store(x, (0, 0), mc.dot(tile, tile).to(x.dtype))


def reason(dtype, make, **choices):
    """What is said of the load in dot(load(x), load(x).T)."""

    @mc.kernel
    def product(x: dtype["M", "N"], y: mc.f32[64, 64]):
        tile = make(x)
        mc.store(y, (0, 0), mc.dot(tile, tile.T).to(mc.f32))

    module = run_passes(trace(product, product.specialize(**choices)), *PASSES)
    return str(module)


@pytest.mark.parametrize(
    "dtype, make, choices, expected",
    [
        (mc.bf16, lambda x: mc.load(x, (0, 0), (64, 64)), {"multiples": {"N": 1}}, "the stride of dimension 0 is not known to be a multiple of 16 bytes"),
        (mc.bf16, lambda x: mc.load(x, (0, 0), (64, 64), pad=1), {}, "outside the array a descriptor reads 0, not 1.0"),
        (mc.i8, lambda x: mc.load(x, (0, 0), (64, 64), pad=3), {}, "outside the array a descriptor reads 0, not 3"),
        (mc.f32, lambda x: mc.load(x, (0, 0), (4096, 2)).reshape(64, 128), {}, "rows of 8 bytes are shorter than 16"),
        (mc.f32, lambda x: mc.load(x[0], 0, 4096).reshape(64, 64), {}, "the tile is a single row: a descriptor pays from two dimensions on"),
    ],
)  # fmt: skip
def test_obstacles(dtype, make, choices, expected):
    filecheck(
        reason(dtype, make, **choices),
        f'// CHECK: tile.load{{{{.*}}}}path = "pointers", path_reason = "{expected}"',
    )


def test_padding_that_is_never_read():
    text = reason(mc.bf16, lambda x: mc.load(x, (0, 0), (64, 64), pad=1), dims={"M": 64, "N": 64})
    filecheck(text, '// CHECK: tile.load{{.*}}path = "descriptor"')
