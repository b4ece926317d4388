"""Programs as the CPU schedule leaves them, written by hand, and their way to code that runs."""

from __future__ import annotations

from mosaic_compile import targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.backends import llvm
from mosaic_compile.driver import _function_description
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.runtime.arrays import describe
from mosaic_compile.stages import Session

GRID = ", ".join(
    [f'%p{i}: i32 {{mosaic.role = "program_id"}}' for i in range(3)]
    + [f'%n{i}: i32 {{mosaic.role = "num_programs"}}' for i in range(3)]
)


def array(name, dtype, dims, strides, access, mlir=None, align=None):
    """An array argument: sizes from its dims (names are open), strides in elements (None is open)."""
    sizes = "x".join("?" if isinstance(d, str) else str(d) for d in dims)
    layout = ", ".join("?" if s is None else str(s) for s in strides)
    listed = ", ".join(f'"{d}"' if isinstance(d, str) else f"{d} : i64" for d in dims)
    aligned = f", tile.align = {align} : i64" if align else ""
    return (
        f"%{name}: memref<{sizes}x{mlir or dtype}, strided<[{layout}]>> {{"
        f'tile.name = "{name}", tile.dtype = "{dtype}", tile.dims = [{listed}], tile.access = "{access}"{aligned}}}'
    )


def scalar(name, dtype, mlir=None):
    return f'%{name}: {mlir or dtype} {{tile.name = "{name}", tile.dtype = "{dtype}"}}'


def program(name, arguments, grid, body, scratch=0):
    listed = ", ".join([*arguments, GRID, f'%scratch: memref<{scratch}xi8> {{mosaic.role = "scratch"}}'])
    texts = ", ".join(f'"{g}"' for g in grid)
    return f"func.func @{name}({listed}) attributes {{tile.kernel, tile.grid = [{texts}]}} {{\n{body}\n  return\n}}"


def compile_program(text, target=None):
    """The artifact of a program's text, and each stage's result."""
    target = target or targets.host_cpu()
    with new_context(), ir.Location.unknown():
        state = ir.Module.parse(text)
        arrays = _arrays(state)
    session, results, signature = Session(target, {}), {}, {}
    for stage in llvm.machine_stages(target):
        state = stage.run(state, session)
        results[stage.name] = stage.write(state)
        signature = (_function_description(state) if isinstance(state, ir.Module) else None) or signature
    name = text.partition("@")[2].partition("(")[0]
    about = {
        "format": 1,
        "kernel": name,
        "target": target.name,
        "backend": "llvm",
        "doc": f"Does what {name} does.",
        "grid": signature["grid"],
        "parameters": signature["parameters"],
        "arrays": [a | {"access": signature["access"][a["name"]]} for a in arrays],
    }
    return llvm.package(about, results, session), results


def _arrays(module):
    (function,) = (op for op in module.body.operations if "tile.kernel" in op.operation.attributes)
    result = []
    for argument, given in zip(function.arguments, function.arg_attrs):
        if "tile.dims" not in given:
            continue
        type_ = ir.MemRefType(argument.type)
        strides, _ = type_.get_strides_and_offset()
        open_stride = ir.ShapedType.get_dynamic_stride_or_offset()
        result.append(
            {
                "name": given["tile.name"].value,
                "dtype": given["tile.dtype"].value,
                "dims": [d.value for d in given["tile.dims"]],
                "sizes": [None if type_.is_dynamic_dim(i) else type_.shape[i] for i in range(type_.rank)],
                "strides": [None if s == open_stride else s for s in strides],
                "stride_multiples": [1] * type_.rank,
                "dim_multiples": [1] * type_.rank,
                "align": given["tile.align"].value if "tile.align" in given else 1,
            }
        )
    return result


def bound(artifact: Artifact, arrays, scalars=None):
    """A call's arguments, as runtime.arguments.bind gives them."""
    infos = {name: describe(value, name) for name, value in arrays.items()}
    sizes = {
        dim: size
        for expected in artifact.manifest["arrays"]
        for dim, size in zip(expected["dims"], infos[expected["name"]].shape)
        if isinstance(dim, str)
    }
    return Bound(infos, scalars or {}, {}, sizes)


# y = x + s, 64 elements a program.
ADD = program(
    "add",
    [array("x", "f32", ["N"], [1], "in"), array("y", "f32", ["N"], [1], "out"), scalar("s", "f32")],
    ["cdiv(N, 64)"],
    """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c64 = arith.constant 64 : index
  %n = memref.dim %x, %c0 : memref<?xf32, strided<[1]>>
  %p = arith.index_cast %p0 : i32 to index
  %begin = arith.muli %p, %c64 : index
  %whole = arith.addi %begin, %c64 : index
  %end = arith.minsi %whole, %n : index
  scf.for %i = %begin to %end step %c1 {
    %v = memref.load %x[%i] : memref<?xf32, strided<[1]>>
    %w = arith.addf %v, %s : f32
    memref.store %w, %y[%i] : memref<?xf32, strided<[1]>>
  }""",
)

# y[i, j] = x[i, j] for any strides, one row a program, through scratch memory.
COPY = program(
    "copy",
    [array("x", "i16", ["M", 24], [None, None], "in"), array("y", "i16", ["M", 24], [None, None], "out")],
    ["M"],
    """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c24 = arith.constant 24 : index
  %row = memref.view %scratch[%c0][] : memref<48xi8> to memref<24xi16>
  %i = arith.index_cast %p0 : i32 to index
  scf.for %j = %c0 to %c24 step %c1 {
    %v = memref.load %x[%i, %j] : memref<?x24xi16, strided<[?, ?]>>
    memref.store %v, %row[%j] : memref<24xi16>
  }
  scf.for %j = %c0 to %c24 step %c1 {
    %v = memref.load %row[%j] : memref<24xi16>
    memref.store %v, %y[%i, %j] : memref<?x24xi16, strided<[?, ?]>>
  }""",
    scratch=48,
)

# places[x, y, z] = its own program's place and the grid's size, as one number of three axes.
PLACES = program(
    "places",
    [array("places", "i32", ["A", "B", "C", 2], [None, None, None, 1], "out")],
    ["A", "B", "(C // 1)"],
    """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c1000 = arith.constant 1000 : i32
  %x = arith.index_cast %p0 : i32 to index
  %y = arith.index_cast %p1 : i32 to index
  %z = arith.index_cast %p2 : i32 to index
  %a = arith.muli %p2, %c1000 : i32
  %b = arith.addi %a, %p1 : i32
  %c = arith.muli %b, %c1000 : i32
  %d = arith.addi %c, %p0 : i32
  memref.store %d, %places[%x, %y, %z, %c0] : memref<?x?x?x2xi32, strided<[?, ?, ?, 1]>>
  %e = arith.muli %n2, %c1000 : i32
  %f = arith.addi %e, %n1 : i32
  %g = arith.muli %f, %c1000 : i32
  %h = arith.addi %g, %n0 : i32
  memref.store %h, %places[%x, %y, %z, %c1] : memref<?x?x?x2xi32, strided<[?, ?, ?, 1]>>""",
)


def store_scalar(dtype, mlir):
    """Stores a scalar argument of an element type into a one-element array."""
    return program(
        "store_scalar",
        [array("out", dtype, [1], [1], "out", mlir), scalar("value", dtype, mlir)],
        ["1"],
        f"""
  %c0 = arith.constant 0 : index
  memref.store %value, %out[%c0] : memref<1x{mlir}, strided<[1]>>""",
    )
