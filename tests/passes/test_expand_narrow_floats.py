"""expand-narrow-floats: the integers that it computes with, on every number of the narrow types."""

import ml_dtypes
import numpy as np
import pytest

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes.expand_narrow_floats import ExpandNarrowFloats

from .arithmetic import function
from .helpers import check, run_passes

# Digits of the significand, exponent of the smallest step, largest number.
FORMATS = {
    "f8E4M3FN": (ml_dtypes.float8_e4m3fn, 4, -9, 448.0),
    "f8E5M2": (ml_dtypes.float8_e5m2, 3, -16, 57344.0),
    "bf16": (ml_dtypes.bfloat16, 8, -133, float.fromhex("0x1.fep127")),
    "f16": (np.float16, 11, -24, 65504.0),
}
EXPAND = ExpandNarrowFloats(tuple(FORMATS))
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered in cast")


def bits_of(array):
    return array.view(f"i{array.itemsize}")


def every(name):
    """All numbers of a format."""
    dtype = np.dtype(FORMATS[name][0])
    return np.arange(1 << 8 * dtype.itemsize, dtype=np.uint32).astype(f"u{dtype.itemsize}").view(dtype)


def nearest(x, name):
    """x (f64) as the format's nearest number, ties to even: by division into steps, which is exact."""
    dtype, digits, least, largest = FORMATS[name]
    _, exponent = np.frexp(np.where(np.isfinite(x), x, 1.0))
    step = np.ldexp(1.0, np.maximum(exponent - digits, least))
    rounded = np.where(np.isfinite(x), np.round(x / step) * step, x)
    beyond = np.nan if name == "f8E4M3FN" else np.inf
    rounded = np.where(np.abs(rounded) > largest, np.copysign(beyond, rounded), rounded)
    return rounded.astype(np.float32).astype(dtype)


def hard(name, wide):
    """All numbers of a format, the middles between them, the neighbours of both in a wide type, and others at random."""
    numbers = np.unique(every(name).astype(np.float64))
    numbers = numbers[np.isfinite(numbers)]
    largest = numbers[-1]
    step = largest - numbers[-2]
    exact = [numbers, (numbers[1:] + numbers[:-1]) / 2, largest + step * np.array([0.25, 0.5, 0.75, 1, 2])]
    exact = np.concatenate([*exact, [0.0, -0.0, 1e-44, 1e30]]).astype(wide)
    exact = np.concatenate([exact, -exact])
    near = [np.nextafter(exact, wide(toward)) for toward in (np.inf, -np.inf)]
    words = np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32).view(np.float32).astype(wide)
    return np.concatenate([exact, *near, words, np.array([np.inf, -np.inf, np.nan], wide)])


def assert_same(found, wanted):
    """Equal with the zeros' signs; NaN equals NaN."""
    np.testing.assert_array_equal(found, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


@pytest.mark.parametrize("wide", ["f32", "f64"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_number_becomes_wider(name, wide):
    extend = function(
        f"func.func @f(%x: {name}) -> {wide} {{ %y = arith.extf %x : {name} to {wide}\n return %y : {wide} }}",
        EXPAND,
    )
    x = every(name)
    assert_same(extend(bits_of(x)), x.astype({"f32": np.float32, "f64": np.float64}[wide]))


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMATS)
def test_numbers_are_rounded_once(name, wide):
    source = f"f{8 * np.dtype(wide).itemsize}"
    truncate = function(
        f"func.func @f(%x: {source}) -> {name} {{ %y = arith.truncf %x : {source} to {name}\n return %y : {name} }}",
        EXPAND,
    )
    x = hard(name, wide)
    found = truncate(x).view(FORMATS[name][0])
    assert_same(found.astype(np.float32), nearest(x.astype(np.float64), name).astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_each_operation_rounds(name):
    """(x * 1.5 + y) rounds twice; f32 holds the product, so that both roundings are those of exact results."""
    compute = function(
        f"""func.func @f(%x: {name}, %y: {name}) -> {name} {{
              %c = arith.constant 1.5 : {name}
              %a = arith.mulf %x, %c : {name}
              %b = arith.addf %a, %y : {name}
              return %b : {name} }}""",
        EXPAND,
    )
    x, y = every(name), np.random.default_rng(1).permutation(every(name))
    with np.errstate(invalid="ignore"):
        product = nearest(x.astype(np.float64) * 1.5, name).astype(np.float64)
        wanted = nearest(product + y.astype(np.float64), name)
    found = compute(bits_of(x), bits_of(y)).view(FORMATS[name][0])
    assert_same(found.astype(np.float32), wanted.astype(np.float32))


@pytest.mark.parametrize("predicate, compare", [("olt", np.less), ("oeq", np.equal), ("une", np.not_equal)])
@pytest.mark.parametrize("name", FORMATS)
def test_comparison_and_choice(name, predicate, compare):
    """Choices keep every bit, those of NaN too."""
    choose = function(
        f"""func.func @f(%x: {name}, %y: {name}) -> {name} {{
              %c = arith.cmpf {predicate}, %x, %y : {name}
              %z = arith.select %c, %x, %y : {name}
              return %z : {name} }}""",
        EXPAND,
    )
    x, y = every(name), np.random.default_rng(2).permutation(every(name))
    y[::5] = x[::5]
    holds = compare(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_array_equal(choose(bits_of(x), bits_of(y)), np.where(holds, bits_of(x), bits_of(y)))


@pytest.mark.parametrize("name", FORMATS)
def test_integers(name):
    largest = int(min(FORMATS[name][3], 1 << 20))
    there_and_back = function(
        f"""func.func @f(%x: i32) -> i32 {{
              %y = arith.sitofp %x : i32 to {name}
              %z = arith.fptosi %y : {name} to i32
              return %z : i32 }}""",
        EXPAND,
    )
    x = np.random.default_rng(3).integers(-largest, largest, 10_000).astype(np.int32)
    np.testing.assert_array_equal(there_and_back(x), nearest(x.astype(np.float64), name).astype(np.int32))


def test_f64_becomes_f16_in_one_rounding_where_f16_stays():
    truncate = function(
        "func.func @f(%x: f64) -> f16 { %y = arith.truncf %x : f64 to f16\n return %y : f16 }",
        ExpandNarrowFloats(),
    )
    x = hard("f16", np.float64)
    assert_same(truncate(x), x.astype(np.float16))


def test_memory_loops_and_choices_hold_integers():
    check(
        """
        // CHECK-LABEL: func.func @running
        // CHECK-SAME: memref<?xi16, strided<[1]>>, %{{.*}}: memref<8xi8>, %{{.*}}: vector<4xi16>, %{{.*}}: f16
        func.func @running(%x: memref<?xbf16, strided<[1]>>, %y: memref<8xf8E5M2>, %v: vector<4xbf16>, %h: f16) {
          %c0 = arith.constant 0 : index
          %c1 = arith.constant 1 : index
          %c8 = arith.constant 8 : index
          // CHECK: arith.constant 16256 : i16
          %start = arith.constant 1.0 : bf16
          // CHECK: scf.for {{.*}} -> (i16)
          %total = scf.for %i = %c0 to %c8 step %c1 iter_args(%sum = %start) -> (bf16) {
            %a = memref.load %x[%i] : memref<?xbf16, strided<[1]>>
            // CHECK: arith.addf {{.*}} : f32
            %b = arith.addf %a, %sum : bf16
            scf.yield %b : bf16
          }
          // CHECK: memref.store {{.*}} : memref<?xi16, strided<[1]>>
          memref.store %total, %x[%c0] : memref<?xbf16, strided<[1]>>
          // CHECK: math.exp {{.*}} : vector<4xf32>
          %e = math.exp %v : vector<4xbf16>
          vector.store %e, %x[%c0] : memref<?xbf16, strided<[1]>>, vector<4xbf16>
          // CHECK: arith.addf {{.*}} : f16
          %g = arith.addf %h, %h : f16
          %f = arith.truncf %g : f16 to f8E5M2
          memref.store %f, %y[%c0] : memref<8xf8E5M2>
          // CHECK-NOT: bf16
          // CHECK-NOT: f8E5M2
          return
        }
        """,
        ExpandNarrowFloats(),
    )


def test_bodies_of_linalg():
    check(
        """
        #id = affine_map<(d0) -> (d0)>
        // CHECK: func.func @f({{.*}}: tensor<8xi8>, {{.*}}: tensor<8xf32>) -> tensor<8xf32>
        func.func @f(%x: tensor<8xf8E4M3FN>, %y: tensor<8xf32>) -> tensor<8xf32> {
          // CHECK: linalg.generic
          // CHECK: bb0(%{{.*}}: i8, %{{.*}}: f32)
          // CHECK: arith.extui {{.*}} : i8 to i32
          %z = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : tensor<8xf8E4M3FN>) outs(%y : tensor<8xf32>) {
          ^bb0(%a: f8E4M3FN, %b: f32):
            %c = arith.extf %a : f8E4M3FN to f32
            linalg.yield %c : f32
          } -> tensor<8xf32>
          return %z : tensor<8xf32>
        }
        """,
        ExpandNarrowFloats(),
    )


def test_atomic_additions():
    """No processor adds bf16 in memory: read, add, write, and again if it has changed in between."""
    check(
        """
        // CHECK-LABEL: func.func @add
        func.func @add(%x: memref<8xbf16>, %y: memref<8xf32>, %v: bf16, %w: f32, %i: index) {
          // CHECK: memref.generic_atomic_rmw {{.*}} : memref<8xi16>
          // CHECK: arith.addf {{.*}} : f32
          // CHECK: memref.atomic_yield {{.*}} : i16
          %0 = memref.atomic_rmw addf %v, %x[%i] : (bf16, memref<8xbf16>) -> bf16
          // CHECK: memref.atomic_rmw addf {{.*}} : (f32, memref<8xf32>) -> f32
          %1 = memref.atomic_rmw addf %w, %y[%i] : (f32, memref<8xf32>) -> f32
          return
        }
        """,
        ExpandNarrowFloats(),
    )


def test_constants_that_are_the_same_everywhere():
    check(
        """
        func.func @f() -> tensor<4xbf16> {
          // CHECK: arith.constant dense<-16384> : tensor<4xi16>
          %c = arith.constant dense<-2.0> : tensor<4xbf16>
          return %c : tensor<4xbf16>
        }
        """,
        ExpandNarrowFloats(),
    )
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(
            "func.func @f() -> tensor<2xbf16> { %c = arith.constant dense<[1.0, 2.0]> : tensor<2xbf16>\n"
            "return %c : tensor<2xbf16> }"
        )
        with pytest.raises(ValueError, match="elements differ"):
            run_passes(module, ExpandNarrowFloats())


def test_types_that_are_not_narrow_are_refused():
    with pytest.raises(ValueError, match="f32 is not one of"):
        ExpandNarrowFloats(("f32",))
