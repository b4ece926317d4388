"""expand-dot4: which instruction takes which bytes, by its name; what they compute is tested where they run."""

import pytest

from mosaic_compile.passes import Upstream
from mosaic_compile.passes.expand_dot4 import ExpandDot4

from .helpers import check


def function(body, lanes=16):
    words = f"vector<{lanes}xi32>"
    text = f"""
func.func @f(%a: {words}, %b: {words}, %acc: {words}) -> {words} {{
{body}
  return %r : {words}
}}"""
    types = f"({words}, {words}, {words}) -> {words}"
    return text.replace("DOT4", '"tile.dot4"').replace("TYPES", types).replace("WORDS", words)


UNSIGNED = "%r = DOT4(%a, %b, %acc) {signed = false} : TYPES"
SIGNED = "%r = DOT4(%a, %b, %acc) {signed = true} : TYPES"
MASKED = """
  %mask = arith.constant dense<252645135> : WORDS
  %low = arith.andi %a, %mask : WORDS
  %r = DOT4(%low, %b, %acc) {signed = SIGNED} : TYPES
"""


def test_vnni_takes_unsigned_bytes_as_they_are():
    text = """
  // CHECK: func.func @f(%[[A:.*]]: vector<16xi32>, %[[B:.*]]: vector<16xi32>, %[[ACC:.*]]: vector<16xi32>)
  // CHECK-DAG: %[[X:.*]] = vector.bitcast %[[A]] : vector<16xi32> to vector<64xi8>
  // CHECK-DAG: %[[Y:.*]] = vector.bitcast %[[B]] : vector<16xi32> to vector<64xi8>
  // CHECK: %[[R:.*]] = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[ACC]], %[[X]], %[[Y]])
  // CHECK-NEXT: return %[[R]]
"""
    check(function(UNSIGNED) + text, ExpandDot4("vnni", 64))


def test_vnni_takes_what_is_too_much_of_signed_bytes_away_once():
    """Two products in a chain: one subtraction at its end."""
    body = """
  %first = DOT4(%a, %b, %acc) {signed = true} : TYPES
  %r = DOT4(%b, %a, %first) {signed = true} : TYPES
  // CHECK: func.func @f(%[[A:.*]]: vector<16xi32>, %[[B:.*]]: vector<16xi32>, %[[ACC:.*]]: vector<16xi32>)
  // CHECK-DAG: %[[ZERO:.*]] = arith.constant dense<0>
  // CHECK-DAG: %[[TOP:.*]] = arith.constant dense<-2139062144>
  // CHECK: arith.xori %[[A]], %[[TOP]]
  // CHECK: %[[MAIN:.*]] = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[ACC]],
  // CHECK: %[[TAKEN:.*]] = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[ZERO]],
  // CHECK-NOT: arith.subi
  // CHECK: arith.xori %[[B]], %[[TOP]]
  // CHECK: %[[MAIN2:.*]] = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[MAIN]],
  // CHECK: %[[TAKEN2:.*]] = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%[[TAKEN]],
  // CHECK: %[[R:.*]] = arith.subi %[[MAIN2]], %[[TAKEN2]]
  // CHECK-NEXT: return %[[R]]
"""
    check(function(body), ExpandDot4("vnni", 64), Upstream("canonicalize"))


# The unit, the vectors' bytes, the lanes, the bytes, and what multiplies them.
INSTRUCTIONS = [
    ("vnni", 32, 8, UNSIGNED, "llvm.x86.avx512.vpdpbusd.256"),
    ("vnni", 64, 4, UNSIGNED, "llvm.x86.avx512.vpdpbusd.128"),
    ("pmaddwd", 32, 8, SIGNED, "llvm.x86.avx2.pmadd.wd"),
    ("pmaddwd", 64, 16, UNSIGNED, "llvm.x86.avx512.pmaddw.d.512"),
    ("pmaddwd", 32, 8, MASKED, "llvm.x86.avx2.pmadd.ub.sw"),
    ("sdot", 16, 4, SIGNED, "llvm.aarch64.neon.sdot"),
    ("sdot", 16, 4, MASKED, "llvm.aarch64.neon.sdot"),
    ("wasm", 16, 4, SIGNED, "llvm.wasm.dot"),
    ("hvx", 128, 32, SIGNED, "llvm.hexagon.V6.vrmpybv.acc.128B"),
    ("hvx", 128, 32, MASKED, "llvm.hexagon.V6.vrmpybv.acc.128B"),
    ("hvx", 128, 32, UNSIGNED, "llvm.hexagon.V6.vrmpybusv.acc.128B"),
]


@pytest.mark.parametrize("unit,width,lanes,body,name", INSTRUCTIONS)
def test_instructions(unit, width, lanes, body, name):
    text = f"""
  // CHECK-NOT: tile.dot4
  // CHECK: llvm.call_intrinsic "{name}"
  // CHECK-NOT: tile.dot4
"""
    for signed in ("true", "false"):
        check(function(body.replace("SIGNED", signed), lanes) + text, ExpandDot4(unit, width))


@pytest.mark.parametrize(
    "unit,width,lanes", [("", 16, 4), ("hvx", 128, 16), ("sdot", 16, 2), ("vnni", 32, 2)]
)
def test_other_vectors_go_byte_by_byte(unit, width, lanes):
    text = """
  // CHECK-NOT: call_intrinsic
  // CHECK-COUNT-4: arith.muli
  // CHECK-NOT: call_intrinsic
"""
    check(function(SIGNED, lanes) + text, ExpandDot4(unit, width))
