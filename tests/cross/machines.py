"""Machines that objects are made for, run here: 64-bit Arm and Hexagon in qemu, WebAssembly in Node.

A machine's `launch` takes a kernel and its arguments, as `tests.kernels.helpers.launch` does, and runs what was compiled
ahead of time for arrays of any size. C programs call the functions that the header declares.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import queue
import shutil
import signal
import struct
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_compile import targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.backends.c_header import C_TYPES
from mosaic_compile.driver import Compilation, cached_artifact
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.runtime.arguments import Bound, bind, specialize_call

from . import tools

HERE = Path(__file__).parent
GUARD, ALIGNMENT = 0xA5, 64
ROOM, SCRATCH = 1 << 20, 1 << 18  # bytes for a call's arrays and for scratch memory
WORKERS = 2  # what `num_sms` stands for


def any_size(kernel: Kernel, bound: Bound) -> Specialization:
    """What to compile for these arguments, without what their sizes would promise."""
    found = specialize_call(kernel, bound, {})
    return kernel.specialize(
        dims=found.dims,
        multiples=dict.fromkeys(kernel.signature.dims, 1),
        arrays={p.name for p in kernel.signature.arrays if p.spec.optional and p.name in bound.arrays},
        tuned={},
        **found.dtypes,
        **bound.given,
    )


@dataclass(frozen=True)
class Machine(ABC):
    """A target whose code runs here. folder: where programs are put, which are made once."""

    target: str
    folder: Path
    made: dict[str, Path] = field(default_factory=dict, kw_only=True)

    def launch(self, kernel: Kernel, *, target: None = None, **arguments: Any) -> None:
        bound = bind(kernel, (), arguments)
        spec = any_size(kernel, bound)
        artifact = cached_artifact(kernel, spec, Compilation(targets.find(self.target)))
        key = f"{kernel.name} {spec}"
        if key not in self.made:
            folder = self.folder / str(len(self.made))
            targets.backend(targets.find(self.target)).complete(artifact).save(folder)
            self.build(folder, artifact)
            self.made[key] = folder
        arrays = {name: arguments[name] for name in bound.arrays}
        self.run(self.made[key], artifact, arrays, bound)

    @abstractmethod
    def build(self, folder: Path, artifact: Artifact) -> None:
        """Makes a program of an artifact in a folder that holds it."""

    @abstractmethod
    def run(self, folder: Path, artifact: Artifact, arrays: Mapping[str, np.ndarray], bound: Bound) -> None:
        """Runs the program; arrays that the kernel writes get what it wrote."""


@dataclass(frozen=True)
class InQemu(Machine):
    """A machine that qemu runs C programs of."""

    compile: Sequence[str]
    emulate: Sequence[str]

    def build(self, folder: Path, artifact: Artifact) -> None:
        (folder / "main.c").write_text(main_program(artifact.manifest))
        flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I", HERE]
        command = [*self.compile, *flags, "main.c", artifact.manifest["files"]["binary"], "-o", "main"]
        subprocess.run(command, cwd=folder, check=True)

    def run(self, folder: Path, artifact: Artifact, arrays: Mapping[str, np.ndarray], bound: Bound) -> None:
        memory, places = laid_out(arrays)
        slots = b"".join(slot(p, places, bound) for p in artifact.manifest["parameters"])
        given = slots + struct.pack("<q", len(memory)) + memory
        done = subprocess.run([*self.emulate, folder / "main"], input=given, capture_output=True, timeout=120)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode()}"
        written = {a["name"] for a in artifact.manifest["arrays"] if a["access"] != "in"}
        expected = bytearray(done.stdout)
        for name, array in arrays.items():
            part = slice(places[name], places[name] + array.nbytes)
            if name in written:
                array[...] = np.frombuffer(done.stdout[part], array.dtype).reshape(array.shape)
                expected[part] = memory[part]
        assert expected == memory, "something was written beside the outputs"


@dataclass(frozen=True)
class InJavaScript(Machine):
    """WebAssembly, by our loader. `call` runs what a folder holds and gives the arrays' bytes."""

    call: Callable[[Path], bytes]

    def build(self, folder: Path, artifact: Artifact) -> None:
        assert (folder / f"{artifact.manifest['kernel']}.wasm").exists()

    def run(self, folder: Path, artifact: Artifact, arrays: Mapping[str, np.ndarray], bound: Bound) -> None:
        dtypes = {a["name"]: a["dtype"] for a in artifact.manifest["arrays"]}
        listed = [[name, TYPED_ARRAYS[dtypes[name]], array.nbytes] for name, array in arrays.items()]
        call = {"arrays": listed, "scalars": bound.scalars, "sizes": bound.sizes}
        (folder / "call.json").write_text(json.dumps(call))
        (folder / "input.bin").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
        output, at = self.call(folder), 0
        for array in arrays.values():
            array[...] = np.frombuffer(output[at : at + array.nbytes], array.dtype).reshape(array.shape)
            at += array.nbytes
        assert at == len(output)


def in_node(folder: Path) -> bytes:
    command = [tools.program(tools.NODE), HERE / "node.mjs", folder]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return (folder / "output.bin").read_bytes()


def in_browser(folder: Path) -> bytes:
    for name in ("page.html", "call.mjs"):
        shutil.copy(HERE / name, folder)
    return run_page(folder)


def run_page(folder: Path) -> bytes:
    """What a folder's page.html sends to the address `output`.

    A server on this machine gives the folder's files out: browsers load no modules from files.
    """
    sent: queue.Queue[tuple[str, bytes]] = queue.Queue()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Handler, folder, sent)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/page.html"
        # Without a sandbox of its own, which root may not have; a port for debuggers keeps it running.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command = [tools.program(tools.BROWSER), *flags, f"--user-data-dir={folder / 'profile'}", address]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Debian's command is a script, whose child outlives it: the whole group is ended.
        with subprocess.Popen(command, start_new_session=True, **quiet) as browser:
            try:
                kind, contents = sent.get(timeout=60)
            finally:
                os.killpg(browser.pid, signal.SIGTERM)
                server.shutdown()
    assert kind == "/output", contents.decode()
    return contents


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Gives out a folder's files, and puts what is sent into a queue."""

    def __init__(self, folder: Path, sent: queue.Queue[tuple[str, bytes]], *arguments: Any):
        self.sent = sent
        super().__init__(*arguments, directory=str(folder))

    def do_POST(self) -> None:
        contents = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.sent.put((self.path, contents))

    def log_message(self, *arguments: Any) -> None:
        """Requests are no news."""


TYPED_ARRAYS = {
    "f64": "Float64Array", "f32": "Float32Array", "f16": "Uint16Array", "bf16": "Uint16Array", "f8e4m3": "Uint8Array",
    "f8e5m2": "Uint8Array", "i64": "BigInt64Array", "i32": "Int32Array", "i16": "Int16Array", "i8": "Int8Array", "i4": "Int8Array",
    "u32": "Uint32Array", "u8": "Uint8Array", "bool": "Uint8Array",
}  # fmt: skip


def main_program(manifest: Mapping[str, Any]) -> str:
    """A C program that runs a kernel on what comes on standard input: the slots of its parameters (of an array, its place in
    memory), how many bytes of memory there are, and the memory; it writes the memory back.

    The first half of the programs are run by NAME_run, the others by NAME_share.
    """
    name, parameters = manifest["kernel"], manifest["parameters"]
    arrays = {a["name"]: a for a in manifest["arrays"]}
    types = [
        f"{C_TYPES[arrays[p['array']]['dtype']]} *"
        if p["kind"] == "pointer"
        else C_TYPES[p["dtype"]]
        if p["kind"] == "scalar"
        else "int64_t"
        for p in parameters
    ]
    values = [f"*({type_} *)&slots[{number}]" for number, type_ in enumerate(types)]
    pointers = [number for number, p in enumerate(parameters) if p["kind"] == "pointer"]
    dims = [value for value, p in zip(values, parameters) if p["kind"] == "dim"]
    moved = "\n".join(f"    slots[{number}] += (uintptr_t)memory;" for number in pointers)
    return f"""#include "harness.h"
#include "{name}.h"

static uint64_t slots[{len(parameters)} + 1];
static _Alignas({ALIGNMENT}) unsigned char memory[{ROOM}];
static _Alignas({ALIGNMENT}) unsigned char scratch[{SCRATCH}];

int main(void) {{
    if (!receive(slots, sizeof slots)) return 2;
    uint64_t bytes = slots[{len(parameters)}];
    if (!receive(memory, bytes)) return 3;
    if ({name}_scratch_bytes() > {SCRATCH}) return 4;
{moved}
    int64_t grid[3], count = 1;
    {name}_grid({", ".join([*dims, "grid"])});
    for (int axis = 0; axis < 3; ++axis) count *= grid[axis] > 0 ? grid[axis] : 0;
    {name}_run({", ".join([*values, "0", "count / 2", "scratch"])});
    int64_t next = count / 2;
    {name}_share(slots, &next, count, 2, scratch);
    return !send(memory, bytes);
}}
"""


def slot(parameter: Mapping[str, Any], places: Mapping[str, int], bound: Bound) -> bytes:
    """The 8 bytes of a parameter."""
    match parameter["kind"]:
        case "pointer":
            return struct.pack("<q", places[parameter["array"]])
        case "stride":
            return struct.pack("<q", bound.arrays[parameter["array"]].strides[parameter["axis"]])
        case "dim":
            return struct.pack("<q", {**bound.sizes, "num_sms": WORKERS}[parameter["name"]])
        case _:
            dtype = DTYPES[parameter["dtype"]].numpy
            return np.asarray(bound.scalars[parameter["name"]], dtype).tobytes().ljust(8, b"\0")


def laid_out(arrays: Mapping[str, np.ndarray]) -> tuple[bytearray, dict[str, int]]:
    """The arrays one behind the other, with guards between them, and where each lies."""
    memory, places = bytearray(), {}
    for name, array in arrays.items():
        places[name] = len(memory)
        memory += array.tobytes()
        memory += bytes([GUARD]) * (ALIGNMENT + -len(memory) % ALIGNMENT)
    assert len(memory) <= ROOM
    return memory, places


def arm64(folder: Path, target: str = "arm64-linux") -> Machine:
    """Linux's programs, with its C library. qemu's emulation of SVE is off: 7.2 computes some of it wrongly."""
    emulate = [tools.program(tools.QEMU_ARM64), "-cpu", "max,sve=off"]
    return InQemu(target, folder, [tools.program(tools.GCC_ARM64), "-static"], emulate)


def arm64_v8_6(folder: Path) -> Machine:
    return arm64(folder, "arm64-linux-v8.6")


def hexagon(folder: Path) -> Machine:
    """Programs without a C library: Debian has none for Hexagon."""
    flags = [
        "--target=hexagon-unknown-linux-musl",
        "-mcpu=hexagonv67",
        "-ffreestanding",
        "-fno-builtin",
        "-nostdlib",
    ]
    linked = [f"--ld-path={tools.program(tools.LLD)}", "-static", HERE / "hexagon.c"]
    compile = [tools.program(tools.CLANG), *flags, *map(str, linked)]
    return InQemu("hexagon-v67", folder, compile, [tools.program(tools.QEMU_HEXAGON)])


def wasm32(folder: Path) -> Machine:
    return InJavaScript("wasm32", folder, in_node)


def browser(folder: Path) -> Machine:
    return InJavaScript("wasm32", folder, in_browser)


MACHINES = {
    "arm64-linux": (arm64, tools.needs(tools.GCC_ARM64, tools.QEMU_ARM64)),
    "arm64-linux-v8.6": (arm64_v8_6, tools.needs(tools.GCC_ARM64, tools.QEMU_ARM64)),
    "hexagon-v67": (hexagon, tools.needs(tools.CLANG, tools.LLD, tools.QEMU_HEXAGON)),
    "wasm32": (wasm32, tools.needs(tools.WASM_LD, tools.NODE)),
    "browser": (browser, tools.needs(tools.WASM_LD, tools.BROWSER)),
}
