"""matmul-to-vector: the register tiles of a product, for every shape, type and transpose."""

import re

import pytest

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import Upstream
from mosaic_compile.passes.matmul_to_vector import MatmulToVector
from mosaic_compile.passes.matrices import pieces

from .helpers import check, run_passes

PASS = (
    MatmulToVector(32, 16),
    Upstream("canonicalize"),
    Upstream("cse"),
)  # eight f32, tiles of 4 rows by 2 vectors


def result_of(
    m: int, n: int, k: int, a: str = "f32", c: str = "f32", batch: int = 0, registers: int = 16
) -> str:
    """The module of one product after the pass."""
    first = f"{batch}x" if batch else ""
    types = [f"memref<{first}{m}x{k}x{a}>", f"memref<{first}{k}x{n}x{a}>", f"memref<{first}{m}x{n}x{c}>"]
    name = "linalg.batch_matmul" if batch else "linalg.matmul"
    text = f"""func.func @kernel(%a: {types[0]}, %b: {types[1]}, %c: {types[2]}) {{
      {name} ins(%a, %b : {types[0]}, {types[1]}) outs(%c : {types[2]})
      return
    }}"""
    with new_context(), ir.Location.unknown():
        return str(run_passes(ir.Module.parse(text), MatmulToVector(32, registers), Upstream("canonicalize")))


def test_a_tile_of_registers():
    """The first rows read b where it is and leave a copy for the others."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[PANEL:.*]] = memref.alloc() : memref<32x16xf32>
        // CHECK: scf.for %{{.*}} = %c0 to %c4
        // CHECK: %[[SOURCE:.*]] = memref.subview %arg1
        // CHECK-COUNT-8: vector.load %arg2
        // CHECK: scf.for %[[K0:.*]] = %c0 to %c32 step %c1 iter_args
        // CHECK-COUNT-2: vector.load %[[SOURCE]][%[[K0]], %{{.*}}]
        // CHECK-COUNT-2: vector.store %{{.*}}, %[[PANEL]][%[[K0]], %{{.*}}] : memref<32x16xf32>, vector<8xf32>
        // CHECK: vector.fma
        // CHECK-COUNT-8: vector.store {{.*}}, %arg2
        // CHECK: scf.for %{{.*}} = %c1 to %c3
        // CHECK-COUNT-8: vector.load %arg2
        // CHECK: scf.for %[[K:.*]] = %c0 to %c32 step %c1 iter_args
        // CHECK-COUNT-2: vector.load %[[PANEL]][%[[K]], %{{.*}}] : memref<32x16xf32>, vector<8xf32>
        // CHECK: memref.load %arg0[%{{.*}}, %[[K]]]
        // CHECK: vector.fma
        // CHECK: scf.yield
        // CHECK-COUNT-8: vector.store {{.*}}, %arg2
        // CHECK-NOT: linalg.matmul
        func.func @kernel(%a: memref<12x32xf32>, %b: memref<32x64xf32>, %c: memref<12x64xf32>) {
          linalg.matmul ins(%a, %b : memref<12x32xf32>, memref<32x64xf32>) outs(%c : memref<12x64xf32>)
          return
        }
        """,
        *PASS,
    )


def test_few_rows_read_b_where_it_is():
    text = result_of(2, 64, 32)
    assert "memref.alloc" not in text and text.count("vector.fma") == 2 * 4


def test_many_registers_hold_more_rows():
    """Once for the first rows, once for the others."""
    assert result_of(16, 64, 32, registers=32).count("vector.fma") == 2 * 8 * 2
    assert result_of(16, 64, 32, registers=16).count("vector.fma") == 2 * 4 * 2


@pytest.mark.parametrize("size,step", [(1, 4), (4, 4), (7, 4), (8, 4), (3, 8)])
def test_pieces_cover_all_rows_once(size, step):
    covered = []
    for first, width in pieces(size, step):
        starts = range(first, size - width + 1, width) if first == 0 else [first]
        covered += [row for start in starts for row in range(start, start + width)]
    assert sorted(covered) == list(range(size))


def test_what_is_left_of_rows_and_columns():
    """37 columns by 16, then 4, then 1; 7 rows by 4, then 3."""
    text = result_of(7, 37, 5)
    widths = [int(w) for w in re.findall(r"memref\.alloc\(\) : memref<5x(\d+)xf32>", text)]
    assert widths == [16, 4, 1]
    assert text.count("vector.fma") == (4 + 3) * 2 + (4 + 3) + (4 + 3)


def test_a_single_column_is_vectors_of_one():
    assert "vector<1xf32>" in result_of(4, 1, 8)


@pytest.mark.parametrize(
    "a,c,conversion",
    [("bf16", "f32", "arith.extf"), ("i8", "i32", "arith.extsi"), ("f32", "f64", "arith.extf")],
)
def test_factors_are_converted_once(a, c, conversion):
    text = result_of(8, 16, 8, a, c)
    assert text.count(conversion) == 2  # each in the copy of its factor
    on_integers = re.search(r"arith\.muli .* : vector<8xi32>", text) is not None
    assert on_integers == (c == "i32") and ("vector.fma" in text) == (c != "i32")


def test_batches():
    text = result_of(4, 8, 8, batch=3)
    assert "linalg.batch_matmul" not in text
    assert re.search(r"memref\.subview %arg0\[%\w+, 0, 0\] \[1, 4, 8\]", text)


def test_a_transposed_left_factor_is_copied():
    check(
        """
        #a = affine_map<(m, n, k) -> (k, m)>
        #b = affine_map<(m, n, k) -> (k, n)>
        #c = affine_map<(m, n, k) -> (m, n)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[TURNED:.*]] = memref.transpose %arg0
        // CHECK: %[[ROWS:.*]] = memref.alloc() : memref<4x16xf32>
        // CHECK: linalg.generic {{.*}} ins(%[[TURNED]] {{.*}} outs(%[[ROWS]] :
        // CHECK: vector.fma
        func.func @kernel(%a: memref<16x4xf32>, %b: memref<16x8xf32>, %c: memref<4x8xf32>) {
          linalg.matmul indexing_maps = [#a, #b, #c]
            ins(%a, %b : memref<16x4xf32>, memref<16x8xf32>) outs(%c : memref<4x8xf32>)
          return
        }
        """,
        *PASS,
    )


def test_a_transposed_right_factor_is_turned_in_registers():
    """Eight rows of eight become columns in three rounds of eight shuffles."""
    check(
        """
        #a = affine_map<(m, n, k) -> (m, k)>
        #b = affine_map<(m, n, k) -> (n, k)>
        #c = affine_map<(m, n, k) -> (m, n)>
        // CHECK-LABEL: func.func @kernel
        // CHECK-COUNT-8: vector.load {{.*}} vector<8xf32>
        // CHECK-COUNT-24: vector.shuffle
        // CHECK-NOT: vector.shuffle
        // CHECK-COUNT-8: vector.store
        // CHECK: vector.fma
        func.func @kernel(%a: memref<8x16xf32>, %b: memref<16x16xf32>, %c: memref<8x16xf32>) {
          linalg.matmul indexing_maps = [#a, #b, #c]
            ins(%a, %b : memref<8x16xf32>, memref<16x16xf32>) outs(%c : memref<8x16xf32>)
          return
        }
        """,
        *PASS,
    )


def test_odd_depths_are_turned_element_by_element():
    check(
        """
        #a = affine_map<(m, n, k) -> (m, k)>
        #b = affine_map<(m, n, k) -> (n, k)>
        #c = affine_map<(m, n, k) -> (m, n)>
        // CHECK-LABEL: func.func @kernel
        // CHECK-NOT: vector.shuffle
        // CHECK: linalg.generic
        // CHECK-NOT: vector.shuffle
        // CHECK: vector.fma
        func.func @kernel(%a: memref<8x7xf32>, %b: memref<16x7xf32>, %c: memref<8x16xf32>) {
          linalg.matmul indexing_maps = [#a, #b, #c]
            ins(%a, %b : memref<8x7xf32>, memref<16x7xf32>) outs(%c : memref<8x16xf32>)
          return
        }
        """,
        *PASS,
    )
