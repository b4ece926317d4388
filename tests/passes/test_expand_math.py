"""expand-math: every function's error over all of f32, in units of the last place, and what it does at the edges."""

import ml_dtypes
import numpy as np
import pytest
from scipy.special import erf

from mosaic_compile.passes import Upstream
from mosaic_compile.passes.expand_math import ExpandMath
from mosaic_compile.passes.expand_narrow_floats import ExpandNarrowFloats

from .arithmetic import function
from .helpers import check

# The reference in f64; the largest error of all f32 (see expand_math.py) with and without fused operations.
FUNCTIONS = {
    "exp": (np.exp, 0.89, 0.9),
    "exp2": (np.exp2, 0.88, 1.1),
    "expm1": (np.expm1, 1.06, 1.21),
    "log": (np.log, 0.89, 0.89),
    "log2": (np.log2, 1.17, 1.33),
    "log1p": (np.log1p, 0.97, 0.97),
    "tanh": (np.tanh, 0.98, 1.16),
    "erf": (erf, 1.1, 1.19),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.501, 0.501),
    "sin": (np.sin, 0.87, 0.9),
    "cos": (np.cos, 0.88, 0.94),
}
EDGES = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 1e-45, -1e-45, 1.1754944e-38, 1e-39, 3.4028235e38, -3.4028235e38,
    88.72283, 88.72284, -103.97, -104.0, 127.99999, 128.0, -149.0, -149.5, -150.0, -126.5, 1e30, -1e30,
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero) encountered")


def compiled(name, dtype, fma=True):
    text = f"func.func @f(%x: {dtype}) -> {dtype} {{ %y = math.{name} %x : {dtype}\n return %y : {dtype} }}"
    return function(text, ExpandMath(fma))


def errors(found, wanted, digits, least):
    """In units of the last place of finite results; infinities, NaN and the signs of zeros must be right."""
    dtype = found.dtype.type
    rounded = wanted.astype(dtype)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    numbers = ~np.isnan(rounded)
    found, wanted, rounded = found[numbers], wanted[numbers], rounded[numbers]
    np.testing.assert_array_equal(np.isinf(found), np.isinf(rounded))
    same_sign = np.signbit(found) == np.signbit(rounded)
    assert np.all(same_sign)
    finite = np.isfinite(rounded)
    _, exponent = np.frexp(wanted[finite])
    unit = np.ldexp(1.0, np.maximum(exponent - digits, least))
    return np.abs(found[finite].astype(np.float64) - wanted[finite]) / unit


@pytest.mark.parametrize("fma", [True, False], ids=["fma", "no fma"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_of_f32(name, fma):
    """Every 4001st number, the neighbourhood of 1, where results are smallest, and the edges."""
    reference, *bounds = FUNCTIONS[name]
    f = compiled(name, "f32", fma)
    sampled = np.arange(0, 1 << 32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near_one = (
        (np.float32(1).view(np.uint32) + np.arange(-200_000, 200_000, 7)).astype(np.uint32).view(np.float32)
    )
    x = np.concatenate([sampled, near_one, -near_one, np.array(EDGES, np.float32)])
    with np.errstate(all="ignore"):
        wanted = reference(x.astype(np.float64))
    assert errors(f(x), wanted, 24, -149).max() <= bounds[0 if fma else 1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_of_f16(name):
    """By way of f32: half a unit of f16, and what f32's error adds."""
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(all="ignore"):
        wanted = FUNCTIONS[name][0](x.astype(np.float64))
    assert errors(compiled(name, "f16")(x), wanted, 11, -24).max() <= 0.5 + 1.2 * 2**-13


F64 = {
    "exp": (1.0, [(-1, 1), (-745, 709.7)]),
    "exp2": (1.0, [(-1, 1), (-1074, 1023.9)]),
    "expm1": (1.0, [(-1, 1), (-40, 709), (-1e-5, 1e-5)]),
    "log": (0.85, [(0.5, 2), (1e-300, 1e300), (1e-320, 1e-310)]),
    "log2": (1.2, [(0.5, 2), (1e-300, 1e300), (1e-320, 1e-310)]),
    "log1p": (0.9, [(-0.9, 2), (-1e-3, 1e-3), (1, 1e300)]),
    "tanh": (1.1, [(-1.2, 1.2), (-20, 20)]),
    "erf": (1.0, [(-1.2, 1.2), (-6, 6)]),
}


@pytest.mark.parametrize("fma", [True, False], ids=["fma", "no fma"])
@pytest.mark.parametrize("name", F64)
def test_f64(name, fma):
    mpmath = pytest.importorskip("mpmath")
    reference = {"exp2": lambda x: mpmath.mpf(2) ** x, "log2": lambda x: mpmath.log(x, 2)}.get(name)
    reference = reference or getattr(mpmath, name)
    bound, intervals = F64[name]
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(a, b, 300) for a, b in intervals])
    found = compiled(name, "f64", fma)(x)
    with mpmath.workdps(40):
        for argument, result in zip(x, found):
            wanted = reference(mpmath.mpf(float(argument)))
            unit = mpmath.mpf(2) ** max(mpmath.frexp(wanted)[1] - 53, -1074)
            assert abs(mpmath.mpf(float(result)) - wanted) <= bound * unit, argument


@pytest.mark.parametrize("name", F64)
def test_edges_of_f64(name):
    x = np.array(
        [
            0.0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
            1.0,
            -1.0,
            5e-324,
            -5e-324,
            1e308,
            -1e308,
            709.79,
            -745.2,
            1024.0,
        ]
    )
    with np.errstate(all="ignore"):
        wanted = FUNCTIONS[name][0](x)
        found = compiled(name, "f64")(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-15, atol=0)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


def test_huge_angles():
    """Numbers that are next to a multiple of pi/2 (J.-M. Muller, "Elementary Functions", 11.3.2), the largest ones."""
    mpmath = pytest.importorskip("mpmath")
    largest = np.finfo(np.float32).max
    x = np.array(
        [16367173 * 2.0**72, 12345678 * 2.0**60, 8388609 * 2.0**104, largest, -largest, 1e15, 710.0],
        np.float32,
    )
    for name in ("sin", "cos"):
        found = compiled(name, "f32")(x)
        with mpmath.workdps(80):
            wanted = np.array([float(getattr(mpmath, name)(mpmath.mpf(float(v)))) for v in x])
        assert errors(found, wanted, 24, -149).max() <= 0.9


WITHOUT = ExpandMath(fma=False, rounding=False)
TYPES = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_fma_rounds_once(name):
    """Against the interpreter's, which tests/interpreter checks with exact fractions; half of the sums cancel."""
    text = f"""func.func @f(%a: {name}, %b: {name}, %c: {name}) -> {name} {{
        %y = math.fma %a, %b, %c : {name}
        return %y : {name} }}"""
    dtype = np.dtype(TYPES[name])
    word, rng = f"i{dtype.itemsize}", np.random.default_rng(0)
    a, b, c = (rng.integers(0, 256, (100_000, dtype.itemsize), np.uint8).view(dtype)[:, 0] for _ in range(3))
    c[::2] = -(a.astype(np.float64) * b.astype(np.float64)).astype(np.float32).astype(dtype)[::2]
    wanted = function(text)(a, b, c)
    if name == "f32":
        found = function(text, WITHOUT)(a, b, c)
    else:  # NumPy's bf16 is rounded from f64 by way of f32
        expanded = function(text, WITHOUT, ExpandNarrowFloats(("bf16", "f16")))
        found = expanded(*(x.view(word) for x in (a, b, c))).view(dtype)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16"])
@pytest.mark.parametrize(
    "name, reference", [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc), ("roundeven", np.rint)]
)
def test_whole_numbers(name, reference, dtype):
    f = function(
        f"func.func @f(%x: {dtype}) -> {dtype} {{ %y = math.{name} %x : {dtype}\n return %y : {dtype} }}",
        WITHOUT,
    )
    rng = np.random.default_rng(0)
    halves = np.arange(-64, 64) / 2
    edges = [
        -0.0,
        0.3,
        -0.3,
        -0.7,
        np.inf,
        -np.inf,
        np.nan,
        2.0**23 - 0.5,
        2.0**23,
        2.0**24 - 1,
        2.0**52 - 0.5,
        2.0**52,
    ]
    words = rng.integers(0, 1 << 32, 100_000, np.uint32).view(np.float32)
    x = np.concatenate([words, halves, np.nextafter(halves, 1), edges]).astype(TYPES[dtype])
    found, wanted = f(x), reference(x)
    np.testing.assert_array_equal(found, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


@pytest.mark.parametrize("name, reference", [("sqrt", np.sqrt), ("rsqrt", lambda x: 1 / np.sqrt(x))])
def test_roots_without_instructions(name, reference):
    text = f"func.func @f(%x: f32) -> f32 {{ %y = math.{name} %x : f32\n return %y : f32 }}"
    sampled = np.arange(0, 1 << 32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([sampled, np.array(EDGES, np.float32)])
    with np.errstate(all="ignore"):
        wanted = reference(x.astype(np.float64))
    assert errors(function(text, ExpandMath(sqrt=False))(x), wanted, 24, -149).max() <= 0.5 + 2**-20


def test_what_is_expanded():
    check(
        """
        // CHECK-LABEL: func.func @f
        func.func @f(%x: vector<8xf32>, %h: bf16, %d: f64) -> (vector<8xf32>, bf16, f64) {
          // CHECK: arith.constant dense<{{.*}}> : vector<8xf32>
          // CHECK-NOT: math.exp
          // CHECK: math.fma {{.*}} : vector<8xf32>
          %y = math.exp %x : vector<8xf32>
          // CHECK: arith.extf {{.*}} : bf16 to f32
          // CHECK-NOT: math.tanh
          // CHECK: arith.truncf {{.*}} : f32 to bf16
          %t = math.tanh %h : bf16
          // CHECK: math.sin {{.*}} : f64
          %s = math.sin %d : f64
          return %y, %t, %s : vector<8xf32>, bf16, f64
        }
        """,
        ExpandMath(),
    )


def test_without_fused_operations():
    check(
        """
        // CHECK-LABEL: func.func @f
        func.func @f(%x: f32, %v: vector<4xf32>) -> (f32, vector<4xf32>) {
          // CHECK-NOT: math.fma
          %y = math.exp %x : f32
          // CHECK: arith.mulf {{.*}} : vector<4xf32>
          // CHECK-NEXT: arith.addf {{.*}} : vector<4xf32>
          // CHECK-NOT: vector.fma
          // CHECK: return
          %z = vector.fma %v, %v, %v : vector<4xf32>
          return %y, %z : f32, vector<4xf32>
        }
        """,
        ExpandMath(fma=False),
    )


def test_instructions_of_avx512():
    check(
        """
        // CHECK-LABEL: func.func @f
        func.func @f(%v: vector<16xf32>, %d: vector<8xf64>, %c: vector<8xf64>, %h: vector<8xf32>, %g: vector<8xf32>, %s: f32)
            -> (vector<16xf32>, vector<16xf32>, vector<8xf64>, vector<8xf32>, f32) {
          // CHECK-NOT: arith.shli
          // CHECK: llvm.call_intrinsic "llvm.x86.avx512.mask.scalef.ps.512"({{.*}})
          %e = math.exp %v : vector<16xf32>
          // CHECK: %[[ORDERED:.*]] = arith.cmpf ord, %arg0, %[[E:.*]] : vector<16xf32>
          // CHECK: %[[LARGER:.*]] = llvm.call_intrinsic "llvm.x86.avx512.mask.range.ps.512"(%arg0, %[[E]], %c5_i32,
          // CHECK: %[[NAN:.*]] = arith.addf %arg0, %[[E]]
          // CHECK: arith.select %[[ORDERED]], %[[LARGER]], %[[NAN]]
          %m = arith.maximumf %v, %e : vector<16xf32>
          // CHECK: llvm.call_intrinsic "llvm.x86.avx512.mask.range.pd.512"(%arg1, %arg2, %c4_i32,
          %n = arith.minimumf %d, %c : vector<8xf64>
          // CHECK: arith.maximumf %arg3, %arg4 : vector<8xf32>
          %o = arith.maximumf %h, %g : vector<8xf32>
          // CHECK-NOT: llvm.call_intrinsic
          %t = math.exp %s : f32
          return %e, %m, %n, %o, %t : vector<16xf32>, vector<16xf32>, vector<8xf64>, vector<8xf32>, f32
        }
        """,
        ExpandMath(avx512=True),
        Upstream("canonicalize"),
        Upstream("cse"),
    )
