"""Objects call nothing for arithmetic: neither the C library's functions nor the compiler's runtime."""

import re

import pytest

from mosaic_compile import targets
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes.expand_math import ExpandMath
from mosaic_compile.passes.expand_narrow_floats import ExpandNarrowFloats

from .programs import array, compile_program, program

# What each machine has instructions for.
MACHINES = {
    "x86-64-v3": ExpandMath(),
    "x86-64-v4": ExpandMath(),
    "arm64-linux": ExpandMath(),
    "arm64-apple": ExpandMath(),
    "wasm32": ExpandMath(fma=False),
    "hexagon-v68": ExpandMath(fma=False, rounding=False, sqrt=False),
}
FUNCTIONS = [
    *("exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "erf", "rsqrt", "sin", "cos"),
    *("sqrt", "floor", "ceil", "trunc", "roundeven", "absf"),
]
NARROW = ["bf16", "f16", "f8E4M3FN", "f8E5M2"]
DTYPES = {"f8E4M3FN": "f8e4m3", "f8E5M2": "f8e5m2"}
CALL = re.compile(
    r"^\s+(?:callq?|bl|b|jmpq?|jump|.*\bcall)\s+\*?_?([a-z_]\w*)|\b_?([a-z_]\w*)@(?:GOT|PLT)", re.MULTILINE
)
MEMORY = {"memcpy", "memset", "memmove", "bzero"}


def called(assembly):
    """The functions that assembly calls and does not define."""
    names = {a or b for a, b in CALL.findall(assembly)}
    defined = {name.removeprefix("_") for name in re.findall(r"^([A-Za-z_]\w*):", assembly, re.MULTILINE)}
    return names - defined - MEMORY


def elementwise(mlir, body):
    """out[i] = body of in[i]: takes %v and gives %w."""
    name = DTYPES.get(mlir, mlir)
    return program(
        "apply",
        [array("x", name, ["N"], [1], "in", mlir), array("y", name, ["N"], [1], "out", mlir)],
        ["1"],
        f"""
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = memref.dim %x, %c0 : memref<?x{mlir}, strided<[1]>>
  scf.for %i = %c0 to %n step %c1 {{
    %v = memref.load %x[%i] : memref<?x{mlir}, strided<[1]>>
    {body}
    memref.store %w, %y[%i] : memref<?x{mlir}, strided<[1]>>
  }}""",
    )


def assembly(text, machine):
    target = targets.find(machine)
    types = ("f8E4M3FN", "f8E5M2", "bf16", *([] if target.f16 else ["f16"]))
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        MACHINES[machine].run(module)
        ExpandNarrowFloats(types).run(module)
        text = str(module)
    return compile_program(text, target)[1]["asm"]


@pytest.mark.parametrize("machine", MACHINES)
def test_functions(machine):
    steps = [f"%{i + 1} = math.{name} %{i} : f32" for i, name in enumerate(FUNCTIONS)]
    steps += [f"%w = math.fma %{len(FUNCTIONS)}, %v, %v : f32"]
    body = "\n".join(steps).replace("%0 ", "%v ")
    assert called(assembly(elementwise("f32", re.sub(r"%(\d)", r"%t\1", body)), machine)) == set()


@pytest.mark.parametrize("type_", NARROW)
@pytest.mark.parametrize("machine", MACHINES)
def test_narrow_types(machine, type_):
    """Arithmetic, and a number that a loop carries, which is where LLVM would widen f16 and bf16 by calls."""
    body = f"""%e = math.exp %v : {type_}
    %f = math.fma %e, %v, %e : {type_}
    %s = scf.for %j = %c0 to %i step %c1 iter_args(%a = %f) -> ({type_}) {{
      %b = arith.mulf %a, %v : {type_}
      %d = arith.extf %b : {type_} to f64
      %h = arith.addf %d, %d : f64
      %g = arith.truncf %h : f64 to {type_}
      scf.yield %g : {type_}
    }}
    %w = arith.maximumf %s, %v : {type_}"""
    assert called(assembly(elementwise(type_, body), machine)) == set()


def test_calls_are_seen():
    text = elementwise("f64", "%w = math.sin %v : f64")
    assert all(called(assembly(text, machine)) == {"sin"} for machine in MACHINES)


@pytest.mark.parametrize(
    "machine, register", [("x86-64-v3", "ymm"), ("x86-64-v4", "zmm"), ("arm64-linux", r"v\d+\.4s")]
)
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sin"])
def test_loops_are_vectors(name, machine, register):
    found = assembly(elementwise("f32", f"%w = math.{name} %v : f32"), machine)
    assert len(re.findall(register, found)) > 20
