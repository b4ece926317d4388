"""tile-to-tt: the form of what comes out; that it computes the same is tested in tests/lowering."""

import json

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.passes import ChooseMemoryPath, PropagateDivisibility, TileToTT

from .helpers import PREPARE, SIMPLIFY, checked, run_passes

WITHOUT_TMA = (*PREPARE, PropagateDivisibility(), ChooseMemoryPath(), TileToTT(), *SIMPLIFY)
WITH_TMA = (*PREPARE, PropagateDivisibility(), ChooseMemoryPath(tma=True), TileToTT(), *SIMPLIFY)


@checked(*WITHOUT_TMA)
@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def test_vector(x: mc.f32["N"], y: mc.f32["N"]):
    # Start offsets have 64 bits, those within the tile 32; the mask compares with what is left of the array.
    # CHECK:      ^bb0(%[[X:.*]]: !tt.ptr<f32>, %[[Y:.*]]: !tt.ptr<f32>, %[[N:.*]]: i32):
    # CHECK-DAG:  %[[ZERO:.*]] = arith.constant dense<0.000000e+00> : tensor<16xf32>
    # CHECK:      %[[PID:.*]] = "tt.get_program_id"() {axis = 0 : i32}
    # CHECK:      %[[START:.*]] = arith.muli %[[PID]]
    # CHECK:      %[[RANGE:.*]] = "tt.make_range"() {end = 16 : i32, start = 0 : i32}
    # CHECK:      %[[LEFT:.*]] = arith.subi %[[N]], %[[START]]
    # CHECK:      %[[SPLAT:.*]] = "tt.splat"(%[[LEFT]])
    # CHECK:      %[[MASK:.*]] = arith.cmpi slt, %[[RANGE]], %[[SPLAT]]
    # CHECK:      %[[WIDE:.*]] = arith.extsi %[[START]] : i32 to i64
    # CHECK:      %[[FIRST:.*]] = "tt.addptr"(%[[X]], %[[WIDE]]) : (!tt.ptr<f32>, i64)
    # CHECK:      %[[POINTERS:.*]] = "tt.splat"(%[[FIRST]])
    # CHECK:      %[[PLACES:.*]] = "tt.addptr"(%[[POINTERS]], %[[RANGE]]) : (tensor<16x!tt.ptr<f32>>, tensor<16xi32>)
    # CHECK:      %[[VALUE:.*]] = "tt.load"(%[[PLACES]], %[[MASK]], %[[ZERO]])
    # CHECK:      "tt.store"({{.*}}, %[[VALUE]], %[[MASK]])
    # CHECK:      arg_attrs = [{tt.divisibility = 16 : i32}, {tt.divisibility = 16 : i32}, {}]
    # CHECK-SAME: mosaic.grid = ["cdiv(N, 16)"]
    i = mc.program_id(0)
    mc.store(y, i, mc.load(x, i, 16))


@checked(*WITHOUT_TMA, multiples={"N": 16})
@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def test_in_bounds(x: mc.f32["N"], y: mc.f32["N"]):
    # CHECK-NOT: arith.cmpi
    # CHECK:     "tt.load"(%{{[0-9]+}}) {
    # CHECK:     "tt.store"(%{{[0-9]+}}, %{{[0-9]+}}) {
    i = mc.program_id(0)
    mc.store(y, i, mc.load(x, i, 16))


@checked(*WITHOUT_TMA)
@mc.kernel
def test_unknown_place(x: mc.f32["N"], o: mc.i32, y: mc.f32[16]):
    # Before the start, too, nothing is read.
    # CHECK: %[[PLACE:.*]] = arith.addi {{.*}} : tensor<16xi32>
    # CHECK: %[[ABOVE:.*]] = arith.cmpi sge, %[[PLACE]]
    # CHECK: %[[BELOW:.*]] = arith.cmpi slt, %[[PLACE]]
    # CHECK: %[[MASK:.*]] = arith.andi %[[ABOVE]], %[[BELOW]]
    # CHECK: "tt.load"(%{{.*}}, %[[MASK]], %{{.*}})
    mc.store(y, 0, mc.load(x, offset=o, shape=16))


@checked(*WITHOUT_TMA)
@mc.kernel
def test_bool(x: mc.bool_[16], y: mc.bool_[16]):
    # CHECK: %[[BYTES:.*]] = "tt.load"{{.*}} -> tensor<16xi8>
    # CHECK: %[[BITS:.*]] = arith.cmpi ne, %[[BYTES]], %{{.*}} : tensor<16xi8>
    # CHECK: %[[NOT:.*]] = arith.xori %[[BITS]]
    # CHECK: %[[BACK:.*]] = arith.extui %[[NOT]] : tensor<16xi1> to tensor<16xi8>
    # CHECK: "tt.store"(%{{.*}}, %[[BACK]])
    mc.store(y, 0, ~mc.load(x, 0, 16))


@checked(*WITHOUT_TMA)
@mc.kernel
def test_packed(x: mc.i4[32], y: mc.i8[32]):
    # CHECK: %[[BYTES:.*]] = "tt.load"{{.*}} -> tensor<16xi8>
    # CHECK: %[[UP:.*]] = arith.shli %[[BYTES]]
    # CHECK: %[[LOW:.*]] = arith.shrsi %[[UP]]
    # CHECK: %[[HIGH:.*]] = arith.shrsi %[[BYTES]]
    # CHECK: %[[PAIRS:.*]] = "tt.join"(%[[LOW]], %[[HIGH]]) {{.*}} -> tensor<16x2xi8>
    # CHECK: "tt.reshape"(%[[PAIRS]]) {{.*}} -> tensor<32xi8>
    mc.store(y, 0, mc.load(x, 0, 32).to(mc.i8))


@checked(*WITHOUT_TMA)
@mc.kernel
def test_narrow_function(x: mc.bf16[16]):
    # CHECK: arith.extf {{.*}} : tensor<16xbf16> to tensor<16xf32>
    # CHECK: math.exp {{.*}} : tensor<16xf32>
    # CHECK: arith.truncf {{.*}} : tensor<16xf32> to tensor<16xbf16>
    # CHECK: "tt.extern_elementwise"{{.*}}symbol = "__nv_tanhf"
    mc.store(x, 0, mc.tanh(mc.exp(mc.load(x, 0, 16))))


@checked(*WITHOUT_TMA)
@mc.kernel
def test_loop_options(x: mc.f32["N"], y: mc.f32[16]):
    # CHECK: scf.for
    # CHECK: } {tt.num_stages = 4 : i32}
    total = mc.zeros(16, mc.f32)
    for i in mc.range(mc.cdiv(x.shape[0], 16), num_stages=4):
        total = total + mc.load(x, i, 16)
    mc.store(y, 0, total)


@checked(*WITH_TMA)
@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 32)))
def test_descriptors(a: mc.bf16["M", "K"], b: mc.bf16["N", "K"], c: mc.bf16["M", "N"]):
    # What is read transposed is loaded as it lies in memory.
    # CHECK: ^bb0(%[[A:[a-z0-9]+]]: !tt.tensordesc<tensor<64x16xbf16>>, %[[B:[a-z0-9]+]]: !tt.tensordesc<tensor<32x16xbf16>>, %[[C:[a-z0-9]+]]: !tt.tensordesc<tensor<64x32xbf16>>
    # CHECK: "tt.descriptor_load"(%[[A]], {{.*}} -> tensor<64x16xbf16>
    # CHECK: %[[ROWS:.*]] = "tt.descriptor_load"(%[[B]], {{.*}} -> tensor<32x16xbf16>
    # CHECK: %[[COLUMNS:.*]] = "tt.trans"(%[[ROWS]]) {order = array<i32: 1, 0>}
    # CHECK: "tt.dot"(%{{.*}}, %[[COLUMNS]], %{{.*}}) {inputPrecision = 2 : i32, maxNumImpreciseAcc = 0 : i32}
    # CHECK: "tt.descriptor_store"(%[[C]]
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((64, 32), mc.f32)
    for k in range(mc.cdiv(a.shape[1], 16)):
        acc = mc.dot(mc.load(a, (m, k), (64, 16)), mc.load(b.T, (k, n), (16, 32)), acc)
    mc.store(c, (m, n), acc.to(c.dtype))


def test_arguments():
    """What a launcher passes: pointers, descriptors, scalars, dimensions, strides, each once."""

    @mc.kernel(grid=lambda M, N: (M, N))
    def kernel(a: mc.bf16["M", "K"], s: mc.f32, b: mc.f32["K", 32], c: mc.f32["M", "N"]):
        tile = mc.load(a, (0, 0), (64, 32))
        product = mc.dot(tile, mc.load(b, (0, 0), (32, 32)).to(mc.bf16))
        mc.store(c, (0, 0), product * s * mc.gather(b, (0, 0)))

    module = run_passes(trace(kernel, kernel.specialize()), *WITH_TMA)
    (function,) = (op.operation for op in module.body.operations)
    assert json.loads(function.attributes["mosaic.arguments"].value) == [
        {"kind": "pointer", "array": "b", "block": [1, 1]},
        {"kind": "descriptor", "array": "a", "axes": [0, 1], "box": [64, 32]},
        {"kind": "descriptor", "array": "b", "axes": [0, 1], "box": [32, 32]},
        {"kind": "descriptor", "array": "c", "axes": [0, 1], "box": [64, 32]},
        {"kind": "scalar", "name": "s", "dtype": "f32"},
        {"kind": "dim", "name": "M"},
        {"kind": "dim", "name": "K"},
        {"kind": "dim", "name": "N"},
    ]
