"""What users of Triton, cuTile, NumPy and PyTorch type first, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NO_BARRIER = "leave it out: tiles are values, so nothing is to be synchronized"
_NO_THREADS = (
    "there are no threads to index: an operation works on a whole tile; mc.program_id(0) is the block"
)
_NO_POINTERS = "there are no pointers: mc.load(x, index, shape) reads a block of the array x"
_CONST = "annotate a compile-time constant with mc.Const: BLOCK: mc.Const = 128"
_PROGRAM = "write mc.program_id(0)"
_PROGRAMS = "write mc.num_programs(0)"
_CONVERT = "convert with .to: x.to(mc.f32)"
_DOT = "write mc.dot(a, b, acc), or a @ b"
_ARRAY = 'annotate an array parameter with mc.f32["N"]; mc.zeros((128,), mc.f32) makes a tile'
_LIKE = "write mc.zeros(x.shape, x.dtype), or mc.full(x.shape, value, x.dtype)"
_CAT = "write mc.cat((a, b), axis=0)"

# Names looked for in the module mc.
_MODULE = {
    "arange": "write mc.iota(128)",
    "constexpr": _CONST, "Constant": _CONST, "Constexpr": _CONST, "const": _CONST,
    "syncthreads": _NO_BARRIER, "sync_threads": _NO_BARRIER, "barrier": _NO_BARRIER,
    "debug_barrier": _NO_BARRIER, "sync": _NO_BARRIER, "fence": _NO_BARRIER,
    "thread_id": _NO_THREADS, "tid": _NO_THREADS, "threadIdx": _NO_THREADS, "thread_idx": _NO_THREADS,
    "pid": _PROGRAM, "bid": _PROGRAM, "block_id": _PROGRAM, "blockIdx": _PROGRAM, "block_idx": _PROGRAM,
    "num_blocks": _PROGRAMS, "num_pids": _PROGRAMS, "gridDim": _PROGRAMS, "grid_dim": _PROGRAMS,
    "astype": _CONVERT, "cast": _CONVERT, "to": _CONVERT,
    "tensor": _ARRAY, "Tensor": _ARRAY, "array": _ARRAY, "Array": _ARRAY, "ndarray": _ARRAY,
    "matmul": _DOT, "mma": _DOT, "gemm": _DOT, "mm": _DOT, "einsum": _DOT,
    "empty": "write mc.zeros((128,), mc.f32)",
    "zeros_like": _LIKE, "ones_like": _LIKE, "full_like": _LIKE, "empty_like": _LIKE,
    "concatenate": _CAT, "concat": _CAT, "hstack": _CAT, "vstack": _CAT,
    "trans": "write x.T", "view": "write x.reshape(4, 32)", "select": "write mc.where(condition, a, b)",
    "add": "write a + b", "multiply": "write a * b", "subtract": "write a - b", "divide": "write a / b",
    "div": "write a / b", "fdiv": "write a / b", "mul": "write a * b", "sub": "write a - b",
    "pow": "write x ** 2", "power": "write x ** 2", "square": "write x * x", "relu": "write mc.maximum(x, 0.0)",
    "logical_and": "write a & b", "logical_or": "write a | b", "logical_not": "write ~a",
    "rand": "write mc.random_uniform(seed, offset)", "randn": "write mc.random_normal(seed, offset)",
    "randint": "write mc.random_bits(seed, offset)", "print": "write mc.device_print('x', x)",
    "static_assert": "write assert", "device_assert": "assert on compile-time values with assert",
    "static_print": "print compile-time values with print",
    "make_block_ptr": _NO_POINTERS, "advance": _NO_POINTERS, "make_tensor_descriptor": _NO_POINTERS,
    "pointer_type": _NO_POINTERS,
    "jit": "mark a kernel with @mc.kernel(grid=…)", "function": "write a plain Python function: it is inlined",
    "launch": "call the kernel: k(x, …); its grid stands in @mc.kernel(grid=…)",
    "autotune": "write @mc.kernel(tune=[dict(BLOCK=64, num_warps=4)])",
    "multiple_of": "leave it out: what is aligned is known from the arguments",
    "max_contiguous": "leave it out: what is contiguous is known from the arguments",
    "assume": "leave it out, or use assert on compile-time values",
    "shared": "leave it out: the compiler places tiles in shared memory",
    "alloc_shared": "leave it out: the compiler places tiles in shared memory",
    "float": "write mc.f32", "double": "write mc.f64", "half": "write mc.f16", "int": "write mc.i32",
    "bool": "write mc.bool_", "int1": "write mc.bool_", "uint32": "write mc.u32",
    "float8e4nv": "write mc.f8e4m3", "float8e5": "write mc.f8e5m2", "float8_e4m3": "write mc.f8e4m3",
}  # fmt: skip

# Names looked for on a tile.
_TILE = {
    "astype": _CONVERT, "cast": _CONVERT, "type": _CONVERT, "float": _CONVERT,
    "half": "write x.to(mc.f16)", "bfloat16": "write x.to(mc.bf16)", "int": "write x.to(mc.i32)",
    "size": "write x.shape", "numel": "write x.shape", "dim": "write x.ndim", "trans": "write x.T",
    "t": "write x.T", "mT": "write x.T", "view": "write x.reshape(4, 32)", "flatten": "write x.reshape(-1)",
    "ravel": "write x.reshape(-1)", "squeeze": "write x.reshape(…)", "unsqueeze": "write x[:, None]",
    "matmul": "write x @ y", "mm": "write x @ y", "pow": "write x ** 2",
    "expand": "write x.broadcast_to(…)", "contiguous": "leave it out: a tile has no memory layout",
    "item": "a tile has no value while the kernel is compiled: write its value with mc.store",
    "copy": "leave it out: tiles are values", "clone": "leave it out: tiles are values",
}  # fmt: skip

# Names looked for on an array.
_ARRAY_ATTRIBUTES = {
    "size": "write x.shape[0]", "numel": "write x.shape[0]", "stride": _NO_POINTERS,
    "strides": _NO_POINTERS, "data_ptr": _NO_POINTERS, "ptr": _NO_POINTERS,
    "astype": "load a block and convert that: mc.load(x, index, shape).to(mc.f32)",
    "to": "load a block and convert that: mc.load(x, index, shape).to(mc.f32)",
    "transpose": "write x.T", "tile": "write mc.load(x, index, shape)",
}  # fmt: skip

# Names of modules that stand for what mc is here.
_MODULES = ("tl", "ct", "triton", "cute", "cutlass")


def in_module(name: str, operations: Iterable[str]) -> str | None:
    """What to write for `mc.name`, which is not there."""
    return _MODULE.get(name) or did_you_mean(name, operations)


def of_tile(name: str, known: Iterable[str], operations: Iterable[str]) -> str | None:
    """What to write for `x.name` of a tile."""
    return _TILE.get(name) or _as_operation(name, operations) or did_you_mean(name, known)


def of_array(name: str, known: Iterable[str], operations: Iterable[str]) -> str | None:
    """What to write for `x.name` of an array."""
    return _ARRAY_ATTRIBUTES.get(name) or _as_operation(name, operations) or did_you_mean(name, known)


def for_name(name: str, visible: Iterable[str], operations: Iterable[str]) -> str | None:
    """What to write for a name that is not defined."""
    if name in _MODULES:
        return "everything here is in mc: import mosaic_compile as mc"
    if name == "mc":
        return "import mosaic_compile as mc"
    if name in set(operations):
        return f"write mc.{name}"
    return did_you_mean(name, visible) or _MODULE.get(name)


def _as_operation(name: str, operations: Iterable[str]) -> str | None:
    return f"write mc.{name}(x, …)" if name in set(operations) else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """A help line with the name that is closest in spelling."""
    close = difflib.get_close_matches(name, sorted(candidates), n=1)
    return f"did you mean '{close[0]}'?" if close else None


def of_keyword(operation: str, keyword: str) -> str | None:
    """What to write for a keyword of mc.load or mc.store that Triton has."""
    if operation == "load" and keyword in ("mask", "other"):
        return "blocks are clipped at the array's edges; other= is pad=; mc.gather takes mask="
    if operation in ("store", "atomic_add") and keyword == "mask":
        scattered = "scatter_add" if operation == "atomic_add" else "scatter"
        return f"blocks are clipped at the array's edges; mc.{scattered} takes mask="
    return None
