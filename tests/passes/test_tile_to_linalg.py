"""tile-to-linalg: the form of what comes out; that it computes the same is tested in tests/backends."""

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.passes import PropagateDivisibility
from mosaic_compile.passes.tile_to_linalg import TileToLinalg

from .helpers import PREPARE, SIMPLIFY, checked, run_passes

PASS = (*PREPARE, PropagateDivisibility(), TileToLinalg(), *SIMPLIFY)
AS_IS = (*PREPARE, PropagateDivisibility(), TileToLinalg())


# Signatures.


@checked(*PASS)
@mc.kernel(grid=lambda M, N: (M, N))
def test_arguments(x: mc.f32["M", "N"], s: mc.i32, y: mc.f32[4, "N"]):
    # CHECK: %arg0: memref<?x?xf32, strided<[?, 1]>> {tile.access = "in"
    # CHECK-SAME: %arg1: i32 {tile.dtype = "i32", tile.name = "s"}
    # CHECK-SAME: %arg2: memref<4x?xf32, strided<[?, 1]>> {tile.access = "out"
    # CHECK-SAME: %[[X:[a-z0-9]+]]: i32 {mosaic.role = "program_id"}, %[[Y:[a-z0-9]+]]: i32 {mosaic.role = "program_id"}, %{{.*}}: i32 {mosaic.role = "program_id"}
    # CHECK-SAME: %[[COUNT:[a-z0-9]+]]: i32 {mosaic.role = "num_programs"}
    # CHECK-SAME: tile.grid = ["M", "N"]
    # CHECK: arith.addi %[[X]], %[[Y]]
    # CHECK: arith.muli %{{.*}}, %[[COUNT]]
    i = (mc.program_id(0) + mc.program_id(1)) * mc.num_programs(0)
    mc.store(y, (0, s), mc.load(x, (i, 0), (4, 8)))


def test_access_as_the_kernel_uses_its_arrays():
    @mc.kernel
    def kernel(a: mc.f32[8], b: mc.f32[8], c: mc.f32[8], unused: mc.f32[8], d: mc.InOut[mc.f32[8]]):
        mc.store(b, 0, mc.load(a, 0, 8))
        mc.store(c, 0, mc.load(c, 0, 8))
        mc.store(d, 0, mc.load(a, 0, 8))

    module = run_passes(trace(kernel, kernel.specialize()), *PASS)
    (function,) = module.body.operations
    given = [dict((a.name, a.attr) for a in attributes) for attributes in function.arg_attrs]
    access = {a["tile.name"].value: a["tile.access"].value for a in given if "tile.name" in a}
    assert access == {"a": "in", "b": "out", "c": "inout", "unused": "in", "d": "inout"}


# Blocks.


@checked(*PASS, multiples={"N": 16})
@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def test_a_block_inside(x: mc.f32["N"], y: mc.f32["N"]):
    # CHECK: %[[START:.*]] = arith.index_cast
    # CHECK: %[[BLOCK:.*]] = memref.subview %arg0[%[[START]]] [16] [1]
    # CHECK: %[[TILE:.*]] = bufferization.to_tensor %[[BLOCK]] restrict : {{.*}} to tensor<16xf32>
    # CHECK: %[[PLACE:.*]] = memref.subview %arg1[%[[START]]] [16] [1]
    # CHECK: bufferization.materialize_in_destination %[[TILE]] in restrict writable %[[PLACE]]
    # CHECK-NOT: tensor.pad
    # CHECK: return
    i = mc.program_id(0)
    mc.store(y, i, mc.load(x, i, 16))


@checked(*PASS)
@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def test_a_block_that_ends_outside(x: mc.f32["N"], y: mc.f32["N"]):
    """It cannot begin before the array: nothing is padded there."""
    # CHECK: %[[N:.*]] = memref.dim %arg0
    # CHECK: %[[END:.*]] = arith.addi %[[START:.*]], %c16
    # CHECK: %[[FIRST:.*]] = arith.minsi %[[START]], %[[N]]
    # CHECK: %[[LAST:.*]] = arith.minsi %[[END]], %[[N]]
    # CHECK: %[[SIZE:.*]] = arith.subi %[[LAST]], %[[FIRST]]
    # CHECK: memref.subview %arg0[%[[FIRST]]] [%[[SIZE]]] [1]
    # CHECK: %[[HIGH:.*]] = arith.subi %c16, %[[SIZE]]
    # CHECK: tensor.pad %{{.*}} low[0] high[%[[HIGH]]]
    # CHECK: tensor.yield %[[PAD:.*]] : f32
    # CHECK: tensor.extract_slice %{{.*}}[0] [%{{.*}}] [1]
    i = mc.program_id(0)
    mc.store(y, i, mc.load(x, i, 16, pad=7))


@checked(*PASS)
@mc.kernel
def test_a_block_anywhere(x: mc.f32["N"], o: mc.i32, y: mc.f32["N"]):
    # CHECK: %[[START:.*]] = arith.index_cast %arg1
    # CHECK: arith.maxsi %[[START]], %c0
    # CHECK: %[[BEFORE:.*]] = arith.subi %{{.*}}, %[[START]]
    # CHECK: %[[LOW:.*]] = arith.minsi %{{.*}}, %c16
    # CHECK: tensor.pad %{{.*}} low[%[[LOW]]] high[%{{.*}}]
    # CHECK: tensor.extract_slice %{{.*}}[%{{.*}}] [%{{.*}}] [1]
    mc.store(y, mc.load(x, offset=o, shape=16), offset=o)


@checked(*PASS)
@mc.kernel
def test_a_transposed_block(x: mc.f32["M", "N"], y: mc.f32[8, 4]):
    """The view's dimensions are in the tile's order, the strides go with them."""
    # CHECK: %[[BLOCK:.*]] = memref.subview %arg0
    # CHECK: memref.transpose %[[BLOCK]] (d0, d1) -> (d1, d0) : memref<?x?xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[1, ?], offset: ?>>
    # CHECK: tensor.pad {{.*}}
    mc.store(y, (0, 0), mc.load(x.T, (0, 0), (8, 4)))


@checked(*PASS)
@mc.kernel
def test_a_fixed_dimension_that_may_be_outside(x: mc.f32["M", "N"], i: mc.i32, y: mc.f32[8]):
    """Where it is, the block has no elements inside."""
    # CHECK: %[[REACHED:.*]] = arith.cmpi ne
    # CHECK: %[[SIZE:.*]] = arith.select %[[REACHED]], %{{.*}}, %c0
    # CHECK: memref.subview %arg0[%{{.*}}, %{{.*}}] [1, %[[SIZE]]] [1, 1] : {{.*}} to memref<?xf32
    mc.store(y, 0, mc.load(x[i], 0, 8))


@checked(*PASS)
@mc.kernel
def test_what_is_written_is_copied_when_it_is_loaded(x: mc.InOut[mc.f32[32]], y: mc.f32[32]):
    # CHECK: %[[COPY:.*]] = memref.alloc() : memref<16xf32>
    # CHECK: memref.copy %{{.*}}, %[[COPY]]
    # CHECK: %[[TILE:.*]] = bufferization.to_tensor %[[COPY]] restrict writable
    # CHECK: bufferization.materialize_in_destination {{.*}} in restrict writable
    # CHECK: bufferization.materialize_in_destination %[[TILE]]
    tile = mc.load(x, 0, 16)
    mc.store(x, 0, mc.load(y, 0, 16))
    mc.store(y, 1, tile)


@checked(*PASS)
@mc.kernel
def test_the_part_inside_is_copied_over_the_padding(x: mc.InOut[mc.f32["N"]], i: mc.i32):
    # CHECK: %[[COPY:.*]] = memref.alloc() : memref<16xf32>
    # CHECK: linalg.fill {{.*}} outs(%[[COPY]] :
    # CHECK: %[[INSIDE:.*]] = memref.subview %[[COPY]][%{{.*}}] [%{{.*}}] [1]
    # CHECK: memref.copy %{{.*}}, %[[INSIDE]]
    mc.store(x, i + 1, mc.load(x, i, 16))


@checked(*PASS)
@mc.kernel
def test_atomics_element_by_element(x: mc.f32["N"], n: mc.i32["N"], i: mc.i32):
    # CHECK: scf.for
    # CHECK: %[[ONE:.*]] = tensor.extract
    # CHECK: memref.atomic_rmw addf %[[ONE]], %{{.*}} : (f32,
    # CHECK: memref.atomic_rmw addi
    mc.atomic_add(x, i, mc.load(n, i, 16).to(mc.f32) * 2.0)
    mc.atomic_add(n, i, mc.iota(16))


# Single elements.


@checked(*PASS)
@mc.kernel
def test_gather(x: mc.f32["M", "N"], rows: mc.i32[16], y: mc.f32[16], *, PAD: mc.Const = 3):
    """A place is inside if it is below the size as an unsigned number; nothing is read elsewhere."""
    # CHECK: linalg.generic
    # CHECK: %[[ROW:.*]] = arith.index_cast %{{.*}} : i32 to index
    # CHECK: arith.cmpi ult, %[[ROW]]
    # CHECK: %[[IN_ARRAY:.*]] = arith.andi
    # CHECK: %[[INSIDE:.*]] = arith.andi %{{.*}}, %[[IN_ARRAY]]
    # CHECK: scf.if %[[INSIDE]] -> (f32)
    # CHECK: memref.load %arg0
    # CHECK: } else {
    # CHECK-NEXT: scf.yield %[[PAD:.*]] : f32
    at = mc.load(rows, 0, 16)
    mc.store(y, 0, mc.gather(x, (at, at + 1), mask=at > 2, pad=PAD))


@checked(*PASS)
@mc.kernel
def test_gather_of_a_scalar(x: mc.f32["N"], i: mc.i32, y: mc.f32[1]):
    # CHECK-NOT: linalg.generic
    # CHECK: %[[ONE:.*]] = scf.if %{{.*}} -> (f32)
    # CHECK-NEXT: memref.load %arg0
    mc.store(y, 0, mc.reshape(mc.gather(x, i), (1,)))


@checked(*PASS)
@mc.kernel
def test_gather_from_what_is_written_happens_at_once(x: mc.InOut[mc.f32["N"]], at: mc.i32[16]):
    # CHECK: %[[TILE:.*]] = memref.alloc() : memref<16xf32>
    # CHECK: scf.for
    # CHECK: memref.load %arg0
    # CHECK: memref.store %{{.*}}, %[[TILE]]
    # CHECK: scf.for
    # CHECK: scf.if
    # CHECK: memref.store %{{.*}}, %arg0
    index = mc.load(at, 0, 16)
    mc.scatter(x, index + 1, mc.gather(x, index))


@checked(*PASS)
@mc.kernel
def test_scatter_add(x: mc.i32["N"], at: mc.i32[16]):
    # CHECK: scf.for
    # CHECK: arith.cmpi ult
    # CHECK: scf.if
    # CHECK: memref.atomic_rmw addi %{{.*}}, %arg0
    mc.scatter_add(x, mc.load(at, 0, 16), mc.full((16,), 1, mc.i32))


# Products.


@checked(*PASS)
@mc.kernel
def test_transposed_factors_are_read_as_they_lie(a: mc.f32[16, 16], y: mc.f32[16, 16]):
    # CHECK-DAG: #[[LEFT:.*]] = affine_map<(d0, d1, d2) -> (d2, d0)>
    # CHECK-DAG: #[[RIGHT:.*]] = affine_map<(d0, d1, d2) -> (d1, d2)>
    # CHECK: linalg.matmul indexing_maps = [#[[LEFT]], #[[RIGHT]], #{{.*}}]
    tile = mc.load(a, (0, 0), (16, 16))
    square = tile * 2.0
    mc.store(y, (0, 0), mc.dot(square.T, (tile + 1.0).T))


@checked(*PASS)
@mc.kernel
def test_batches_of_products(a: mc.f32[2, 16, 16], y: mc.f32[2, 16, 16]):
    # CHECK: linalg.batch_matmul
    tile = mc.load(a, (0, 0, 0), (2, 16, 16))
    mc.store(y, (0, 0, 0), mc.dot(tile, tile))


# Shapes.


@checked(*PASS)
@mc.kernel
def test_shapes_are_maps(x: mc.f32[4, 8], y: mc.f32[8, 4], z: mc.f32[3, 4, 8]):
    # CHECK-DAG: #[[TURNED:.*]] = affine_map<(d0, d1) -> (d1, d0)>
    # CHECK-DAG: #[[REPEATED:.*]] = affine_map<(d0, d1, d2) -> (d1, d2)>
    # CHECK: linalg.generic {indexing_maps = [#[[TURNED]], #{{.*}}]
    # CHECK: linalg.generic {indexing_maps = [#[[REPEATED]], #{{.*}}]
    tile = mc.load(x, (0, 0), (4, 8)) * 2.0
    mc.store(y, (0, 0), tile.T)
    mc.store(z, (0, 0, 0), mc.broadcast_to(tile, (3, 4, 8)))


@checked(*PASS)
@mc.kernel
def test_reshapes(x: mc.f32[4, 8], y: mc.f32[2, 16], z: mc.f32[4, 1, 8]):
    """Dimensions of size 1 come and go by a map, all else goes through one dimension."""
    # CHECK: tensor.collapse_shape %{{.*}} {{\[\[}}0, 1]] : tensor<4x8xf32> into tensor<32xf32>
    # CHECK: tensor.expand_shape %{{.*}} {{\[\[}}0, 1]] output_shape [2, 16]
    # CHECK: linalg.generic {{.*}} outs({{.*}} : tensor<4x1x8xf32>)
    tile = mc.load(x, (0, 0), (4, 8)) * 2.0
    mc.store(y, (0, 0), mc.reshape(tile, (2, 16)))
    mc.store(z, (0, 0, 0), mc.reshape(tile, (4, 1, 8)))


@checked(*PASS)
@mc.kernel
def test_parts(x: mc.f32[4, 8], y: mc.f32[4, 8]):
    # CHECK: tensor.extract_slice %{{.*}}[0, 0] [4, 4] [1, 1]
    # CHECK: tensor.extract_slice %{{.*}}[0, 4] [4, 4] [1, 1]
    # CHECK: tensor.insert_slice %{{.*}} into %{{.*}}[0, 0] [4, 4] [1, 1]
    # CHECK: tensor.insert_slice %{{.*}} into %{{.*}}[0, 4] [4, 4] [1, 1]
    left, right = mc.split(mc.load(x, (0, 0), (4, 8)), axis=1)
    mc.store(y, (0, 0), mc.cat((right, left), 1))


# Reductions and scans.


@checked(*PASS)
@mc.kernel
def test_a_sum_starts_at_minus_zero(x: mc.f32[4, 8], y: mc.f32[4]):
    """What changes no number, not even the sign of a zero."""
    # CHECK-DAG: arith.constant {{.*}}-0.000000e+00
    # CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "reduction"]
    # CHECK: arith.addf %{{.*}}, %{{.*}} fastmath<reassoc>
    mc.store(y, 0, mc.sum(mc.load(x, (0, 0), (4, 8)), 1))


@checked(*PASS)
@mc.kernel
def test_integers_start_at_their_ends(x: mc.i8[4, 8], y: mc.i8[4]):
    # CHECK-DAG: arith.constant {{.*}}-128
    # CHECK: arith.maxsi
    mc.store(y, 0, mc.max(mc.load(x, (0, 0), (4, 8)), 1))


@checked(*PASS)
@mc.kernel
def test_without_a_number_to_start_with_the_first_elements_do(x: mc.f32[4, 8], y: mc.f32[4], at: mc.i32[4]):
    """Two results at once: the largest and where it is."""
    # CHECK: tensor.extract_slice %{{.*}}[0, 0] [4, 1] [1, 1]
    # CHECK: tensor.extract_slice %{{.*}}[0, 1] [4, 7] [1, 1]
    # CHECK: %[[BOTH:.*]]:2 = linalg.generic {{.*}} iterator_types = ["parallel", "reduction"]
    tile = mc.load(x, (0, 0), (4, 8))
    places = mc.broadcast_to(mc.iota(8), (4, 8))

    def larger(a, i, b, j):
        return mc.where(a < b, b, a), mc.where(a < b, j, i)

    best, where = mc.reduce((tile, places), 1, larger)
    mc.store(y, 0, best)
    mc.store(at, 0, where)


@checked(*PASS)
@mc.kernel
def test_one_element_is_its_own_reduction(x: mc.f32[4, 1], y: mc.f32[4]):
    # CHECK-NOT: "reduction"
    # CHECK: return
    mc.store(y, 0, mc.reduce(mc.load(x, (0, 0), (4, 1)), 1, lambda a, b: a * b + a))


@checked(*PASS)
@mc.kernel
def test_a_reduction_to_a_scalar(x: mc.f32[8], y: mc.f32[8]):
    # CHECK: %[[SUM:.*]] = linalg.generic {{.*}} iterator_types = ["reduction"]
    # CHECK: tensor.extract %[[SUM]][]
    tile = mc.load(x, 0, 8)
    mc.store(y, 0, tile / mc.sum(tile))


@checked(*AS_IS)
@mc.kernel
def test_a_scan_from_the_end(x: mc.f32[8, 4], y: mc.f32[8, 4]):
    # CHECK: tensor.extract_slice %{{.*}}[7, 0] [1, 4] [1, 1]
    # CHECK: scf.for %[[I:.*]] = %{{.*}} to %{{.*}} step
    # CHECK: %[[PLACE:.*]] = arith.subi %{{.*}}, %[[I]]
    # CHECK: tensor.extract_slice %{{.*}}[%[[PLACE]], 0] [1, 4] [1, 1]
    # CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "parallel"]
    # CHECK: arith.addf
    # CHECK-NOT: reassoc
    # CHECK: tensor.insert_slice %{{.*}} into %{{.*}}[%[[PLACE]], 0] [1, 4] [1, 1]
    mc.store(y, (0, 0), mc.cumsum(mc.load(x, (0, 0), (8, 4)), 0, reverse=True))


@checked(*AS_IS)
@mc.kernel
def test_a_scan_of_two(x: mc.f32[8], y: mc.f32[8], z: mc.f32[8]):
    # CHECK: scf.for {{.*}} -> (tensor<1xf32>, tensor<1xf32>, tensor<8xf32>, tensor<8xf32>)
    # CHECK: %{{.*}}:2 = linalg.generic
    tile = mc.load(x, 0, 8)
    sums, products = mc.scan((tile, tile * 2.0), 0, lambda a, b, c, d: (a + c, b * d))
    mc.store(y, 0, sums)
    mc.store(z, 0, products)
