"""check-triton-limits: the whole message of each limit, at the kernel's line."""

import pytest

import mosaic_compile as mc
from mosaic_compile.errors import TargetLimitError
from mosaic_compile.frontend import trace
from mosaic_compile.passes.check_triton_limits import CheckTritonLimits
from mosaic_compile.passes.propagate_divisibility import PropagateDivisibility

from .helpers import PREPARE, run_passes

SM90 = CheckTritonLimits(target="sm90")


def message(kernel, limits=SM90, **choices) -> str:
    """The error for sm90 with the lines of the kernel, but without its place."""
    module = trace(kernel, kernel.specialize(**choices))
    with pytest.raises(TargetLimitError) as raised:
        run_passes(module, *PREPARE, PropagateDivisibility(), limits)
    lines = str(raised.value).split("\n")
    return "\n".join(
        line.split("| ")[-1].strip() for line in lines if "-->" not in line and line.strip() != "|"
    )


def test_sizes():
    @mc.kernel
    def kernel(x: mc.f32["N"], y: mc.f32["N"]):
        mc.store(y, 0, mc.load(x, 0, 96))

    assert message(kernel) == (
        "error: a tile has the size 96, but sizes on sm90 are powers of two\n"
        "mc.store(y, 0, mc.load(x, 0, 96))\n"
        "^^^^^^^^^^^^^^^^^\n"
        "help: use 128: loads are padded and stores clipped at the array's edges"
    )


def test_elements():
    @mc.kernel
    def kernel(x: mc.f32["M", "N"], y: mc.f32["M", "N"]):
        mc.store(y, (0, 0), mc.load(x, (0, 0), (2048, 1024)))

    assert message(kernel) == (
        "error: a tile of 2097152 elements is too large for sm90: at most 1048576\n"
        "mc.store(y, (0, 0), mc.load(x, (0, 0), (2048, 1024)))\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: use smaller tiles in a loop"
    )


@pytest.mark.parametrize(
    "dtype, m, n, k, what, depth",
    [
        (mc.bf16, 8, 32, 32, "the first has 8 rows", 16),
        (mc.f16, 32, 1, 32, "the second has 1 column", 16),
        (mc.f32, 32, 32, 8, "the inner dimension is 8", 16),
        (mc.i8, 32, 32, 16, "the inner dimension is 16", 32),
        (mc.f8e5m2, 32, 32, 16, "the inner dimension is 16", 32),
    ],
    ids=str,
)
def test_products(dtype, m, n, k, what, depth):
    @mc.kernel
    def kernel(a: dtype["M", "K"], b: dtype["K", "N"], c: mc.f32["M", "N"]):
        x, y = mc.load(a, (0, 0), (m, k)), mc.load(b, (0, 0), (k, n))
        mc.store(c, (0, 0), mc.dot(x, y).to(mc.f32))

    least = depth if "inner" in what else 16
    element = {"f8e5m2": "f8E5M2"}.get(dtype.name, dtype.name)
    assert message(kernel) == (
        f"error: mc.dot on sm90 multiplies at least 16x{depth} by {depth}x16 ({element} elements), "
        f"but {what}\n"
        "mc.store(c, (0, 0), mc.dot(x, y).to(mc.f32))\n"
        f"{'^' * len('mc.dot(x, y).to(mc.f32)')}\n"
        f"help: use a tile of {least}: loads are padded with zeros; for a vector, multiply and mc.sum"
    )


def sigmoid(tile):
    return 1.0 / (1.0 + mc.exp(-tile))  # stands before the kernel, but is called after its first line


def test_the_first_line_that_has_the_size():
    """Constants are hoisted over the operations before them."""

    @mc.kernel
    def kernel(a: mc.f16["M", "K"], b: mc.f16["K", "N"], c: mc.f32["M", "N"]):
        sums = mc.zeros((100, 64), mc.f32)
        for k in range(mc.cdiv(a.shape[1], 64)):
            sums = mc.dot(mc.load(a, (0, k), (100, 64)), mc.load(b, (k, 0), (64, 64)), sums)
        mc.store(c, (0, 0), sigmoid(sums) + mc.sigmoid(sums))

    assert message(kernel) == (
        "error: a tile has the size 100, but sizes on sm90 are powers of two\n"
        "sums = mc.zeros((100, 64), mc.f32)\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: use 128: loads are padded and stores clipped at the array's edges"
    )


def test_a_loop_is_not_to_blame():
    """Merged constants have no place: what follows is the loop that carries them, and the load in it."""

    @mc.kernel
    def kernel(a: mc.f16["M", "K"], b: mc.f16["K", "N"], c: mc.f32["M", "N"]):
        first, second = mc.zeros((100, 64), mc.f32), mc.zeros((100, 64), mc.f32)
        for k in range(mc.cdiv(a.shape[1], 64)):
            rows = mc.load(a, (0, k), (100, 64))
            first = mc.dot(rows, mc.load(b, (k, 0), (64, 64)), first)
            second = mc.dot(rows, mc.load(b, (k, 1), (64, 64)), second)
        mc.store(c, (0, 0), first + mc.sigmoid(second))

    assert message(kernel) == (
        "error: a tile has the size 100, but sizes on sm90 are powers of two\n"
        "rows = mc.load(a, (0, k), (100, 64))\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: use 128: loads are padded and stores clipped at the array's edges"
    )


PACKED_HELP = (
    "help: start at a tile index or at an even offset such as 2 * j, and promise even rows: --shape N=%2"
)


def test_packed_offset():
    @mc.kernel
    def kernel(x: mc.i4["N"], j: mc.i32):
        mc.store(x, mc.zeros(32, mc.i4), offset=j)

    assert message(kernel, multiples={"N": 2}) == (
        "error: mc.store writes two 4-bit elements at a time on sm90, but the offset in dimension 0 is not known to be even\n"
        "mc.store(x, mc.zeros(32, mc.i4), offset=j)\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n" + PACKED_HELP
    )


@pytest.mark.parametrize(
    "multiples, obstacle",
    [({"N": 1}, "the stride of dimension 0 is not known to be even")],
)
def test_packed_rows(multiples, obstacle):
    @mc.kernel
    def kernel(x: mc.i4["M", "N"]):
        mc.store(x, (0, 0), mc.zeros((2, 32), mc.i4))

    assert message(kernel, multiples=multiples) == (
        f"error: mc.store writes two 4-bit elements at a time on sm90, but {obstacle}\n"
        "mc.store(x, (0, 0), mc.zeros((2, 32), mc.i4))\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n" + PACKED_HELP
    )


def test_packed_size():
    @mc.kernel
    def kernel(x: mc.i4["N"]):
        mc.store(x, 0, mc.zeros(32, mc.i4))

    assert "the size of dimension 0 is not known to be even" in message(kernel)


def test_packed_scatter():
    @mc.kernel
    def kernel(x: mc.i4["N"]):
        mc.scatter(x, mc.iota(32), mc.zeros(32, mc.i4))

    assert message(kernel) == (
        "error: mc.scatter writes single elements, but on sm90 two 4-bit elements share a byte\n"
        "mc.scatter(x, mc.iota(32), mc.zeros(32, mc.i4))\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: use mc.store with an even number of neighbours, or an array of i8"
    )


def test_span():
    @mc.kernel
    def kernel(x: mc.f32[64, 2**26], y: mc.f32[64]):
        mc.store(y, 0, mc.load(x, (0, 0), (64, 1)).reshape(64))

    assert message(kernel) == (
        "error: a block's elements lie up to 4227858432 elements apart, but sm90 counts to 2147483647 within one\n"
        "mc.store(y, 0, mc.load(x, (0, 0), (64, 1)).reshape(64))\n"
        f"{'^' * len('mc.load(x, (0, 0), (64, 1)).reshape(64)')}\n"
        "help: use a smaller tile in dimension 0, whose stride is 67108864"
    )


@mc.kernel
def doubled(x: mc.f32[16]):
    mc.store(x, 0, mc.load(x, 0, 16) * 2)


def test_threads():
    assert message(doubled, CheckTritonLimits("gfx942", warp_size=64), num_warps=32) == (
        "error: num_warps=32 makes programs of 2048 threads, but gfx942 runs at most 1024\n"
        "def doubled(x: mc.f32[16]):\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: use num_warps=16 or fewer"
    )


def test_clusters():
    assert message(doubled, CheckTritonLimits("sm80", clusters=False), num_ctas=2) == (
        "error: num_ctas=2 needs clusters of thread blocks, which sm80 does not have\n"
        "def doubled(x: mc.f32[16]):\n"
        "^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "help: leave num_ctas at 1, or compile for sm90 or sm100"
    )


def specialized(stages, products):
    @mc.kernel
    def kernel(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.f32["M", "N"]):
        acc = mc.zeros((64, 64), mc.f32)
        for k in mc.range(mc.cdiv(a.shape[1], 64), num_stages=stages, warp_specialize=True):
            left, right = mc.load(a, (0, k), (64, 64)), mc.load(b, (k, 0), (64, 64))
            for _ in mc.static_range(products):
                acc = mc.dot(left, right, acc)
        mc.store(c, (0, 0), acc)

    return kernel


HOPPER = CheckTritonLimits(target="sm90", splits_tiles=True)


def test_stages_of_a_specialized_loop():
    assert message(specialized(5, 1), HOPPER) == (
        "error: a loop with warp_specialize and 1 mc.dot has 5 stages, "
        "but with more than 4 Triton computes wrong numbers for sm90\n"
        "for k in mc.range(mc.cdiv(a.shape[1], 64), num_stages=stages, warp_specialize=True):\n"
        f"{'^' * 83}\n"
        "help: set num_stages=4 or fewer, or take warp_specialize off the loop"
    )
    assert "2 mc.dot has 3 stages, but with more than 2" in message(specialized(3, 2), HOPPER)
    assert "2 mc.dot has 3 stages" in message(specialized(None, 2), HOPPER), "Triton's default"
    assert "1 mc.dot has 6 stages" in message(specialized(None, 1), HOPPER, num_stages=6)


@pytest.mark.parametrize(
    "kernel, limits, options",
    [
        (specialized(4, 1), HOPPER, {}),
        (specialized(2, 2), HOPPER, {}),
        (specialized(None, 2), HOPPER, {"num_stages": 2}),
        (specialized(6, 1), CheckTritonLimits(target="sm100"), {}),
    ],
)
def test_specialized_loops_within_the_limits(kernel, limits, options):
    module = trace(kernel, kernel.specialize(**options))
    run_passes(module, *PREPARE, PropagateDivisibility(), limits)
