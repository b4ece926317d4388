"""Programs compiled by LLVM and run in this process, against NumPy."""

import threading

import numpy as np
import pytest

from mosaic_compile import targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, BackendError, LaunchError
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.runtime import threads
from mosaic_compile.runtime.cpu import Program, check_machine

from . import programs
from .programs import ADD, COPY, PLACES, bound, compile_program


@pytest.fixture(scope="module")
def loaded():
    """A function that gives a program's artifact and the program, compiled once."""
    made = {}

    def load(text):
        if text not in made:
            artifact, _ = compile_program(text)
            made[text] = artifact, Program(artifact)
        return made[text]

    return load


@pytest.fixture(params=[1, 2, 5])
def workers(request):
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 100_003])
def test_a_vector_of_any_size(loaded, workers, n):
    artifact, add = loaded(ADD)
    x = np.random.default_rng(n).standard_normal(n, np.float32)
    y = np.full_like(x, np.nan)
    add(bound(artifact, {"x": x, "y": y}, {"s": 1.5}))
    np.testing.assert_array_equal(y, x + np.float32(1.5))


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_strided_arrays_and_scratch(loaded, workers, rows):
    artifact, copy = loaded(COPY)
    assert copy.scratch_bytes == 48
    x = np.random.default_rng(rows).integers(-999, 999, (24, 2 * rows), np.int16).T[::2]
    y = np.zeros((rows, 48), np.int16)
    copy(bound(artifact, {"x": x, "y": y[:, ::-2]}))
    np.testing.assert_array_equal(y[:, ::-2], x)
    assert not y[:, ::2].any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 7, 3), (17, 5, 4), (0, 3, 2), (4, 0, 2)])
def test_programs_know_their_place(loaded, workers, shape):
    artifact, places = loaded(PLACES)
    out = np.full((*shape, 2), -1, np.int32)
    places(bound(artifact, {"places": out}))
    x, y, z = np.indices(shape)
    np.testing.assert_array_equal(out[..., 0], x + 1000 * y + 1_000_000 * z)
    assert (out[..., 1] == shape[0] + 1000 * shape[1] + 1_000_000 * shape[2]).all()


VALUES = {
    "float": [0.0, -0.0, 1.5, -2.75, 1e300, -1e300, 1e-300, float("inf"), float("-inf"), float("nan"), 0.1],
    "int": [0, 1, -1, 100, -128, 127],
    "uint": [0, 1, 127, 128, 255],
    "bool": [True, False],
}


@pytest.mark.parametrize("name", [n for n in DTYPES if n != "i4"])
def test_scalars_of_every_type(name):
    dtype = DTYPES[name]
    artifact, _ = compile_program(programs.store_scalar(name, dtype.mlir))
    store = Program(artifact)
    limits = [dtype.min, dtype.max] if dtype.is_integer else []
    for value in [*VALUES[dtype.kind], *limits]:
        out = np.ones(1, dtype.numpy)
        store(bound(artifact, {"out": out}, {"value": value}))
        with np.errstate(over="ignore"):
            expected = np.asarray(value).astype(dtype.numpy)
        np.testing.assert_array_equal(out.view(f"u{out.itemsize}"), expected.view(f"u{out.itemsize}"))


def test_arrays_that_may_not_overlap(loaded):
    artifact, add = loaded(ADD)
    x = np.zeros(128, np.float32)
    with pytest.raises(ArgumentError, match="'y' is written by the kernel and shares memory with 'x'"):
        add(bound(artifact, {"x": x, "y": x}, {"s": 1.0}))
    y = np.zeros(128, np.float32)
    prepared = add.prepare(bound(artifact, {"x": x, "y": y}, {"s": 1.0}))
    with pytest.raises(ArgumentError, match="shares memory"):  # what is kept of a call checks new addresses
        prepared.run({"x": x.ctypes.data, "y": x.ctypes.data + 4 * 127}, {})
    prepared.run({"x": x.ctypes.data, "y": y.ctypes.data}, {})
    assert (y == 1).all()


def test_an_output_that_cannot_be_written(loaded):
    artifact, add = loaded(ADD)
    x, y = np.zeros(8, np.float32), np.zeros(8, np.float32)
    y.flags.writeable = False
    with pytest.raises(ArgumentError, match="'y' is written by the kernel, but this array cannot be written"):
        add(bound(artifact, {"x": x, "y": y}, {"s": 1.0}))


def test_a_broken_promise_of_layout(loaded):
    artifact, add = loaded(ADD)
    x, y = np.zeros(16, np.float32), np.zeros(8, np.float32)
    with pytest.raises(
        ArgumentError, match="dimension 0 of 'x' has stride 2, but the kernel was compiled for 1"
    ):
        add(bound(artifact, {"x": x[::2], "y": y}, {"s": 1.0}))


def test_a_grid_too_large(loaded):
    artifact, places = loaded(PLACES)
    asked = bound(artifact, {"places": np.zeros((1, 1, 1, 2), np.int32)})
    asked.sizes["A"] = 2**31
    with pytest.raises(LaunchError, match="2147483648 programs or more"):
        places(asked)
    asked.sizes.update(A=2**30, B=2**30, C=2**30)
    with pytest.raises(LaunchError, match="use larger tiles"):
        places(asked)


def test_many_threads_call_at_once(loaded):
    artifact, add = loaded(ADD)
    threads.set_num_threads(2)
    failures = []

    def work(seed):
        x = np.random.default_rng(seed).standard_normal(50_000, np.float32)
        for s in range(20):
            y = np.empty_like(x)
            add(bound(artifact, {"x": x, "y": y}, {"s": float(s)}))
            if not np.array_equal(y, x + np.float32(s)):
                failures.append((seed, s))

    working = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    assert not failures


def test_code_for_other_machines_is_refused(loaded):
    artifact, _ = loaded(ADD)
    machine = artifact.manifest["machine"]

    def check(**changed):
        check_machine({**artifact.manifest, "machine": machine | changed})

    check()
    with pytest.raises(LaunchError, match="and this is"):
        check(triple="hexagon-unknown-linux-musl")
    with pytest.raises(LaunchError, match="this CPU has no amx-complex"):
        check(features="+amx-complex,+sse2")


def test_a_call_of_an_unknown_function_is_refused():
    x = programs.array("x", "f32", [1], [1], "out")
    text = programs.program("alien", [x], ["1"], "  func.call @stranger() : () -> ()")
    text = f"{text}\nfunc.func private @stranger()"
    with pytest.raises(BackendError, match="would call 'stranger'"):
        compile_program(text)


def test_an_object_with_an_open_symbol_does_not_load(loaded):
    from mosaic_compile.backends import codegen

    machine = codegen.Machine.of(targets.host_cpu())
    ir = "declare void @stranger()\ndefine void @add_share() {\n call void @stranger()\n ret void\n}\ndefine void @add_scratch_bytes() {\n ret void\n}"
    artifact, _ = loaded(ADD)
    broken = Artifact(artifact.manifest, {"add.o": codegen.object(ir, machine)})
    with pytest.raises(BackendError, match="the object cannot be loaded"):
        Program(broken)
