"""expand-dot2: which instruction takes which vectors; what they compute is tested where they run."""

import pytest

from mosaic_compile.passes.expand_dot2 import ExpandDot2

from .helpers import check


@pytest.mark.parametrize(
    "unit,lanes,name",
    [
        ("avx512bf16", 4, "llvm.x86.avx512bf16.dpbf16ps.128"),
        ("avx512bf16", 8, "llvm.x86.avx512bf16.dpbf16ps.256"),
        ("avx512bf16", 16, "llvm.x86.avx512bf16.dpbf16ps.512"),
        ("bfdot", 4, "llvm.aarch64.neon.bfdot"),
    ],
)
def test_instructions(unit, lanes, name):
    words, sums = f"vector<{lanes}xi32>", f"vector<{lanes}xf32>"
    text = f"""
        // CHECK: func.func @f(%[[A:.*]]: {words}, %[[B:.*]]: {words}, %[[ACC:.*]]: {sums})
        // CHECK: %[[X:.*]] = vector.bitcast %[[A]] : {words} to vector<{2 * lanes}xbf16>
        // CHECK: %[[Y:.*]] = vector.bitcast %[[B]] : {words} to vector<{2 * lanes}xbf16>
        // CHECK: %[[R:.*]] = llvm.call_intrinsic "{name}"(%[[ACC]], %[[X]], %[[Y]])
        // CHECK-NEXT: return %[[R]]
        func.func @f(%a: {words}, %b: {words}, %acc: {sums}) -> {sums} {{
          %r = "tile.dot2"(%a, %b, %acc) : ({words}, {words}, {sums}) -> {sums}
          return %r : {sums}
        }}
        """
    check(text, ExpandDot2(unit))
