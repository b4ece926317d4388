"""Arrays go to the GPU and come back in the caller's layout: with memory of the host in the place of a GPU's."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile import interpreter
from mosaic_compile.check import case as cases
from mosaic_compile.check import machine
from mosaic_compile.frontend import trace
from mosaic_compile.runtime.arguments import bind, specialize_call
from mosaic_compile.runtime.interpret import on_host

from .planted import SCALE, arguments


@mc.kernel(grid=lambda M: (M,))
def wider(x: mc.i4["M", 64], out: mc.Out[mc.i4["M", 64]], total: mc.Out[mc.i32["M"]]):
    m = mc.program_id(0)
    row = mc.load(x, (m, 0), (1, 64))
    mc.store(out, (m, 0), row)
    mc.store(total, m, row.to(mc.i8).sum(1))


class Gpu:
    """A GPU whose addresses are the host's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.blocks: dict[int, ctypes.Array] = {}
        self.launched: list[dict[str, tuple[int, ...]]] = []
        monkeypatch.setattr(cases, "gpu_of", lambda bound, target: 0)
        monkeypatch.setattr(
            cases, "best_fit", lambda kernel, bound, target, gpu: specialize_call(kernel, bound)
        )
        monkeypatch.setattr(machine.driver, "cached_artifact", lambda kernel, spec, compilation: kernel)
        monkeypatch.setattr(machine, "Launcher", lambda kernel, gpu: lambda bound: self.launch(kernel, bound))
        for name in ("allocate", "free", "upload", "download"):
            monkeypatch.setattr(machine.cuda, name, getattr(self, name))
        monkeypatch.setattr(machine.cuda, "using_device", nullcontext)

    def allocate(self, size: int) -> int:
        block = (ctypes.c_uint8 * (size + 256))()
        address = -(-ctypes.addressof(block) // 256) * 256
        self.blocks[address] = block
        return address

    def free(self, address: int) -> None:
        del self.blocks[address]

    def upload(self, device: int, address: int, memory: np.ndarray) -> None:
        ctypes.memmove(address, memory.ctypes.data, memory.size)

    def download(self, device: int, low: int, high: int) -> np.ndarray:
        return np.frombuffer(ctypes.string_at(low, high - low), np.uint8)

    def launch(self, kernel, bound) -> None:
        """The interpreter on this GPU's memory."""
        assert all(a.device == "cuda" for a in bound.arrays.values())
        self.launched.append({name: a.strides for name, a in bound.arrays.items()})
        here = replace(bound, arrays={name: replace(a, device="cpu") for name, a in bound.arrays.items()})
        spec = specialize_call(kernel, here)
        module = trace(kernel, spec)
        with on_host(kernel, here, spec, module) as host:
            interpreter.run(module, list(host.values.values()), host.grid)


def test_strides_and_alignment(monkeypatch):
    gpu = Gpu(monkeypatch)
    given = arguments(80, 60)
    x, out = given["x"][::-2, 3:51:2], given["out"][:40, 1:25]
    report = SCALE.check(x, out, target="sm90")
    assert report.ok and report.rows[-1].status == "ok", report
    assert gpu.launched == [{"x": (-120, 2), "out": (60, 1)}] and not gpu.blocks
    assert np.isnan(given["out"]).all()


def test_two_elements_a_byte(monkeypatch):
    Gpu(monkeypatch)
    x = np.random.default_rng(0).integers(-8, 8, (5, 64)).astype(ml_dtypes.int4)
    report = wider.check(x, np.zeros_like(x), np.zeros(5, np.int32), target="sm90")
    assert report.ok and [row.status for row in report.rows[-2:]] == ["ok", "ok"], report
    assert (report.rows[-2].difference.got == x).all()


def test_arrays_without_elements(monkeypatch):
    gpu = Gpu(monkeypatch)
    report = SCALE.check(np.zeros((4, 0), np.float32), np.zeros((4, 0), np.float32), target="sm90")
    assert report.ok and len(gpu.launched) == 1 and not gpu.blocks


def test_which_gpu(monkeypatch):
    bound = bind(SCALE, (), arguments())
    target = cases.targets.find("sm90")
    for capability, number in (((9, 0), 0), ((8, 0), None), (None, None)):
        monkeypatch.setattr(machine.cuda, "compute_capability", lambda device, c=capability: c)
        assert machine.gpu_of(bound, target) == number
    for here, reason in (
        (None, "not on this machine, which has no GPU"),
        ("sm80", "not on this machine, which has an sm80"),
        ("sm90", "kernels are launched on NVIDIA GPUs, not yet on sm90"),
    ):
        monkeypatch.setattr(machine.targets, "gpu_of_this_machine", lambda h=here: h)
        assert machine.why_not(target) == reason
