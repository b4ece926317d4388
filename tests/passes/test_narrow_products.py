"""narrow-products: which products become words of two or four neighbours, and how these are made."""

import re

import pytest

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import Upstream
from mosaic_compile.passes.narrow_products import NarrowProducts

from .helpers import check, run_passes

X86 = NarrowProducts("avx512bf16", "vnni", 64, 32)
ARM = NarrowProducts("bfdot", "sdot", 16, 32)
SQUARES = NarrowProducts("bfdot", "sdot", 16, 32, squares=True)


def result_of(m, n, k, a="bf16", c="f32", batch="", using=X86) -> str:
    """The module of one product after the pass."""
    types = [f"memref<{batch}{m}x{k}x{a}>", f"memref<{batch}{k}x{n}x{a}>", f"memref<{batch}{m}x{n}x{c}>"]
    name = "linalg.batch_matmul" if batch else "linalg.matmul"
    text = f"""func.func @kernel(%a: {types[0]}, %b: {types[1]}, %c: {types[2]}) {{
      {name} ins(%a, %b : {types[0]}, {types[1]}) outs(%c : {types[2]})
      return
    }}"""
    with new_context(), ir.Location.unknown():
        return str(run_passes(ir.Module.parse(text), using, Upstream("canonicalize"), Upstream("cse")))


def test_pairs_of_bf16():
    """b's rows become words of two neighbours along K; a is read where it lies."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[PANEL:.*]] = memref.alloc() : memref<16x32xi32>
        // CHECK: scf.for %{{.*}} = %c0 to %c16
        // CHECK-COUNT-2: vector.load %arg1{{.*}} vector<16xbf16>
        // CHECK: vector.interleave
        // CHECK: vector.store {{.*}} %[[PANEL]]
        // CHECK: scf.for %{{.*}} = %c0 to %c16 step %c8
        // CHECK-COUNT-16: vector.load %arg2
        // CHECK: scf.for %[[K:.*]] = %c0 to %c16 step %c1 iter_args
        // CHECK-COUNT-2: vector.load %[[PANEL]]
        // CHECK: vector.load %arg0[%{{.*}}, %{{.*}}] : memref<16x32xbf16>, vector<2xbf16>
        // CHECK: vector.broadcast {{.*}} : i32 to vector<16xi32>
        // CHECK-COUNT-16: tile.dot2
        // CHECK: scf.yield
        // CHECK-COUNT-16: vector.store {{.*}} %arg2
        // CHECK-NOT: linalg.matmul
        func.func @kernel(%a: memref<16x32xbf16>, %b: memref<32x32xbf16>, %c: memref<16x32xf32>) {
          linalg.matmul ins(%a, %b : memref<16x32xbf16>, memref<32x32xbf16>) outs(%c : memref<16x32xf32>)
          return
        }
        """,
        X86,
        Upstream("canonicalize"),
        Upstream("cse"),
    )


def test_signed_bytes_where_the_left_ones_have_no_sign():
    """a + 128 is copied; 128 times the sums of b's columns are taken from what the result starts with."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK-DAG: %[[TOP:.*]] = arith.constant dense<-2139062144>
        // CHECK: %[[COPY:.*]] = memref.alloc() : memref<16x32xi8>
        // CHECK: linalg.generic
        // CHECK: arith.xori {{.*}}, %c-128_i8
        // CHECK: memref.alloc() : memref<8x32xi32>
        // CHECK: %[[BIAS:.*]]:8 = scf.for
        // CHECK-COUNT-8: "tile.dot4"(%[[TOP]], {{.*}}) {signed = false}
        // CHECK: %[[TWO:.*]] = arith.addi %[[BIAS]]#0, %[[BIAS]]#2
        // CHECK: %[[THREE:.*]] = arith.addi %[[TWO]], %[[BIAS]]#4
        // CHECK: %[[FOUR:.*]] = arith.addi %[[THREE]], %[[BIAS]]#6
        // CHECK: arith.subi {{.*}}, %[[FOUR]]
        // CHECK: vector.load {{.*}} vector<4xi8>
        // CHECK-COUNT-16: {signed = false}
        // CHECK-NOT: tile.dot4
        func.func @kernel(%a: memref<16x32xi8>, %b: memref<32x32xi8>, %c: memref<16x32xi32>) {
          linalg.matmul ins(%a, %b : memref<16x32xi8>, memref<32x32xi8>) outs(%c : memref<16x32xi32>)
          return
        }
        """,
        X86,
        Upstream("canonicalize"),
        Upstream("cse"),
    )


def test_signed_bytes():
    text = result_of(16, 8, 32, "i8", "i32", using=ARM)
    assert text.count("signed = true") == 16 and "signed = false" not in text
    assert "arith.xori" not in text and "arith.subi" not in text


def test_few_rows_read_b_where_it_is():
    text = result_of(2, 64, 32)
    assert "memref.alloc" not in text and text.count("tile.dot2") == 2 * 4


def test_a_depth_of_no_whole_words_is_padded_with_zeros():
    text = result_of(16, 32, 7, "i8", "i32", using=ARM)
    assert re.findall(r"memref\.alloc\(\) : memref<(\w+xi8)>", text) == ["16x8xi8", "8x32xi8"]
    assert "memref<2x8xi32>" in text


def test_what_is_left_of_columns():
    """44 columns: 32, then 8, then 4."""
    text = result_of(16, 44, 8)
    assert re.findall(r"memref<4x(\d+)xi32>$", text, re.MULTILINE) == ["32", "8", "4"]


def test_batches():
    text = result_of(4, 8, 8, batch="3x")
    assert "linalg.batch_matmul" not in text and "tile.dot2" in text
    assert re.search(r"memref\.subview %arg0\[%\w+, 0, 0\] \[1, 4, 8\]", text)


def test_a_transposed_right_factor_is_turned_word_by_word():
    """Rows of eight words, which are sixteen numbers, become columns in three rounds of eight shuffles."""
    check(
        """
        #a = affine_map<(m, n, k) -> (m, k)>
        #b = affine_map<(m, n, k) -> (n, k)>
        #c = affine_map<(m, n, k) -> (m, n)>
        // CHECK-LABEL: func.func @kernel
        // CHECK-COUNT-8: vector.load {{.*}} vector<16xbf16>
        // CHECK-COUNT-24: vector.shuffle {{.*}} vector<8xi32>
        // CHECK-NOT: vector.shuffle
        // CHECK-COUNT-8: vector.store
        // CHECK: tile.dot2
        func.func @kernel(%a: memref<8x16xbf16>, %b: memref<16x16xbf16>, %c: memref<8x16xf32>) {
          linalg.matmul indexing_maps = [#a, #b, #c]
            ins(%a, %b : memref<8x16xbf16>, memref<16x16xbf16>) outs(%c : memref<8x16xf32>)
          return
        }
        """,
        NarrowProducts("avx512bf16", "vnni", 32, 32),
    )


@pytest.mark.parametrize(
    "columns,a,c,using",
    [
        (32, "f32", "f32", X86),
        (32, "f16", "f32", X86),
        (32, "bf16", "f32", NarrowProducts("", "vnni")),
        (32, "i8", "i32", NarrowProducts("avx512bf16", "pmaddwd")),
        (32, "i8", "i32", NarrowProducts("", "")),
        (2, "bf16", "f32", X86),
        (37, "i8", "i32", ARM),
    ],
)
def test_other_products_are_left_as_they_are(columns, a, c, using):
    text = result_of(8, columns, 8, a, c, using=using)
    assert "linalg.matmul" in text and "tile.dot" not in text


def test_squares_of_two_rows_and_two_columns():
    """8 rows by 8 columns are 16 squares; each step reads four pairs of rows of a and four pairs of columns of b."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[PANEL:.*]] = memref.alloc() : memref<4x8xi64>
        // CHECK: vector.store {{.*}} vector<4xi64>
        // CHECK: vector.shuffle {{.*}} [0, 1, 4, 5] : vector<4xi32>, vector<4xi32>
        // CHECK: vector.shuffle {{.*}} [2, 3, 6, 7] : vector<4xi32>, vector<4xi32>
        // CHECK: scf.for %[[K:.*]] = %c0 to %c4 step %c1 iter_args
        // CHECK-COUNT-4: vector.load %[[PANEL]][%[[K]], %{{.*}}] : memref<4x8xi64>, vector<2xi64>
        // CHECK-COUNT-2: vector.load %arg0{{.*}} vector<8xi8>
        // CHECK-COUNT-16: tile.square
        // CHECK-NOT: tile.square
        // CHECK: vector.shuffle {{.*}} [0, 1, 4, 5] : vector<4xi32>, vector<4xi32>
        func.func @kernel(%a: memref<8x32xi8>, %b: memref<32x8xi8>, %c: memref<8x8xi32>) {
          linalg.matmul ins(%a, %b : memref<8x32xi8>, memref<32x8xi8>) outs(%c : memref<8x8xi32>)
          return
        }
        """,
        SQUARES,
        Upstream("canonicalize"),
        Upstream("cse"),
    )


@pytest.mark.parametrize("rows", [2, 7])
def test_rows_that_make_no_squares(rows):
    text = result_of(rows, 32, 8, using=SQUARES)
    assert "tile.square" not in text and "tile.dot2" in text
