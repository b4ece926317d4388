"""reuse-destinations: carried tiles keep their place, tiles that change places do not overwrite each other, stores in place."""

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.passes import PropagateDivisibility, Upstream
from mosaic_compile.passes.expand_copies import ExpandCopies
from mosaic_compile.passes.read_in_place import ReadInPlace
from mosaic_compile.passes.reuse_destinations import ReuseDestinations
from mosaic_compile.passes.tile_to_linalg import TileToLinalg
from mosaic_compile.passes.walk import operations

from .helpers import PREPARE, SIMPLIFY, check, checked, run_passes

VALUES = (
    *PREPARE,
    PropagateDivisibility(),
    TileToLinalg(),
    Upstream("convert-elementwise-to-linalg"),
    *SIMPLIFY,
    Upstream("linalg-fuse-elementwise-ops"),
    *SIMPLIFY,
)
PASS = (*VALUES, ReuseDestinations())
BUFFERS = (
    *VALUES,
    ReadInPlace(),
    ReuseDestinations(),
    Upstream("one-shot-bufferize"),
    *SIMPLIFY,
    ExpandCopies(),
)


@checked(*PASS)
@mc.kernel
def test_computed_where_it_was(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
    # CHECK: scf.for {{.*}} iter_args(%[[TILE:.*]] = %{{.*}})
    # CHECK: %[[NEXT:.*]] = linalg.generic {{.*}} outs(%[[TILE]] :
    # CHECK: %[[SAME:.*]] = linalg.copy ins(%[[NEXT]] : {{.*}}) outs(%[[TILE]] :
    # CHECK: scf.yield %[[SAME]]
    tile = mc.load(x, 0, 16)
    for _ in range(n):
        tile = tile * 2.0
    mc.store(y, 1, tile)


@checked(*PASS)
@mc.kernel
def test_computed_where_it_was_in_while(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
    # CHECK: scf.while
    # CHECK: ^bb0(%{{.*}}: i32, %[[TILE:[a-z0-9]+]]: tensor<16xf32>):
    # CHECK: %[[NEXT:.*]] = linalg.generic {{.*}} outs(%[[TILE]] :
    # CHECK: %[[SAME:.*]] = linalg.copy ins(%[[NEXT]] : {{.*}}) outs(%[[TILE]] :
    # CHECK: scf.yield %{{.*}}, %[[SAME]]
    tile, i = mc.load(x, 0, 16), mc.i32(0)
    while i < n:
        tile = tile * 2.0
        i = i + 1
    mc.store(y, 1, tile)


@checked(*PASS)
@mc.kernel
def test_what_starts_the_chain_takes_the_place(a: mc.f32[16, 16], n: mc.i32, y: mc.f32[16, 16]):
    """A product's accumulator is filled first: there."""
    # CHECK: scf.for {{.*}} iter_args(%[[TILE:.*]] = %{{.*}})
    # CHECK: %[[START:.*]] = linalg.generic {{.*}} outs(%[[TILE]] :
    # CHECK: linalg.matmul {{.*}} outs(%[[START]] :
    tile = mc.load(a, (0, 0), (16, 16))
    for i in range(n):
        tile = mc.dot(tile, tile, mc.broadcast_to(i.to(mc.f32), (16, 16)))
    mc.store(y, (0, 0), tile)


@checked(*PASS)
@mc.kernel
def test_an_inner_loop_takes_the_place(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
    # CHECK: scf.for {{.*}} iter_args(%[[TILE:.*]] = %{{.*}})
    # CHECK: scf.for {{.*}} iter_args(%[[INNER:.*]] = %[[TILE]])
    # CHECK: linalg.generic {{.*}} outs(%[[INNER]] :
    tile = mc.load(x, 0, 16)
    for _ in range(n):
        for _ in range(n):
            tile = tile * 2.0
    mc.store(y, 1, tile)


@checked(*PASS)
@mc.kernel
def test_the_tile_that_is_read_is_written_last(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
    # CHECK: scf.for {{.*}} iter_args(%[[A:.*]] = %{{.*}}, %[[B:.*]] = %{{.*}})
    # CHECK: %[[SUM:.*]] = linalg.generic
    # CHECK: %[[OLD:.*]] = linalg.copy ins(%[[A]] : {{.*}}) outs(%[[B]] :
    # CHECK: %[[NEW:.*]] = linalg.copy ins(%[[SUM]] : {{.*}}) outs(%[[A]] :
    # CHECK: scf.yield %[[NEW]], %[[OLD]]
    a = mc.load(x, 0, 16)
    b = a * 2.0
    for _ in range(n):
        a, b = a + b, a
    mc.store(y, 0, a - b)


@checked(*PASS)
@mc.kernel
def test_of_two_that_change_places_one_steps_aside(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
    # CHECK: scf.for {{.*}} iter_args(%[[A:.*]] = %{{.*}}, %[[B:.*]] = %{{.*}})
    # CHECK: %[[ASIDE:.*]] = tensor.empty
    # CHECK: %[[COPY:.*]] = linalg.copy ins(%[[B]] : {{.*}}) outs(%[[ASIDE]] :
    # CHECK: %[[NEW_B:.*]] = linalg.copy ins(%[[A]] : {{.*}}) outs(%[[B]] :
    # CHECK: %[[NEW_A:.*]] = linalg.copy ins(%[[COPY]] : {{.*}}) outs(%[[A]] :
    # CHECK: scf.yield %[[NEW_A]], %[[NEW_B]]
    a = mc.load(x, 0, 16)
    b = a * 2.0
    for _ in range(n):
        a, b = b, a
    mc.store(y, 0, a - b)


# What bufferization makes of it.


def copies(kernel, **choices) -> int:
    """How many copies of tiles are left, beside those of loads and stores, which are of views."""
    module = run_passes(trace(kernel, kernel.specialize(**choices)), *BUFFERS)
    copied = [op for op in operations(module.operation) if op.name == "linalg.copy"]
    return sum(1 for op in copied if not any("strided" in str(o.type) for o in op.operands))


def test_an_accumulator_is_never_copied():
    @mc.kernel
    def accumulate(a: mc.f32[64, 64], n: mc.i32, s: mc.f32, y: mc.f32[64, 32]):
        acc = mc.broadcast_to(s, (32, 32))
        for k in range(n):
            acc = mc.dot(mc.load(a, (0, k), (32, 32)), mc.load(a, (k, 0), (32, 32)), acc)
        mc.store(y, (0, 0), acc)

    assert copies(accumulate) == 0


def test_a_swap_costs_three_copies_and_one_buffer():
    @mc.kernel
    def swap(x: mc.f32[64], n: mc.i32, y: mc.f32[64]):
        a = mc.load(x, 0, 16) + 1.0
        b = a * 2.0
        for _ in range(n):
            a, b = b, a
        mc.store(y, 0, a - b)

    assert copies(swap) == 3


# Stores.


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_a_store_in_place(x: mc.f32[64], y: mc.f32["N"]):
    # CHECK: %[[VIEW:.*]] = memref.subview %arg1[
    # CHECK: %[[PLACE:.*]] = bufferization.to_tensor %[[VIEW]] restrict writable
    # CHECK: linalg.generic {{.*}} outs(%[[PLACE]] :
    mc.store(y, mc.program_id(0), mc.load(x, 1, 16) * 2.0)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_where_the_array_has_another_use(x: mc.f32[64], y: mc.f32["N"]):
    # CHECK-NOT: restrict writable
    # CHECK: bufferization.materialize_in_destination
    # CHECK-NOT: to_tensor {{.*}} restrict writable
    # CHECK: return
    tile = mc.load(x, 0, 16) * 2.0
    mc.store(y, 2 * mc.program_id(0), tile)
    mc.store(y, mc.program_id(0), tile)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_where_the_array_was_read_before(y: mc.f32["N"]):
    # CHECK: memref.copy
    # CHECK: %[[VIEW:.*]] = memref.subview %arg0[
    # CHECK: %[[PLACE:.*]] = bufferization.to_tensor %[[VIEW]] restrict writable
    # CHECK: linalg.generic {{.*}} outs(%[[PLACE]] :
    mc.store(y, mc.program_id(0), mc.load(y, 2 * mc.program_id(0), 16) * 2.0)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_where_the_array_is_read_before_the_store(x: mc.f32[64], y: mc.f32["N"], z: mc.f32["N"]):
    # CHECK: %[[EMPTY:.*]] = tensor.empty
    # CHECK: linalg.generic {{.*}} outs(%[[EMPTY]] :
    # CHECK: memref.copy
    p = mc.program_id(0)
    tile = mc.load(x, 0, 16) * mc.load(x, 1, 16)
    before = mc.load(y, p, 16)
    mc.store(y, p, tile)
    mc.store(z, p, before * 2.0)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_in_each_branch(x: mc.f32[64], n: mc.i32, y: mc.f32["N"]):
    # CHECK: scf.if
    # CHECK: %[[ONE:.*]] = bufferization.to_tensor {{.*}} restrict writable
    # CHECK: linalg.generic {{.*}} outs(%[[ONE]] :
    # CHECK: else
    # CHECK: %[[OTHER:.*]] = bufferization.to_tensor {{.*}} restrict writable
    # CHECK: linalg.generic {{.*}} outs(%[[OTHER]] :
    if n > 3:
        mc.store(y, mc.program_id(0), mc.load(x, 0, 16) * mc.load(x, 1, 16))
    else:
        mc.store(y, mc.program_id(0), mc.load(x, 0, 16) + mc.load(x, 1, 16))


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_from_outside_a_branch(x: mc.f32[64], n: mc.i32, y: mc.f32["N"]):
    """The store may not happen."""
    # CHECK: %[[EMPTY:.*]] = tensor.empty
    # CHECK: linalg.generic {{.*}} outs(%[[EMPTY]] :
    # CHECK: scf.if
    tile = mc.load(x, 0, 16) * mc.load(x, 1, 16)
    if n > 3:
        mc.store(y, mc.program_id(0), tile)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_what_has_another_use(x: mc.f32[64], y: mc.f32["N"], z: mc.f32["M"]):
    """Another program may have written the array by then."""
    # CHECK-NOT: restrict writable
    # CHECK: linalg.generic
    # CHECK-NOT: restrict writable :
    # CHECK: return
    tile = mc.cumsum(mc.load(x, 0, 16), 0)
    mc.store(y, mc.program_id(0), tile)
    mc.store(z, mc.program_id(0), mc.sum(tile, keepdims=True))


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_what_is_added_up(x: mc.f32[64, 64], y: mc.f32["N", 16]):
    """Another program may add to the same elements at that time."""
    # CHECK: %[[EMPTY:.*]] = tensor.empty
    # CHECK: %[[START:.*]] = linalg.generic {{.*}} outs(%[[EMPTY]] :
    # CHECK: linalg.matmul {{.*}} outs(%[[START]] :
    # CHECK-NOT: restrict writable :
    # CHECK: return
    i = mc.program_id(0)
    a = mc.load(x, (0, 0), (16, 16))
    mc.store(y, (i, 0), mc.dot(a, a, mc.broadcast_to(i.to(mc.f32), (16, 16))))


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_within_a_branch(x: mc.f32[64], n: mc.i32, y: mc.f32["N"]):
    # CHECK: scf.if
    # CHECK: %[[PLACE:.*]] = bufferization.to_tensor %{{.*}} restrict writable
    # CHECK: linalg.generic {{.*}} outs(%[[PLACE]] :
    if n > 3:
        mc.store(y, mc.program_id(0), mc.load(x, 1, 16) * 2.0)


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (N // 16,))
def test_not_a_tile_that_is_only_moved(x: mc.f32[64], y: mc.f32["N"]):
    # CHECK: %[[TILE:.*]] = bufferization.to_tensor
    # CHECK: bufferization.materialize_in_destination %[[TILE]]
    mc.store(y, mc.program_id(0), mc.load(x, 1, 16))


def test_not_where_the_place_depends_on_what_comes_between():
    """The place comes from memory, behind the computation: reading it earlier would be wrong."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[EMPTY:.*]] = tensor.empty
        // CHECK: linalg.fill {{.*}} outs(%[[EMPTY]] :
        // CHECK: memref.load
        // CHECK: memref.subview
        // CHECK: bufferization.materialize_in_destination
        func.func @kernel(%x: memref<64xf32>, %at: memref<1xindex>) {
          %c0 = arith.constant 0 : index
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : tensor<16xf32>
          %tile = linalg.fill ins(%zero : f32) outs(%empty : tensor<16xf32>) -> tensor<16xf32>
          memref.store %c0, %at[%c0] : memref<1xindex>
          %start = memref.load %at[%c0] : memref<1xindex>
          %view = memref.subview %x[%start] [16] [1] : memref<64xf32> to memref<16xf32, strided<[1], offset: ?>>
          bufferization.materialize_in_destination %tile in restrict writable %view
            : (tensor<16xf32>, memref<16xf32, strided<[1], offset: ?>>) -> ()
          return
        }
        """,
        ReuseDestinations(),
    )


def test_arithmetic_of_the_place_moves_up():
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: arith.addi
        // CHECK: %[[VIEW:.*]] = memref.subview
        // CHECK: %[[PLACE:.*]] = bufferization.to_tensor %[[VIEW]] restrict writable
        // CHECK: linalg.fill {{.*}} outs(%[[PLACE]] :
        func.func @kernel(%x: memref<64xf32>, %i: index) {
          %c1 = arith.constant 1 : index
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : tensor<16xf32>
          %tile = linalg.fill ins(%zero : f32) outs(%empty : tensor<16xf32>) -> tensor<16xf32>
          %start = arith.addi %i, %c1 : index
          %view = memref.subview %x[%start] [16] [1] : memref<64xf32> to memref<16xf32, strided<[1], offset: ?>>
          bufferization.materialize_in_destination %tile in restrict writable %view
            : (tensor<16xf32>, memref<16xf32, strided<[1], offset: ?>>) -> ()
          return
        }
        """,
        ReuseDestinations(),
    )
