"""`mc.load(DIR)` of artifacts for GPUs: in a process without the compiler, and on GPUs of other kinds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.kernels import matmul
from mosaic_compile.runtime import cuda
from mosaic_compile.runtime.launch import runs_on

from .fake_cuda import FakeDriver
from .fake_tensors import Tensor

compiler = shutil.which("cc")


@mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
def copy(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    """Copies."""
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, 64))


def save(folder: Path, kernel: mc.Kernel, target: str, **options) -> Path:
    mc.compile(kernel, target, **options).save(folder / "artifact")
    return folder / "artifact"


def run(folder: Path, capability: tuple[int, int], parameters: int, dtype: str, shapes: list) -> list:
    arguments = [folder, *capability, parameters, dtype, json.dumps(shapes)]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "run_artifact.py", *map(str, arguments)],
        capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


COMPILER = {
    "torch_mlir",
    "triton",
    "torch",
    "llvmlite",
    "jax",
    "mosaic_compile.driver",
    "mosaic_compile.frontend",
}


def test_a_process_without_the_compiler(tmp_path):
    seen, modules, text = run(save(tmp_path, copy, "sm90"), (9, 0), 3, "<f4", [[1024], [1024]])
    for grid, (x, out, n) in seen:
        assert (grid, x, out, n & 0xFFFFFFFF) == ([16, 1, 1], 0x10_0000, 0x20_0000, 1024)
    assert len(seen) == 2
    assert COMPILER.isdisjoint(modules)
    assert text == "<copy(x, out) for sm90>"


def test_descriptors_made_on_the_host(tmp_path):
    folder = save(tmp_path, matmul, "sm90", T="f16", U="f16")
    seen, modules, _ = run(folder, (9, 0), 3, "<f2", [[512, 128], [128, 256], [512, 256]])
    assert [values for _, values in seen] == [[0x10_0000, 0x20_0000, 0x30_0000]] * 2
    assert COMPILER.isdisjoint(modules)


@pytest.mark.skipif(compiler is None or sys.platform != "linux", reason="needs a C compiler on Linux")
def test_what_the_driver_gets(tmp_path):
    """A driver in C: what ctypes hands over has the sizes and the layout that C expects."""
    here = Path(__file__).parent
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, here / "libcuda.c"], check=True)
    done = subprocess.run(
        [sys.executable, here / "run_on_libcuda.py", save(tmp_path, copy, "sm90")],
        capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "copied\n"), done.stderr


@pytest.mark.parametrize(
    ("target", "capability", "expected"),
    [
        ("sm80", (8, 0), True), ("sm80", (8, 6), True), ("sm80", (8, 9), True), ("sm89", (8, 6), False),
        ("sm80", (9, 0), False), ("sm90", (9, 0), True), ("sm90", (10, 0), False), ("sm100", (10, 0), True),
        ("sm100", (10, 3), False), ("sm120", (12, 0), True), ("sm120", (12, 1), False), ("gfx942", (9, 0), False),
        ("sm90", None, False),
    ],
)  # fmt: skip
def test_which_gpus_run_which_code(target, capability, expected):
    assert runs_on(target, capability) == expected


def message(call) -> str:
    with pytest.raises((ArgumentError, LaunchError)) as error:
        call()
    return f"{error.value.message} / {error.value.help}"


def test_a_gpu_of_another_kind(tmp_path, monkeypatch):
    folder = save(tmp_path, copy, "sm90")
    FakeDriver((10, 0)).install(monkeypatch.setattr)
    assert message(lambda: mc.load(folder)) == (
        f"the artifact in '{folder}' is for sm90, and this machine has sm100 / compile it for this machine: --target sm100"
    )


def test_a_machine_without_a_gpu(tmp_path, monkeypatch):
    folder = save(tmp_path, copy, "sm90")
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert message(lambda: mc.load(folder)) == (
        f"the artifact in '{folder}' is for sm90, and this machine has no NVIDIA GPU / compile it for this machine: --target cpu"
    )


def test_the_second_gpu_is_of_another_kind(tmp_path, monkeypatch):
    kernel_folder, driver = save(tmp_path, copy, "sm90"), FakeDriver().install(monkeypatch.setattr)
    monkeypatch.setattr(cuda, "compute_capability", lambda device=0: ((9, 0), (8, 0))[device])
    kernel = mc.load(kernel_folder)
    kernel(Tensor(64), Tensor(64, offset=0x1000))
    assert len(driver.launches) == 1
    assert message(lambda: kernel(Tensor(64, device=1), Tensor(64, offset=0x1000, device=1))) == (
        "the kernel 'copy' is compiled for sm90, and GPU 1 is an sm80 / compile it for this GPU: --target sm80"
    )


def test_arrays_in_the_wrong_place(tmp_path, monkeypatch):
    (tmp_path / "cpu").mkdir()
    FakeDriver().install(monkeypatch.setattr)
    on_gpu, on_cpu = mc.load(save(tmp_path, copy, "sm90")), mc.load(save(tmp_path / "cpu", copy, "cpu"))
    host = np.zeros(64, np.float32), np.zeros(64, np.float32)
    assert (
        message(lambda: on_gpu(*host))
        == "the arrays are on the host, and this kernel runs on a GPU / move them to a GPU"
    )
    assert message(lambda: on_cpu(Tensor(64), Tensor(64, offset=0x1000))) == (
        "the arrays are on a GPU, and this kernel runs on the CPU / move them to the host"
    )


def test_arrays_that_the_artifact_is_not_for(tmp_path, monkeypatch):
    FakeDriver().install(monkeypatch.setattr)
    kernel = mc.load(save(tmp_path, copy, "sm90"))
    assert message(lambda: kernel(Tensor(64, offset=4), Tensor(64, offset=0x1000))) == (
        "'x' does not start at a multiple of 16 bytes / pass an aligned copy, or compile for this array"
    )
