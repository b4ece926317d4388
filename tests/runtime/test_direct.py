"""Launches by machine code: on PyTorch's tensors of the host, which are taken for a GPU's, and a driver in C that notes them."""

from __future__ import annotations

import ctypes
import gc
import math
import shutil
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.kernels import matmul
from mosaic_compile.runtime import call, cuda_launch, direct, forms, launch
from mosaic_compile.runtime.arguments import bind
from mosaic_compile.runtime.direct_plan import plan_of
from mosaic_compile.runtime.launch import Launcher

from .fake_cuda import FIRST_CONTEXT, FakeDriver

torch = pytest.importorskip("torch")

compiler = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(compiler is None, reason="needs a C compiler"),
    pytest.mark.skipif(
        not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), reason="needs PyTorch 2.10 or newer"
    ),
]


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def scale(
    x: mc.f32["N"],
    out: mc.Out[mc.f32["N"]],
    factor: mc.f32 = 2.0,
    bias: mc.f32["N"] | None = None,
    *,
    B: mc.Const = 64,
    mode: mc.Const = "plain",
):
    i = mc.program_id(0)
    result = mc.load(x, i, B) * factor
    mc.store(out, i, result if bias is None else result + mc.load(bias, i, B))


@mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
def numbers_of_all_types(
    out: mc.Out[mc.f64["N"]],
    i64: mc.i64,
    i32: mc.i32,
    i16: mc.i16,
    i8: mc.i8,
    u32: mc.u32,
    u8: mc.u8,
    flag: mc.bool_,
    f64: mc.f64,
    f32: mc.f32,
):
    whole = i64 + i32.to(mc.i64) + i16.to(mc.i64) + i8.to(mc.i64) + u32.to(mc.i64) + u8.to(mc.i64)
    total = whole.to(mc.f64) + f64 + f32.to(mc.f64) + flag.to(mc.f64)
    mc.store(out, mc.program_id(0), mc.full(64, total, mc.f64))


class LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint), ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p), ("attribute_count", ctypes.c_uint),
    )  # fmt: skip


class Recorder:
    """The driver in C: see recorder.c."""

    FUNCTIONS = ("cuCtxGetCurrent", "cuTensorMapEncodeTiled", "cuLaunchKernelEx")

    def __init__(self, library: Path, sizes: list[int]):
        self.library = ctypes.CDLL(str(library))
        self.set("current_context", FIRST_CONTEXT, ctypes.c_void_p)
        for name in ("launches", "encodings", "result_of_launch", "result_of_encode"):
            self.set(name, 0)
        self.sizes = sizes
        self.set("parameter_count", len(sizes))
        (ctypes.c_int * 64).in_dll(self.library, "parameter_sizes")[: len(sizes)] = sizes

    def set(self, name: str, value: int, type_=ctypes.c_int) -> None:
        type_.in_dll(self.library, name).value = value

    def get(self, name: str, type_=ctypes.c_int):
        return type_.in_dll(self.library, name).value

    @property
    def config(self) -> LaunchConfig:
        return LaunchConfig.in_dll(self.library, "config")

    @property
    def parameters(self) -> list[bytes]:
        memory = (ctypes.c_char * 128 * 64).in_dll(self.library, "parameters")
        return [bytes(memory[i])[:size] for i, size in enumerate(self.sizes)]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recorder") / "recorder.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", path, Path(__file__).with_name("recorder.c")], check=True
    )
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


class Direct:
    """Kernels compiled for sm90, and the machine code that launches a call like the one that each was prepared with."""

    def __init__(self, library: Path, driver: FakeDriver):
        self.library, self.driver = library, driver

    def prepare(self, kernel, *args, **kwargs):
        bound = bind(kernel, args, kwargs)
        target = targets.GPUS["sm90"]
        launcher = Launcher(call._compile(kernel, bound, target, kernel.candidates("gpu", bound.given)), 0)
        self.prepared = prepared = launcher.prepare(bound)
        ends = [*prepared.offsets[1:], prepared.block.size]
        self.recorder = Recorder(self.library, [min(128, b - a) for a, b in zip(prepared.offsets, ends)])
        for name in Recorder.FUNCTIONS:
            setattr(self.driver, name, getattr(self.recorder.library, name))
        self.driver.cuLaunchKernelEx.argtypes = [ctypes.c_void_p] * 4
        self.driver.cuCtxGetCurrent.argtypes = [ctypes.c_void_p]
        plan = plan_of(kernel, prepared, args, kwargs)
        return None if plan is None else direct.Table(plan).launch

    def refuses(self, launch, *args, **kwargs) -> bool:
        """Whether nothing is launched, and no error is left behind."""
        before = self.recorder.get("launches")
        return launch(*args, **kwargs) is False and self.recorder.get("launches") == before


@pytest.fixture
def gpu(library, cache, monkeypatch) -> Direct:
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(cache))
    return Direct(library, FakeDriver().install(monkeypatch.setattr))


def pair(n=4096):
    return torch.randn(n), torch.empty(n)


def word(number: int) -> bytes:
    return struct.pack("<q", number)


def test_what_reaches_the_driver_is_what_python_launches(gpu):
    x, out = pair()
    launch = gpu.prepare(scale, x, out, 3.0)
    for factor in (3.0, -0.5):
        x, out = pair()
        gpu.prepared.run({"x": x.data_ptr(), "out": out.data_ptr()}, {"factor": factor}, 0)
        expected, config = gpu.recorder.parameters, bytes(gpu.recorder.config)
        assert launch(x, out, factor) is True
        assert gpu.recorder.parameters == expected
        assert expected[:2] == [word(x.data_ptr()), word(out.data_ptr())]
        assert bytes(gpu.recorder.config) == config
    assert gpu.recorder.get("launches") == 4
    assert list(gpu.recorder.config.grid) == [64, 1, 1]
    assert gpu.recorder.get("function", ctypes.c_void_p) == gpu.prepared.launcher.function


def test_descriptors_are_made_for_new_addresses(gpu):
    def factors():
        return [torch.randn(shape).bfloat16() for shape in ((512, 128), (128, 64), (512, 64))]

    first, second = factors(), factors()
    launch = gpu.prepare(matmul, *first)
    made = []
    for given in (first, first, second, (*first[:2], second[2])):
        assert launch(*given)
        direct_ = gpu.recorder.parameters
        made.append(gpu.recorder.get("encodings"))
        cuda_launch.encode.cache_clear()
        addresses = dict(zip("abc", (t.data_ptr() for t in given)))
        gpu.prepared.run(addresses, {}, 0)
        assert direct_ == gpu.recorder.parameters
        assert [p[:8] for p in direct_[:3]] == [word(a) for a in addresses.values()]
        gpu.recorder.set("encodings", made[-1])
    assert made == [3, 3, 6, 8]
    gpu.recorder.set("result_of_encode", 1)
    assert gpu.refuses(launch, *second)
    gpu.recorder.set("result_of_encode", 0)
    assert launch(*second) and gpu.recorder.parameters[0][:8] == word(second[0].data_ptr())


def test_numbers_of_all_types(gpu):
    out = torch.empty(128, dtype=torch.float64)
    kinds = dict(i64="q", i32="i", i16="h", i8="b", u32="I", u8="B", flag="?", f64="d", f32="f")
    first = (1, 2, 3, 4, 5, 6, True, 0.1, 0.2)
    launch = gpu.prepare(numbers_of_all_types, out, *first)
    slots = {name: slot for name, slot, _ in gpu.prepared.scalars}
    assert slots.keys() == kinds.keys()
    lowest = (-(2**63), -(2**31), -(2**15), -128, 0, 0, False, -math.inf, -0.0)
    highest = (2**63 - 1, 2**31 - 1, 2**15 - 1, 127, 2**32 - 1, 255, True, 1e300, 3.4028235e38)
    for values in (first, lowest, highest, (*first[:7], math.nan, 1 / 3)):
        assert launch(out, *values)
        for (name, code), value in zip(kinds.items(), values):
            wanted = struct.pack(code, value)
            assert gpu.recorder.parameters[slots[name]][: len(wanted)] == wanted
    for place, wrong in enumerate((2**63, 2**31, -(2**15) - 1, 128, -1, 256, 1, "x", None)):
        values = list(first)
        values[place] = wrong
        assert gpu.refuses(launch, out, *values), wrong
    for place in range(6):
        values = list(first)
        values[place] = float(values[place])  # which Python takes as a whole number
        assert gpu.refuses(launch, out, *values)


def test_numbers_beyond_f32_are_infinity(gpu):
    x, out = pair()
    launch = gpu.prepare(scale, x, out, 3.0)
    slot = gpu.prepared.scalars[0][1]
    largest = 3.4028234663852886e38
    for value, wanted in (
        (1e39, math.inf),
        (-1e39, -math.inf),
        (largest * (1 + 2**-26), largest),
        (1e-50, 0.0),
    ):
        assert launch(x, out, value)
        assert struct.unpack("f", gpu.recorder.parameters[slot][:4]) == (wanted,)


def test_whole_numbers_for_floats(gpu):
    x, out = pair()
    launch = gpu.prepare(scale, x, out, 3)
    slot = gpu.prepared.scalars[0][1]
    assert launch(x, out, -7) and struct.unpack("f", gpu.recorder.parameters[slot][:4]) == (-7.0,)
    assert gpu.refuses(launch, x, out, 10**400)
    assert gpu.refuses(launch, x, out, 7.0)
    assert gpu.refuses(launch, x, out, True)


class Own(torch.Tensor):
    pass


def negated(n=4096):
    return torch.randn(n, dtype=torch.complex64).conj().imag


x, out = pair()
OTHERS = {
    "size": (torch.randn(4000), out),
    "dimensions": (torch.randn(64, 64), out),
    "stride": (torch.randn(8192)[::2], out),
    "type": (torch.randn(4096).int(), out),
    "width": (torch.randn(4096).double(), out),
    "alignment": (torch.randn(4097)[1:], out),
    "subclass": (torch.randn(4096).as_subclass(Own), out),
    "sparse": (torch.randn(4096).to_sparse(), out),
    "meta": (torch.empty(4096, device="meta"), out),
    "freed": (torch.empty(4096), out),
    "negated": (negated(), out),
    "library": (torch.randn(4096).numpy(), out),
    "no array": (1.0, out),
    "left out": (None, out),
    "fewer": (x,),
    "more": (x, out, 1.0, None, 5),
    "by name": (x,),
}
OTHERS["freed"][0].untyped_storage().resize_(0)


@pytest.mark.parametrize("case", OTHERS)
def test_another_call(gpu, case):
    launch = gpu.prepare(scale, x, out)
    assert launch(x, out)
    if case == "by name":
        assert gpu.refuses(launch, x, out=out)
    else:
        assert gpu.refuses(launch, *OTHERS[case])
    assert launch(x, out)


def test_views_that_are_negated_have_strides_of_their_own(gpu):
    """Like those that the call was prepared with, but for the sign."""
    given = torch.randn(4096, dtype=torch.complex64)
    launch = gpu.prepare(scale, given.imag, out)
    assert launch(given.imag, out)
    assert given.conj().imag.is_neg() and gpu.refuses(launch, given.conj().imag, out)


def test_arguments_by_name_and_constants(gpu):
    bias = torch.randn(4096)
    mode = "".join(["pla", "in"])  # equal to the constant, but another object
    launch = gpu.prepare(scale, x, bias=bias, out=out, B=128, mode="plain", num_warps=4)
    assert launch(x, bias=bias, out=out, B=128, mode=mode, num_warps=4)
    assert gpu.recorder.get("launches") == 1
    for other in (
        dict(bias=bias, out=out, B=64, mode="plain", num_warps=4),
        dict(bias=bias, out=out, B=128.0, mode="plain", num_warps=4),
        dict(bias=bias, out=out, B=128, mode="other", num_warps=4),
        dict(bias=bias, out=out, B=128, mode="plain", num_warps=8),
        dict(bias=bias, out=out, B=128, mode="plain", num_stages=4),
        dict(bias=None, out=out, B=128, mode="plain", num_warps=4),
        dict(out=out, bias=bias, B=128, mode="plain", num_warps=4),
        dict(bias=bias, out=out, B=128, mode="plain"),
    ):
        assert gpu.refuses(launch, x, **other)


def test_parameters_are_tensors_too(gpu):
    weight = torch.nn.Parameter(x)
    launch = gpu.prepare(scale, weight, out)
    assert launch(weight, out)
    assert gpu.refuses(launch, x, out)  # of another type


def test_arrays_that_overlap(gpu):
    memory = torch.randn(3, 8192)
    launch = gpu.prepare(scale, memory[0, :4096], memory[1, :4096])
    assert launch(memory[0, 4096:], memory[0, :4096])
    assert gpu.refuses(launch, memory[0, 4:4100], memory[0, :4096])
    rows = torch.randn(64, 128)
    copied = copy_rows, rows[:, :64], rows[:, 64:]
    launch = gpu.prepare(*copied)
    assert launch(*copied[1:])  # beside each other
    assert gpu.refuses(launch, rows[:, 4:68], rows[:, 64:])
    assert gpu.refuses(launch, rows[:, 64:], rows[:, 64:])


@mc.kernel(grid=lambda M: (M,))
def copy_rows(x: mc.f32["M", 64], out: mc.Out[mc.f32["M", 64]]):
    m = mc.program_id(0)
    mc.store(out, (m, 0), mc.load(x, (m, 0), (1, 64)))


def test_another_context_and_a_launch_that_fails(gpu):
    launch = gpu.prepare(scale, x, out)
    gpu.recorder.set("current_context", FIRST_CONTEXT + 1, ctypes.c_void_p)
    assert gpu.refuses(launch, x, out)
    gpu.recorder.set("current_context", FIRST_CONTEXT, ctypes.c_void_p)
    gpu.recorder.set("result_of_launch", 700)
    assert launch(x, out) is False
    gpu.recorder.set("result_of_launch", 0)
    assert launch(x, out) is True


def test_clusters(gpu):
    launch = gpu.prepare(scale, x, out, num_ctas=2)
    assert launch(x, out, num_ctas=2)
    assert gpu.recorder.config.attribute_count == 1 and list(gpu.recorder.config.grid) == [128, 1, 1]
    assert bytes((ctypes.c_char * 20).in_dll(gpu.recorder.library, "attribute")) == struct.pack(
        "<5i", 4, 0, 2, 1, 1
    )


def test_what_python_launches(gpu, monkeypatch):
    """What has no plan."""
    assert gpu.prepare(scale, torch.empty(0), torch.empty(0)) is None  # no program runs
    assert gpu.prepare(scale, x.numpy(), out.numpy()) is None
    assert gpu.prepare(scale, x.as_subclass(Own), out) is None
    monkeypatch.setenv("MOSAIC_SYNC", "1")
    launch._waits.cache_clear()
    try:
        assert gpu.prepare(scale, x, out) is None
    finally:
        launch._waits.cache_clear()


def test_the_latest_forms_are_tried_first_and_the_oldest_fall_out(gpu, monkeypatch):
    monkeypatch.setattr(direct, "MOST_PLANS", 3)
    calls, plans = [], []
    for n in (64, 128, 192, 256):
        calls.append(pair(n))
        gpu.prepare(scale, *calls[-1])
        plans.append(plan_of(scale, gpu.prepared, calls[-1], {}))
    table = direct.Table()
    assert not table.launch(*calls[0])
    for plan in plans:
        table.put_first(plan)
    assert [table.launch(*given) for given in calls] == [False, True, True, True]
    table.put_first(plans[0])
    assert [table.launch(*given) for given in calls] == [True, False, True, True]
    table.put_first(plans[2])
    table.put_first(plans[1])
    assert [table.launch(*given) for given in calls] == [True, True, True, False]


def test_calls_learn(gpu, monkeypatch):
    """The second call of a form makes the plan, and the third is launched by it."""
    direct.forget()
    launch = gpu.prepare(scale, x, out)
    assert launch is not None and scale not in direct.LAUNCHES
    form = forms.form_of(scale, (x, out), {})
    direct.learn(scale, form, gpu.prepared, (x, out), {})
    monkeypatch.setattr(call.forms, "form_of", None)
    before = gpu.recorder.get("launches")
    scale(x, out)
    assert gpu.recorder.get("launches") == before + 1
    monkeypatch.undo()
    direct.forget()
    assert scale not in direct.LAUNCHES


def test_a_plan_that_falls_out_while_it_is_tried(gpu, monkeypatch):
    """Checking a tensor lets other threads run, which may put other plans in its place."""
    monkeypatch.setattr(direct, "MOST_PLANS", 1)
    table, seen = direct.Table(), []
    gpu.prepare(scale, *pair(64))
    other = plan_of(scale, gpu.prepared, pair(64), {})

    def is_neg(tensor):
        table.put_first(other)
        gc.collect()
        seen.append(alive() is not None)
        return False

    gpu.prepare(scale, x, out)
    monkeypatch.setattr(torch.Tensor, "is_neg", is_neg)
    plan = plan_of(scale, gpu.prepared, (x, out), {})
    alive = weakref.ref(plan)
    table.put_first(plan)
    del plan
    assert table.launch(x, out) is True
    assert seen == [True, True] and alive() is None
    assert gpu.recorder.parameters[0] == word(x.data_ptr())


def test_threads(gpu):
    """References are neither lost nor kept, and each call launches."""
    launch = gpu.prepare(scale, x, out, 3.0)
    counts = [sys.getrefcount(v) for v in (x, out, True, scale)]

    def work() -> None:
        for _ in range(2000):
            assert launch(x, out, 2.5)
            assert launch(x, x, 2.5) is False

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert gpu.recorder.get("launches") == 8000
    after = [sys.getrefcount(v) for v in (x, out, True, scale)]
    assert all(abs(a - b) < 100 for a, b in zip(after, counts))
