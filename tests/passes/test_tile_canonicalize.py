"""tile-canonicalize: what becomes simpler, and what must stay."""

import mosaic_compile as mc
from mosaic_compile.passes.tile_canonicalize import TileCanonicalize

from .helpers import PREPARE, check, checked

PASS = TileCanonicalize()


def test_identities():
    check(
        """
        // CHECK-LABEL: @identities
        // CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<4x8xf32>
        // CHECK-NEXT: return %[[X]], %[[X]], %[[X]]
        func.func @identities(%x: tensor<4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) {
          %p = "tile.permute"(%x) {order = array<i64: 0, 1>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
          %r = "tile.reshape"(%x) : (tensor<4x8xf32>) -> tensor<4x8xf32>
          %b = "tile.broadcast"(%x) : (tensor<4x8xf32>) -> tensor<4x8xf32>
          return %p, %r, %b : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>
        }
        """,
        PASS,
    )


def test_nested_permutes():
    check(
        """
        // CHECK-LABEL: @composed
        // CHECK-NEXT: "tile.permute"(%arg0) {order = array<i64: 1, 0, 2>} : (tensor<2x4x8xf32>) -> tensor<4x2x8xf32>
        // CHECK-NEXT: return
        func.func @composed(%x: tensor<2x4x8xf32>) -> tensor<4x2x8xf32> {
          %p = "tile.permute"(%x) {order = array<i64: 2, 0, 1>} : (tensor<2x4x8xf32>) -> tensor<8x2x4xf32>
          %q = "tile.permute"(%p) {order = array<i64: 2, 1, 0>} : (tensor<8x2x4xf32>) -> tensor<4x2x8xf32>
          return %q : tensor<4x2x8xf32>
        }
        // CHECK-LABEL: @undone
        // CHECK-NEXT: return %arg0
        func.func @undone(%x: tensor<2x4x8xf32>) -> tensor<2x4x8xf32> {
          %p = "tile.permute"(%x) {order = array<i64: 2, 0, 1>} : (tensor<2x4x8xf32>) -> tensor<8x2x4xf32>
          %q = "tile.permute"(%p) {order = array<i64: 1, 2, 0>} : (tensor<8x2x4xf32>) -> tensor<2x4x8xf32>
          return %q : tensor<2x4x8xf32>
        }
        // CHECK-LABEL: @only_ones_move
        // CHECK-NEXT: "tile.reshape"(%arg0) : (tensor<1x4x8xf32>) -> tensor<4x8x1xf32>
        func.func @only_ones_move(%x: tensor<1x4x8xf32>) -> tensor<4x8x1xf32> {
          %p = "tile.permute"(%x) {order = array<i64: 1, 2, 0>} : (tensor<1x4x8xf32>) -> tensor<4x8x1xf32>
          return %p : tensor<4x8x1xf32>
        }
        // A reshape does not pass through a permute.
        // CHECK-LABEL: @stays
        // CHECK-NEXT: tile.permute
        // CHECK-NEXT: tile.reshape
        // CHECK-NEXT: tile.permute
        func.func @stays(%x: tensor<4x8xf32>) -> tensor<8x4xf32> {
          %p = "tile.permute"(%x) {order = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
          %r = "tile.reshape"(%p) : (tensor<8x4xf32>) -> tensor<4x8xf32>
          %q = "tile.permute"(%r) {order = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
          return %q : tensor<8x4xf32>
        }
        """,
        PASS,
    )


def test_nested_reshapes_and_broadcasts():
    check(
        """
        // CHECK-LABEL: @reshapes
        // CHECK-NEXT: "tile.reshape"(%arg0) : (tensor<4x8xf32>) -> tensor<2x16xf32>
        // CHECK-NEXT: return
        func.func @reshapes(%x: tensor<4x8xf32>) -> tensor<2x16xf32> {
          %r = "tile.reshape"(%x) : (tensor<4x8xf32>) -> tensor<32xf32>
          %q = "tile.reshape"(%r) : (tensor<32xf32>) -> tensor<2x16xf32>
          return %q : tensor<2x16xf32>
        }
        // CHECK-LABEL: @broadcasts
        // CHECK-NEXT: "tile.broadcast"(%arg0) : (tensor<8x1xf32>) -> tensor<2x8x4xf32>
        // CHECK-NEXT: return
        func.func @broadcasts(%x: tensor<8x1xf32>) -> tensor<2x8x4xf32> {
          %r = "tile.broadcast"(%x) : (tensor<8x1xf32>) -> tensor<8x4xf32>
          %q = "tile.broadcast"(%r) : (tensor<8x4xf32>) -> tensor<2x8x4xf32>
          return %q : tensor<2x8x4xf32>
        }
        // CHECK-LABEL: @row
        // CHECK-NEXT: "tile.broadcast"(%arg0) : (tensor<8xf32>) -> tensor<4x8xf32>
        // CHECK-NEXT: return
        func.func @row(%x: tensor<8xf32>) -> tensor<4x8xf32> {
          %r = "tile.reshape"(%x) : (tensor<8xf32>) -> tensor<1x8xf32>
          %q = "tile.broadcast"(%r) : (tensor<1x8xf32>) -> tensor<4x8xf32>
          return %q : tensor<4x8xf32>
        }
        // The one at the end says along which dimension to repeat.
        // CHECK-LABEL: @column
        // CHECK-NEXT: tile.reshape
        // CHECK-NEXT: tile.broadcast
        func.func @column(%x: tensor<8xf32>) -> tensor<8x4xf32> {
          %r = "tile.reshape"(%x) : (tensor<8xf32>) -> tensor<8x1xf32>
          %q = "tile.broadcast"(%r) : (tensor<8x1xf32>) -> tensor<8x4xf32>
          return %q : tensor<8x4xf32>
        }
        // CHECK-LABEL: @repeats_nothing
        // CHECK-NEXT: "tile.reshape"(%arg0) : (tensor<8xf32>) -> tensor<1x1x8xf32>
        func.func @repeats_nothing(%x: tensor<8xf32>) -> tensor<1x1x8xf32> {
          %q = "tile.broadcast"(%x) : (tensor<8xf32>) -> tensor<1x1x8xf32>
          return %q : tensor<1x1x8xf32>
        }
        """,
        PASS,
    )


def test_uniform_tiles():
    check(
        """
        // CHECK-LABEL: @constants
        // CHECK-NOT: tile.
        // CHECK: %[[C:.*]] = arith.constant dense<3.000000e+00> : tensor<2x8x4xf32>
        // CHECK-NEXT: return %[[C]]
        func.func @constants() -> tensor<2x8x4xf32> {
          %c = arith.constant dense<3.0> : tensor<4x8xf32>
          %p = "tile.permute"(%c) {order = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
          %r = "tile.reshape"(%p) : (tensor<8x4xf32>) -> tensor<1x8x4xf32>
          %b = "tile.broadcast"(%r) : (tensor<1x8x4xf32>) -> tensor<2x8x4xf32>
          return %b : tensor<2x8x4xf32>
        }
        // CHECK-LABEL: @scalars
        // CHECK-NEXT: "tile.broadcast"(%arg0) : (f32) -> tensor<2x16xf32>
        // CHECK-NEXT: return
        func.func @scalars(%s: f32) -> tensor<2x16xf32> {
          %b = "tile.broadcast"(%s) : (f32) -> tensor<4x8xf32>
          %p = "tile.permute"(%b) {order = array<i64: 1, 0>} : (tensor<4x8xf32>) -> tensor<8x4xf32>
          %r = "tile.reshape"(%p) : (tensor<8x4xf32>) -> tensor<2x16xf32>
          return %r : tensor<2x16xf32>
        }
        // CHECK-LABEL: @other_constants
        // CHECK: tile.permute
        func.func @other_constants() -> tensor<2x2xf32> {
          %c = arith.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
          %p = "tile.permute"(%c) {order = array<i64: 1, 0>} : (tensor<2x2xf32>) -> tensor<2x2xf32>
          return %p : tensor<2x2xf32>
        }
        """,
        PASS,
    )


def test_cat_and_split():
    check(
        """
        // CHECK-LABEL: @split_cat
        // CHECK-NEXT: return %arg0, %arg1
        func.func @split_cat(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
          %c = "tile.cat"(%x, %y) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          %a, %b = "tile.split"(%c) {axis = 0 : i64} : (tensor<8xf32>) -> (tensor<4xf32>, tensor<4xf32>)
          return %a, %b : tensor<4xf32>, tensor<4xf32>
        }
        // CHECK-LABEL: @cat_split
        // CHECK-NEXT: return %arg0
        func.func @cat_split(%x: tensor<8xf32>) -> tensor<8xf32> {
          %a, %b = "tile.split"(%x) {axis = 0 : i64} : (tensor<8xf32>) -> (tensor<4xf32>, tensor<4xf32>)
          %c = "tile.cat"(%a, %b) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          return %c : tensor<8xf32>
        }
        // CHECK-LABEL: @swapped_halves
        // CHECK: tile.split
        // CHECK: tile.cat
        func.func @swapped_halves(%x: tensor<8xf32>) -> tensor<8xf32> {
          %a, %b = "tile.split"(%x) {axis = 0 : i64} : (tensor<8xf32>) -> (tensor<4xf32>, tensor<4xf32>)
          %c = "tile.cat"(%b, %a) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          return %c : tensor<8xf32>
        }
        // CHECK-LABEL: @one_half_twice
        // CHECK: tile.cat
        func.func @one_half_twice(%x: tensor<8xf32>) -> tensor<8xf32> {
          %a, %b = "tile.split"(%x) {axis = 0 : i64} : (tensor<8xf32>) -> (tensor<4xf32>, tensor<4xf32>)
          %c = "tile.cat"(%a, %a) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          return %c : tensor<8xf32>
        }
        // CHECK-LABEL: @constant_halves
        // CHECK-NEXT: arith.constant dense<1.000000e+00> : tensor<8xf32>
        // CHECK-NEXT: return
        func.func @constant_halves() -> tensor<8xf32> {
          %a = arith.constant dense<1.0> : tensor<4xf32>
          %b = arith.constant dense<1.0> : tensor<4xf32>
          %c = "tile.cat"(%a, %b) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          return %c : tensor<8xf32>
        }
        // CHECK-LABEL: @one_constant_half
        // CHECK: tile.cat
        func.func @one_constant_half(%x: tensor<4xf32>) -> tensor<8xf32> {
          %a = arith.constant dense<1.0> : tensor<4xf32>
          %c = "tile.cat"(%a, %x) {axis = 0 : i64} : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
          return %c : tensor<8xf32>
        }
        // CHECK-LABEL: @other_axis
        // CHECK: tile.split
        // CHECK: tile.cat
        func.func @other_axis(%x: tensor<4x4xf32>) -> tensor<2x8xf32> {
          %a, %b = "tile.split"(%x) {axis = 0 : i64} : (tensor<4x4xf32>) -> (tensor<2x4xf32>, tensor<2x4xf32>)
          %c = "tile.cat"(%a, %b) {axis = 1 : i64} : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x8xf32>
          return %c : tensor<2x8xf32>
        }
        """,
        PASS,
    )


def test_products_take_what_is_added():
    check(
        """
        // CHECK-LABEL: @added
        // CHECK-NEXT: "tile.dot"(%arg0, %arg0, %arg1) {precision = "tf32"}
        // CHECK-NEXT: return
        func.func @added(%a: tensor<16x16xf32>, %x: tensor<16x16xf32>) -> tensor<16x16xf32> {
          %z = arith.constant dense<0.0> : tensor<16x16xf32>
          %d = "tile.dot"(%a, %a, %z) {precision = "tf32"} : (tensor<16x16xf32>, tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
          %s = arith.addf %x, %d : tensor<16x16xf32>
          return %s : tensor<16x16xf32>
        }
        // CHECK-LABEL: @has_an_accumulator
        // CHECK: arith.addf
        func.func @has_an_accumulator(%a: tensor<16x16xf32>, %x: tensor<16x16xf32>) -> tensor<16x16xf32> {
          %d = "tile.dot"(%a, %a, %a) {precision = "ieee"} : (tensor<16x16xf32>, tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
          %s = arith.addf %x, %d : tensor<16x16xf32>
          return %s : tensor<16x16xf32>
        }
        // CHECK-LABEL: @used_twice
        // CHECK: arith.addf
        func.func @used_twice(%a: tensor<16x16xf32>, %x: tensor<16x16xf32>) -> (tensor<16x16xf32>, tensor<16x16xf32>) {
          %z = arith.constant dense<0.0> : tensor<16x16xf32>
          %d = "tile.dot"(%a, %a, %z) {precision = "ieee"} : (tensor<16x16xf32>, tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
          %s = arith.addf %x, %d : tensor<16x16xf32>
          return %s, %d : tensor<16x16xf32>, tensor<16x16xf32>
        }
        // The product would be computed in each iteration.
        // CHECK-LABEL: @before_a_loop
        // CHECK: tile.dot
        // CHECK: scf.for
        // CHECK-NEXT: arith.addf
        func.func @before_a_loop(%a: tensor<16x16xf32>, %n: i32) -> tensor<16x16xf32> {
          %zero = arith.constant 0 : i32
          %one = arith.constant 1 : i32
          %z = arith.constant dense<0.0> : tensor<16x16xf32>
          %d = "tile.dot"(%a, %a, %z) {precision = "ieee"} : (tensor<16x16xf32>, tensor<16x16xf32>, tensor<16x16xf32>) -> tensor<16x16xf32>
          %l = scf.for %i = %zero to %n step %one iter_args(%x = %a) -> (tensor<16x16xf32>) : i32 {
            %s = arith.addf %x, %d : tensor<16x16xf32>
            scf.yield %s : tensor<16x16xf32>
          }
          return %l : tensor<16x16xf32>
        }
        """,
        PASS,
    )


@checked(*PREPARE, PASS)
@mc.kernel
def test_a_transposed_load_takes_other_axes(a: mc.f32["B", "M", "N"], out: mc.f32["N", "M"]):
    # CHECK: %[[X:.*]] = "tile.load"(%arg0, {{.*}}) {axes = array<i64: 2, 1>, {{.*}}pad = 1.000000e+00 : f32{{.*}} -> tensor<32x16xf32>
    # CHECK-NOT: tile.permute
    # CHECK: "tile.store"(%arg1, %[[X]]
    x = mc.load(a[3], (1, 0), (16, 32), pad=1)
    mc.store(out, (0, 1), x.T)


@checked(*PREPARE, PASS)
@mc.kernel
def test_a_load_that_is_used_both_ways_stays(a: mc.f32["M", "M"], out: mc.f32["M", "M"]):
    # CHECK: tile.load
    # CHECK: tile.permute
    x = mc.load(a, (0, 0), (32, 32))
    mc.store(out, (0, 0), x + x.T)


@checked(*PREPARE, PASS)
@mc.kernel
def test_a_transposed_load_stays_before_the_store(x: mc.f32["M", "M"]):
    # CHECK: %[[X:.*]] = "tile.load"
    # CHECK: tile.store
    # CHECK: "tile.store"(%arg0, %[[X]]
    tile = mc.load(x, (0, 0), (32, 32))
    mc.store(x, (0, 0), mc.zeros((32, 32), mc.f32))
    mc.store(x, (1, 1), tile.T)


@checked(*PREPARE, PASS)
@mc.kernel
def test_unused_loads_go(a: mc.f32["N"], i: mc.i32["N"], out: mc.f32["N"]):
    # CHECK-NOT: tile.load
    # CHECK-NOT: tile.gather
    # CHECK: tile.store
    mc.load(a, 0, 16).reshape(4, 4).T + 1.0
    mc.gather(a, mc.load(i, 0, 16))
    mc.store(out, 0, mc.zeros((16,), mc.f32))


@checked(*PREPARE, PASS)
@mc.kernel
def test_equal_loads_of_an_input_are_one(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: tile.load
    # CHECK: scf.for
    # CHECK-NOT: tile.load
    # CHECK: return
    mc.store(out, 0, mc.load(a, 3, 16))
    for i in range(n):
        mc.store(out, i, mc.load(a, 3, 16))
    mc.store(out, 1, mc.load(a, 3, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_different_loads_stay(a: mc.f32["N"], out: mc.f32["N"]):
    # CHECK-COUNT-3: tile.load
    mc.store(out, 0, mc.load(a, 3, 16))
    mc.store(out, 1, mc.load(a, 3, 16, pad=1))
    mc.store(out, 2, mc.load(a, 4, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_loads_in_a_branch_are_not_known_behind_it(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: scf.if
    # CHECK: tile.load
    # CHECK: } else {
    # CHECK: tile.load
    # CHECK: }
    # CHECK: tile.load
    if n > 0:
        mc.store(out, 0, mc.load(a, 3, 16))
    else:
        mc.store(out, 1, mc.load(a, 3, 16))
    mc.store(out, 2, mc.load(a, 3, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_a_write_ends_what_is_known_of_an_array(x: mc.f32["N"], out: mc.f32["N"]):
    # CHECK: tile.load
    # CHECK-NOT: tile.load
    # CHECK: tile.store
    # CHECK: tile.load
    # CHECK: tile.store
    a = mc.load(x, 0, 16) + mc.load(x, 0, 16)
    mc.store(x, 1, a)
    mc.store(out, 0, mc.load(x, 0, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_waiting_for_another_program_goes_on(flag: mc.i32["N"]):
    # A load that is merged with one before the loop would wait forever.
    # CHECK: tile.atomic_add
    # CHECK: tile.load
    # CHECK: scf.while
    # CHECK: tile.load
    mc.atomic_add(flag, 0, mc.full((1,), 1, mc.i32))
    arrived = mc.sum(mc.load(flag, 0, 1))
    while arrived < mc.num_programs(0):
        arrived = mc.sum(mc.load(flag, 0, 1))
