"""Running compiled kernels on this machine's CPU.

An artifact's object is loaded into the process by LLVM's own linker; nothing of the compiler is needed. What a call's sizes
and layouts decide is worked out once and kept (`Prepared`): a call then costs a few microseconds.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.backends.externals import FUNCTIONS
from mosaic_compile.errors import BackendError, LaunchError
from mosaic_compile.language.symbolic import evaluate

from . import threads
from .arguments import Bound, Pair, apart, check_apart, check_written
from .launch import check_layout
from .scalars import bits_of, single

ALONE = 30_000  # nanoseconds of work below which waking other threads costs more than they save


class Program:
    """A kernel loaded into this process."""

    def __init__(self, artifact: Artifact):
        self.artifact, self.manifest = artifact, artifact.manifest
        check_machine(self.manifest)
        name = self.manifest["kernel"]
        self._library = _load(artifact.binary, [f"{name}_share", f"{name}_scratch_bytes"])
        i64 = ctypes.c_int64
        self.share = threads.Share(self._library[f"{name}_share"])
        self.scratch_bytes = ctypes.CFUNCTYPE(i64)(self._library[f"{name}_scratch_bytes"])()
        self.arrays = {a["name"]: a for a in self.manifest["arrays"]}
        self.written = frozenset(n for n, a in self.arrays.items() if a["access"] != "in")
        self.nanoseconds = math.inf  # of one program, as last seen

    def __call__(self, bound: Bound) -> None:
        """Runs the kernel; it is done when this returns. Raises ArgumentError and LaunchError."""
        prepared = self.prepare(bound)
        prepared.run({name: info.address for name, info in bound.arrays.items()}, bound.scalars)

    def prepare(self, bound: Bound) -> Prepared:
        """What a call comes down to whose arrays have these sizes and layouts; checks them."""
        check_written(bound.arrays, self.written)
        for name, expected in self.arrays.items():
            check_layout(bound.arrays[name], expected)
        workers = threads.get_num_threads()
        sizes = {**bound.sizes, "num_sms": workers}
        try:
            grid = [evaluate(text, sizes) for text in self.manifest["grid"]]
        except ZeroDivisionError:
            raise LaunchError(
                f"the grid ({', '.join(self.manifest['grid'])}) divides by zero for these sizes",
                "guard it with max(…, 1)",
            ) from None
        if any(n >= 2**31 for n in grid):
            raise LaunchError(
                f"the grid {tuple(grid)} has an axis of 2147483648 programs or more", "use larger tiles"
            )
        programs = math.prod(max(n, 0) for n in grid)
        if programs >= 2**62:
            raise LaunchError(f"the grid {tuple(grid)} has {programs} programs", "use larger tiles")
        form, values, arrays, scalars = "<", [], [], []
        for slot, parameter in enumerate(self.manifest["parameters"]):
            code, value = "q", 0
            match parameter["kind"]:
                case "pointer":
                    arrays.append((parameter["array"], slot))
                    code = "Q"
                case "stride":
                    value = bound.arrays[parameter["array"]].strides[parameter["axis"]]
                case "dim":
                    value = sizes[parameter["name"]]
                case "scalar":
                    name = parameter["name"]
                    code, encode = _SCALARS.get(parameter["dtype"], ("Q", None))
                    encode = encode or bits_of(parameter["dtype"])
                    scalars.append((name, slot, encode))
                    value = encode(bound.scalars[name])
            form += code
            values.append(value)
        return Prepared(
            self,
            programs,
            workers,
            struct.Struct(form),
            values,
            arrays,
            scalars,
            apart(bound.arrays, self.written),
        )


@dataclass(frozen=True)
class Prepared:
    """A call up to its arrays' addresses and its scalars' values.

    values: the argument block's numbers, with room for addresses and scalars in the slots that arrays and scalars name.
    apart: see `arguments.apart`.
    """

    program: Program
    programs: int
    workers: int
    block: struct.Struct
    values: list[Any]
    arrays: Sequence[tuple[str, int]]
    scalars: Sequence[tuple[str, int, Callable[[Any], Any]]]
    apart: Sequence[Pair]

    def run(self, addresses: Mapping[str, int], scalars: Mapping[str, Any]) -> None:
        """Runs the kernel on arrays at these addresses; a scalar that is left out keeps its value.

        Raises ArgumentError where an array that is written overlaps another.
        """
        check_apart(self.apart, addresses)
        if not self.programs:
            return
        values = self.values.copy()
        for name, slot in self.arrays:
            values[slot] = addresses[name]
        if scalars:
            for name, slot, encode in self.scalars:
                if name in scalars:
                    values[slot] = encode(scalars[name])
        program = self.program
        alone = self.workers == 1 or self.programs * program.nanoseconds < ALONE
        workers = 1 if alone else min(self.workers, self.programs)
        begin = perf_counter_ns()
        threads.run(program.share, self.block.pack(*values), self.programs, program.scratch_bytes, workers)
        program.nanoseconds = (perf_counter_ns() - begin) * workers / self.programs


# How `struct` puts a scalar into the low bytes of a 64-bit word; the rest as their bits.
_SCALARS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "f64": ("d", float),
    "f32": ("f4x", single),
    **dict.fromkeys(("i64", "i32", "i16", "i8", "i4", "u8", "u32", "bool"), ("q", int)),
}


def check_machine(manifest: Mapping[str, Any]) -> None:
    """Refuses code that this machine does not have the instructions for; raises LaunchError."""
    from llvmlite import binding

    target, machine = manifest["target"], manifest["machine"]
    here = binding.get_process_triple()
    if _architecture(machine["triple"]) != _architecture(here) or ("apple" in here) != (
        "apple" in machine["triple"]
    ):
        raise LaunchError(
            f"the artifact is for {target} ({machine['triple']}), and this is {here}",
            "compile it for this machine: --target cpu",
        )
    has = binding.get_host_cpu_features()
    wanted = {f[1:] for f in machine["features"].split(",") if f.startswith("+")}
    missing = sorted(f for f in wanted | LEVELS.get(machine["cpu"], frozenset()) if not has.get(f, True))
    if missing:
        raise LaunchError(
            f"the artifact is for {target}, and this CPU has no {', '.join(missing)}",
            "compile it for this machine: --target cpu",
        )


# The features of the x86-64 psABI's levels, as LLVM calls them.
_V3 = frozenset({"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"})
LEVELS = {"x86-64-v3": _V3, "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}}


def _architecture(triple: str) -> str:
    return triple.partition("-")[0].replace("arm64", "aarch64")


_lock = threading.Lock()
_numbers = itertools.count()


@functools.cache
def _linker() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.create_lljit_compiler(suppress_errors=True)


@functools.cache
def _symbols() -> Mapping[str, int]:
    """The addresses of what objects may call, as far as this system has it."""
    names = {"linux": "libm.so.6", "darwin": "libSystem.dylib", "win32": "ucrtbase.dll"}
    library = ctypes.CDLL(names.get(sys.platform, "libm.so"))
    found = {}
    for name in FUNCTIONS:
        for place in (library, ctypes.CDLL(None) if sys.platform != "win32" else library):
            if hasattr(place, name):
                found[name] = ctypes.cast(getattr(place, name), ctypes.c_void_p).value or 0
                break
    return found


def _load(code: bytes, exports: Sequence[str]) -> Any:
    """The exported functions' addresses of an object, which lives as long as what this gives; raises BackendError."""
    from llvmlite import binding

    with _lock:
        builder = binding.JITLibraryBuilder().add_object_img(code)
        for name, address in _symbols().items():
            builder.import_symbol(name, address)
        for name in exports:
            builder.export_symbol(name)
        try:
            return builder.link(_linker(), f"kernel{next(_numbers)}")
        except RuntimeError as error:
            raise BackendError(f"the object cannot be loaded: {error}", "compile the kernel again") from None
