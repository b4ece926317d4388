"""propagate-divisibility: what is proved, and what must not be."""

import mosaic_compile as mc
from mosaic_compile.passes.propagate_divisibility import PropagateDivisibility

from .helpers import PREPARE, check, checked

PASSES = (*PREPARE, PropagateDivisibility())


def cdiv_grid(M, N, B):
    return mc.cdiv(M, B), mc.cdiv(N, B)


@checked(*PASSES, multiples={"M": 64, "N": 32})
@mc.kernel(grid=cdiv_grid)
def test_grid_and_loop(a: mc.f32["M", "N"], out: mc.f32["M"], *, B: mc.Const = 32):
    # M is a multiple of the block, and so is N.
    # CHECK: scf.for
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true, true>, multiples = array<i64: 32, 32>{{.*}}starts_inside = array<i1: true, true>
    # CHECK: tile.store{{.*}}in_bounds = array<i1: true>
    m = mc.program_id(0)
    total = mc.zeros((B,), mc.f32)
    for n in range(mc.cdiv(a.shape[1], B)):
        total = total + mc.sum(mc.load(a, (m, n), (B, B)), axis=1)
    mc.store(out, m, total)


@checked(*PASSES, multiples={"M": 16, "N": 48})
@mc.kernel(grid=cdiv_grid)
def test_blocks_that_do_not_divide_the_dimension(a: mc.f32["M", "N"], out: mc.f32["M"], *, B: mc.Const = 32):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false, false>, multiples = array<i64: 32, 32>{{.*}}starts_inside = array<i1: true, true>
    # CHECK: tile.store{{.*}}in_bounds = array<i1: false>
    m = mc.program_id(0)
    total = mc.zeros((B,), mc.f32)
    for n in range(mc.cdiv(a.shape[1], B)):
        total = total + mc.sum(mc.load(a, (m, n), (B, B)), axis=1)
    mc.store(out, m, total)


@checked(*PASSES)
@mc.kernel
def test_whole_blocks_only(a: mc.f32["N"], out: mc.f32["N"]):
    # Rounded down, the number of blocks is right for any N.
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>
    for n in range(a.shape[0] // 32):
        mc.store(out, n, mc.load(a, n, 32))


@checked(*PASSES)
@mc.kernel
def test_one_block_more(a: mc.f32["N"], out: mc.f32["N"]):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, {{.*}}starts_inside = array<i1: true>
    for n in range(a.shape[0] // 32 + 1):
        mc.store(out, n, mc.load(a, n, 32))


@checked(*PASSES, multiples={"N": 32})
@mc.kernel
def test_a_loop_over_offsets(a: mc.f32["N"], out: mc.f32["N"]):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>, multiples = array<i64: 32>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 1>{{.*}}starts_inside = array<i1: true>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 32>{{.*}}starts_inside = array<i1: false>
    for n in range(0, a.shape[0], 32):
        x = mc.load(a, offset=n, shape=32)
        x = x + mc.load(a, offset=n + 1, shape=32)
        x = x + mc.load(a, offset=n - 32, shape=32)
        mc.store(out, x, offset=n)


@checked(*PASSES)
@mc.kernel(grid=lambda M, N: (M, N))
def test_one_program_a_row(a: mc.f32["M", "N", 40], out: mc.f32["M"]):
    # The row is inside, whatever M and N are; the first 32 of 40 columns are, the next are not.
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true, true, true>, multiples = array<i64: 1, 1, 1073741824>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true, true, false>, multiples = array<i64: 1, 1, 32>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false, false, true>
    m, n = mc.program_id(0), mc.program_id(1)
    x = mc.load(a[m, n], 0, 32) + mc.load(a[m, n], 1, 32) + mc.load(a[n, m], 0, 32)
    mc.store(out, m, mc.sum(x))


@checked(*PASSES, dims={"M": 256, "N": 100})
@mc.kernel(grid=cdiv_grid)
def test_fixed_dimensions(a: mc.f32["M", "N"], out: mc.f32["M", "N"], *, B: mc.Const = 64):
    # CHECK-NOT: "tile.dim"
    # CHECK: scf.for {{.*}} to %c4_i32
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true, false>
    # CHECK: tile.store{{.*}}in_bounds = array<i1: true, false>
    n = mc.program_id(1)
    for m in range(mc.cdiv(a.shape[0], B)):
        mc.store(out, (m, n), mc.load(a, (m, n), (B, B)))


@checked(*PASSES, multiples={"N": 128})
@mc.kernel(grid=lambda N: (mc.cdiv(N, 128),))
def test_blocks_within_a_block(a: mc.f32["N"], out: mc.f32["N"]):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>, multiples = array<i64: 32>
    for part in range(4):
        i = mc.program_id(0) * 128 + part * 32
        mc.store(out, mc.load(a, offset=i, shape=32), offset=i)


@checked(*PASSES, multiples={"M": 32, "N": 32})
@mc.kernel(grid=lambda M, N, B: (mc.cdiv(M, B) * mc.cdiv(N, B),))
def test_programs_in_one_row(a: mc.f32["M", "N"], out: mc.f32["M", "N"], *, B: mc.Const = 32):
    # The remainder is below the number of columns. That the quotient is below that of rows takes more than ranges.
    # CHECK: arith.divui
    # CHECK: arith.remui
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false, true>
    tile, columns = mc.program_id(0), mc.cdiv(a.shape[1], B)
    mc.store(out, (tile // columns, tile % columns), mc.load(a, (tile // columns, tile % columns), (B, B)))


@checked(*PASSES, multiples={"N": 64})
@mc.kernel(grid=(1, 2))
def test_min_max_and_shifts(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, {{.*}}starts_inside = array<i1: true>
    # CHECK: tile.load{{.*}}multiples = array<i64: 8>{{.*}}starts_inside = array<i1: false>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 64>{{.*}}starts_inside = array<i1: true>
    blocks = a.shape[0] // 64
    for i in range(min(n, blocks)):
        mc.store(out, i, mc.load(a, i, 64))
    at = max(n, 0)
    x = mc.load(a, offset=at, shape=64)
    x = x + mc.load(a, offset=n << 3, shape=64)
    x = x + mc.load(a, mc.program_id(0) + mc.program_id(1), 64)
    mc.store(out, 0, x)


@checked(*PASSES)
@mc.kernel(grid=lambda num_sms: (num_sms,))
def test_a_persistent_loop(a: mc.f32["N"], out: mc.f32["N"]):
    # Each block is whole, whichever program takes it.
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>, multiples = array<i64: 32>
    for i in range(mc.program_id(0), a.shape[0] // 32, mc.num_programs(0)):
        mc.store(out, i, mc.load(a, i, 32))


@checked(*PASSES)
@mc.kernel
def test_unknown_offsets(a: mc.f32["N"], table: mc.i32["M"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: "tile.load"(%arg0{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 16>{{.*}}starts_inside = array<i1: false>
    # CHECK: "tile.load"(%arg0{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 1>{{.*}}starts_inside = array<i1: false>
    page = mc.sum(mc.load(table, 0, 1))
    mc.store(out, 0, mc.load(a, page, 16) + mc.load(a, offset=n, shape=16))


@checked(*PASSES)
@mc.kernel
def test_carried_offsets(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # It grows without an end that is known, so it may wrap around: but a multiple of 16 it stays.
    # CHECK: tile.load{{.*}}in_bounds = array<i1: false>, multiples = array<i64: 16>{{.*}}starts_inside = array<i1: false>
    # CHECK: tile.load{{.*}}multiples = array<i64: 4>{{.*}}starts_inside = array<i1: true>
    at, parity = mc.i32(0), mc.i32(0)
    for _ in range(n):
        mc.store(out, mc.load(a, offset=at, shape=16) + mc.load(a, offset=parity, shape=16), offset=at)
        at = at + 48
        parity = 4 - parity
        parity = max(parity, 0)


def test_arithmetic_that_may_wrap_around():
    check(
        """
        !a = !tile.array<tensor<?xf32>, strided<[1]>>
        func.func @f(%a: !a, %n: i32) attributes {tile.kernel, tile.grid = ["num_sms"]} {
          %c48 = arith.constant 48 : i32
          %id = "tile.program_id"() {axis = 0 : i64} : () -> i32
          // Any number of programs is possible here: 2**31 / 48 of them wrap around, to multiples of 16.
          // CHECK: tile.load{{.*}}multiples = array<i64: 16>{{.*}}starts_inside = array<i1: false>
          %x = arith.muli %id, %c48 : i32
          %0 = "tile.load"(%a, %x) {axes = array<i64: 0>, pad = 0.0 : f32, operandSegmentSizes = array<i32: 1, 1>} : (!a, i32) -> tensor<16xf32>
          // CHECK: tile.load{{.*}}multiples = array<i64: 48>{{.*}}starts_inside = array<i1: true>
          %y = arith.muli %id, %c48 overflow<nsw> : i32
          %1 = "tile.load"(%a, %y) {axes = array<i64: 0>, pad = 0.0 : f32, operandSegmentSizes = array<i32: 1, 1>} : (!a, i32) -> tensor<16xf32>
          // CHECK: tile.load{{.*}}starts_inside = array<i1: false>
          %z = arith.addi %id, %n : i32
          %2 = "tile.load"(%a, %z) {axes = array<i64: 0>, pad = 0.0 : f32, operandSegmentSizes = array<i32: 1, 1>} : (!a, i32) -> tensor<16xf32>
          return
        }
        """,
        PropagateDivisibility(),
    )


def test_divisions():
    check(
        """
        !a = !tile.array<tensor<?xf32>, strided<[1]>>
        // CHECK-LABEL: @f
        // CHECK-SAME: %[[A:[a-z0-9]+]]: !tile.array
        // CHECK-SAME: %[[N:[a-z0-9]+]]: i32
        func.func @f(%a: !a {tile.dims = ["N"], tile.dim_multiples = array<i64: 16>}, %n: i32) -> (i32, i32, i32, i32, i32, i32, i32, i32, i32) attributes {tile.kernel} {
          %c0 = arith.constant 0 : i32
          %c24 = arith.constant 24 : i32
          %c16 = arith.constant 16 : i32
          %m = "tile.dim"(%a) {axis = 0 : i64} : (!a) -> i32
          // CHECK: %[[M:.*]] = "tile.dim"
          // CHECK: arith.divui %[[M]], %c24_i32
          // CHECK: arith.ceildivui %[[M]], %c24_i32
          // CHECK: arith.divui %[[M]], %c16_i32
          // CHECK: arith.divui %[[M]], %c24_i32
          // CHECK: arith.remui %[[M]], %c24_i32
          %0 = arith.floordivsi %m, %c24 : i32
          %1 = arith.ceildivsi %m, %c24 : i32
          %2 = arith.ceildivsi %m, %c16 : i32
          %3 = arith.divsi %m, %c24 : i32
          %4 = arith.remsi %m, %c24 : i32
          // x % 24
          // CHECK: %[[R:.*]] = arith.remui %[[M]], %c24_i32
          %p = arith.muli %0, %c24 : i32
          %5 = arith.subi %m, %p : i32
          // Not the same number twice.
          // CHECK: arith.subi
          %q = arith.muli %0, %c16 : i32
          %6 = arith.subi %m, %q : i32
          // May be negative.
          // CHECK: arith.floordivsi %[[N]]
          // CHECK: %[[S:.*]] = arith.subi %[[N]]
          %d = arith.floordivsi %n, %c24 : i32
          %e = arith.muli %d, %c24 : i32
          %7 = arith.subi %n, %e : i32
          // A multiple of 16 leaves nothing.
          // CHECK: %[[ZERO:.*]] = arith.constant 0
          %8 = arith.remsi %m, %c16 : i32
          // CHECK: return {{.*}}, %[[R]], {{.*}}, %[[S]], %
          return %0, %1, %2, %3, %4, %5, %6, %7, %8 : i32, i32, i32, i32, i32, i32, i32, i32, i32
        }
        """,
        PropagateDivisibility(),
    )


@checked(*PASSES, PropagateDivisibility(), multiples={"N": 8})
@mc.kernel(grid=lambda N: (mc.cdiv(N, 32),))
def test_a_second_run_finds_the_same(a: mc.f32["N"], out: mc.f32["N"]):
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>
    # CHECK: tile.load{{.*}}in_bounds = array<i1: true>
    for i in range(mc.cdiv(a.shape[0], 24)):
        mc.store(out, i, mc.load(a, i * 3, 8))
    for i in range(mc.cdiv(a.shape[0], 8)):
        mc.store(out, i, mc.load(a, i, 8))
    mc.store(out, 0, mc.load(a, mc.program_id(0) % mc.cdiv(a.shape[0], 8), 8))
