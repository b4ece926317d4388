"""expand-squares: which instruction takes which numbers; what they compute is tested where they run."""

import pytest

from mosaic_compile.passes.expand_squares import ExpandSquares

from .helpers import check


@pytest.mark.parametrize("element,factors,name", [("f32", "8xbf16", "bfmmla"), ("i32", "16xi8", "smmla")])
def test_instructions(element, factors, name):
    words, sums = "vector<2xi64>", f"vector<4x{element}>"
    text = f"""
        // CHECK: func.func @f(%[[A:.*]]: {words}, %[[B:.*]]: {words}, %[[ACC:.*]]: {sums})
        // CHECK: %[[X:.*]] = vector.bitcast %[[A]] : {words} to vector<{factors}>
        // CHECK: %[[Y:.*]] = vector.bitcast %[[B]] : {words} to vector<{factors}>
        // CHECK: %[[R:.*]] = llvm.call_intrinsic "llvm.aarch64.neon.{name}"(%[[ACC]], %[[X]], %[[Y]])
        // CHECK-NEXT: return %[[R]]
        func.func @f(%a: {words}, %b: {words}, %acc: {sums}) -> {sums} {{
          %r = "tile.square"(%a, %b, %acc) : ({words}, {words}, {sums}) -> {sums}
          return %r : {sums}
        }}
        """
    check(text, ExpandSquares())
