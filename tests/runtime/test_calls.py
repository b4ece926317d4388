"""Calling kernels on arrays of the host, through the interpreter: results, and the whole message of each mistake."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.runtime import cuda
from mosaic_compile.runtime.arguments import bind, specialize_call

T = mc.DTypeVar("T", mc.f32, mc.f16, mc.bf16, mc.f8e4m3, mc.f8e5m2, mc.i32, mc.u8)


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def add(
    x: T["N"], y: T["N"], out: mc.Out[T["N"]], n: mc.i8, extra: mc.f32["N"] | None = None, *, B: mc.Const = 16
):
    i = mc.program_id(0)
    tile = mc.load(x, i, B).to(mc.f32) + mc.load(y, i, B).to(mc.f32) * n.to(mc.f32)
    if extra is not None:
        tile = tile + mc.load(extra, i, B)
    mc.store(out, i, tile.to(out.dtype))


@mc.kernel(grid=lambda M: (M,))
def transpose(a: mc.f32["M", "N"], c: mc.Out[mc.f32["N", "M"]]):
    m = mc.program_id(0)
    mc.store(c, (0, m), mc.transpose(mc.load(a, (m, 0), (1, 64))))


@mc.kernel(grid=(1,))
def fixed(a: mc.f32["M", 8], c: mc.Out[mc.f32["M", 8]]):
    mc.store(c, (0, 0), mc.load(a, (0, 0), (16, 8)))


def ramp(n: int = 40, dtype=np.float32) -> np.ndarray:
    return np.arange(n).astype(dtype)


def message(call) -> str:
    with pytest.raises((ArgumentError, LaunchError)) as error:
        call()
    first, *rest = error.value.render().splitlines()
    assert first.startswith("error: ") and rest[-1].startswith("help: ")
    return f"{first.removeprefix('error: ')} / {rest[-1].removeprefix('help: ')}"


x, y = ramp(), ramp()
FORM = "its form is add(x, y, out, n, extra, *, B)"
MISTAKES = {
    "missing array": (lambda: add(x, y), f"add: the array 'out' is missing / {FORM}"),
    "missing scalar": (lambda: add(x, y, ramp()), f"add: the scalar 'n' is missing / {FORM}"),
    "unknown keyword": (lambda: add(x, y, ramp(), 1, BLOCK=4), f"add: got an unexpected keyword argument 'BLOCK' / {FORM}"),
    "twice": (lambda: add(x, y, ramp(), 1, x=x), f"add: multiple values for argument 'x' / {FORM}"),
    "too many": (lambda: add(x, y, ramp(), 1, None, 2), f"add: too many positional arguments / {FORM}"),
    "no array": (
        lambda: add([1, 2], y, ramp(), 1),
        "'x' takes an array, not list [1, 2] / pass a NumPy array, a PyTorch tensor or a JAX array",
    ),
    "element type of the variable": (
        lambda: add(x.astype(np.float64), y.astype(np.float64), ramp(dtype=np.float64), 1),
        "the element type T cannot be f64 / the kernel takes f32, f16, bf16, f8e4m3, f8e5m2, i32, u8",
    ),
    "two element types": (
        lambda: add(x, y.astype(np.float16), ramp(), 1),
        "the element type T is f32 in one array and f16 in 'y' / pass arrays of one element type",
    ),
    "unknown element type": (
        lambda: add(x.astype(np.complex64), y, ramp(), 1),
        "'x' has elements of type complex64, which kernels do not have / convert it to one of "
        "f64, f32, f16, bf16, f8e4m3, f8e5m2, i64, i32, i16, i8, i4, u8, u32, bool",
    ),
    "element type": (
        lambda: fixed(np.zeros((4, 8)), np.zeros((4, 8), np.float32)),
        "'a' is f32[M, 8], but the array holds f64 / convert it to f32",
    ),
    "rank": (
        lambda: fixed(ramp(8), np.zeros((4, 8), np.float32)),
        "'a' is f32[M, 8] with 2 dimensions, but the array has the shape (8,) / reshape or index the array",
    ),
    "fixed dimension": (
        lambda: fixed(np.zeros((4, 9), np.float32), np.zeros((4, 8), np.float32)),
        "'a' is f32[M, 8], but the array has the shape (4, 9) / this dimension must be 8",
    ),
    "dimensions that differ": (
        lambda: add(x, ramp(41), ramp(), 1),
        "the dimension N is 40 in 'x', but 41 in 'y' / pass arrays whose shapes fit together",
    ),
    "scalar too large": (lambda: add(x, y, ramp(), 128), "'n' is of type i8, which does not hold 128 / pass a whole number from -128 to 127"),
    "scalar not whole": (lambda: add(x, y, ramp(), 1.5), "'n' is of type i8, which does not hold 1.5 / pass a whole number from -128 to 127"),
    "scalar a bool": (lambda: add(x, y, ramp(), True), "'n' is of type i8, which does not hold True / pass a whole number from -128 to 127"),
    "scalar a text": (lambda: add(x, y, ramp(), "1"), "'n' takes a number, not str '1' / pass a Python number"),
    "bytes between elements": (
        lambda: add(np.zeros(40, np.dtype([("a", "f4"), ("b", "u1")]))["a"], y, ramp(), 1),
        "'x' has strides of (5,) bytes, not whole elements / pass a copy: np.ascontiguousarray(…)",
    ),
    "output overlaps": (
        lambda: add(x, y, x, 1),
        "'out' is written by the kernel and shares memory with 'x' / pass an array of its own for the output",
    ),
    "output overlaps a part": (
        lambda: add((both := ramp(60))[:40], y, both[20:], 1),
        "'out' is written by the kernel and shares memory with 'x' / pass an array of its own for the output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_message(case):
    call, expected = MISTAKES[case]
    assert message(call) == expected


def test_a_read_only_output():
    frozen = ramp()
    frozen.flags.writeable = False
    expected = "'out' is written by the kernel, but this array cannot be written / pass a writable array (JAX arrays are immutable)"
    assert message(lambda: add(x, y, frozen, 1)) == expected
    add(frozen, frozen, out := ramp(), 1)  # for reading it will do, twice too
    np.testing.assert_array_equal(out, 2 * frozen)


def test_messages_point_at_the_kernel():
    with pytest.raises(ArgumentError) as error:
        add(x, y)
    assert error.value.frames[-1].source_line()[error.value.frames[-1].column :].startswith("add(")


class OnGpu:
    """An f32 array at an address of a GPU."""

    def __init__(self, address: int, size: int = 40, step: int = 1):
        self.__cuda_array_interface__ = {
            "typestr": "<f4", "shape": (size,), "strides": (4 * step,), "data": (address, False), "version": 3
        }  # fmt: skip


def test_arrays_on_different_devices():
    assert message(lambda: add(x, OnGpu(4096), ramp(), 1)) == (
        "the arrays are on different devices: 'x' on cpu, 'y' on cuda:0, 'out' on cpu / move them to one device"
    )


@pytest.fixture
def gpu_memory(monkeypatch):
    """2048 elements of a GPU's memory, from address 4096 on."""
    memory = np.zeros(2048, np.float32)
    cells = memory.view(np.uint8)

    def upload(device, address, contents):
        cells[address - 4096 :][: contents.size] = contents

    monkeypatch.setattr(cuda, "download", lambda device, low, high: cells[low - 4096 : high - 4096].copy())
    monkeypatch.setattr(cuda, "upload", upload)
    return memory


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("by", ["method", "variable"])
def test_interpreting_arrays_of_a_gpu(gpu_memory, by, step, monkeypatch):
    gpu_memory[:] = np.arange(2048)
    before = gpu_memory.copy()
    arrays = OnGpu(4096, 40, step), OnGpu(4096 + 4 * 100), OnGpu(4096 + 4 * 1000, 40, step)
    if by == "method":
        add.interpret(*arrays, 1)
    else:
        monkeypatch.setenv("MOSAIC_INTERPRET", "1")
        add(*arrays, 1)
    written = slice(1000, 1000 + 40 * step, step)
    np.testing.assert_array_equal(gpu_memory[written], before[: 40 * step : step] + before[100:140])
    before[written] = gpu_memory[written]
    np.testing.assert_array_equal(gpu_memory, before)


# What is right.


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, np.int32, np.uint8, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
def test_numpy(dtype):
    a, b, out = ramp(10, dtype), ramp(10, dtype), np.zeros(10, dtype)
    assert add(a, b, out, np.int8(2)) is None
    np.testing.assert_array_equal(
        out.astype(np.float32), (a.astype(np.float32) * 3).astype(dtype).astype(np.float32)
    )


def test_views_negative_strides_and_keywords():
    base, out = ramp(80), np.zeros(80, np.float32)
    add(x=base[::2], y=base[:40][::-1], out=out[40:], n=1, extra=base[40:], B=32, num_warps=2)
    np.testing.assert_array_equal(out[40:], base[::2] + base[:40][::-1] + base[40:])
    assert not out[:40].any()


def test_two_dimensions_and_nothing():
    a = ramp(6 * 50).reshape(6, 50)
    for view in (a, a[::2, 1::3], a.T[:, :5], np.zeros((0, 5), np.float32), np.zeros((5, 0), np.float32)):
        out = np.zeros(view.shape[::-1], np.float32)
        transpose(view, out)
        np.testing.assert_array_equal(out, view.T)


def test_torch():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        a, out = torch.arange(8, dtype=torch.float32).to(dtype), torch.zeros(8, dtype=dtype)
        add(a, a, out, 1)
        assert torch.equal(out.to(torch.float32), (a.to(torch.float32) * 2).to(dtype).to(torch.float32))
    a = torch.arange(300, dtype=torch.float32).reshape(6, 50)[::2, ::3]
    out = torch.zeros(50, 6)[: a.shape[1], :3]
    transpose(a, out)
    assert torch.equal(out, a.T)
    assert message(lambda: add(a.to("meta"), y, ramp(), 1)).startswith(
        "'x' is on the device 'meta' / kernels run on CUDA tensors"
    )


def without_memory(kind):
    """Tensors of PyTorch that a kernel cannot read."""
    torch = pytest.importorskip("torch")
    x = torch.ones(40)
    if kind == "fake":
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            return torch.ones(40)
    if kind == "given back":
        x.untyped_storage().resize_(0)
        return x
    if kind == "negative":
        return torch.view_as_complex(torch.ones(40, 2)).conj().imag
    return x.to_sparse()


WITHOUT_MEMORY = {
    "fake": "'x' is a FakeTensor of layout torch.strided, without memory of its own / ",
    "sparse": "'x' is a Tensor of layout torch.sparse_coo, without memory of its own / ",
    "given back": "'x' is a Tensor of layout torch.strided, without memory of its own / ",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WITHOUT_MEMORY)
def test_tensors_without_memory(kind):
    torch = pytest.importorskip("torch")
    add(torch.ones(40), torch.ones(40), out := torch.zeros(40), 1)  # a call that is remembered
    for _ in range(2):
        assert message(lambda: add(without_memory(kind), torch.ones(40), out, 1)) == (
            f"{WITHOUT_MEMORY[kind]}pass a plain tensor; torch.compile takes kernels that are torch.library ops"
        )


def test_tensors_that_are_negated_when_they_are_read():
    torch = pytest.importorskip("torch")
    out = torch.zeros(40)
    add(without_memory("negative").resolve_neg()[:40], torch.ones(40), out, 1)
    assert not out.any()
    expected = "'x' is a view whose elements are still to be negated / pass x.resolve_neg()"
    assert message(lambda: add(without_memory("negative"), torch.ones(40), out, 1)) == expected


def test_parameters_subclasses_and_gradients():
    torch = pytest.importorskip("torch")
    x, ones = torch.arange(40, dtype=torch.float32), torch.ones(40)
    own = type("Own", (torch.Tensor,), {})
    for value in (torch.nn.Parameter(x), x.clone().requires_grad_(), x.as_subclass(own)):
        for _ in range(2):
            add(value, ones, out := torch.zeros(40), 1)
            assert torch.equal(out, x + 1)


def test_a_read_only_array_over_dlpack():
    frozen = ramp()
    frozen.flags.writeable = False
    for _ in range(2):
        add(OverDLPack(frozen), y, out := ramp(), 1)
        np.testing.assert_array_equal(out, frozen + y)
    expected = "'out' is written by the kernel, but this array cannot be written / pass a writable array (JAX arrays are immutable)"
    assert message(lambda: add(x, y, OverDLPack(frozen), 1)) == expected
    assert message(lambda: add(OldDLPack(frozen), y, ramp(), 1)).startswith(
        "'x' gives no access to its memory: "
    )


def test_jax():
    jnp = pytest.importorskip("jax.numpy")
    a, out = jnp.arange(40, dtype=jnp.bfloat16), np.zeros(40, ml_dtypes.bfloat16)
    add(a, a, out, 1)
    np.testing.assert_array_equal(out.astype(np.float32), (np.asarray(a) + np.asarray(a)).astype(np.float32))
    assert message(lambda: add(a, a, a + 0, 1)).startswith(
        "'out' is written by the kernel, but this array cannot be written"
    )


class OverDLPack:
    """An array that other libraries see through DLPack only."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class OldDLPack(OverDLPack):
    """From before DLPack 1.0."""

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__(stream=stream)


def test_dlpack():
    out = np.zeros(40, np.float32)
    add(OverDLPack(x), OverDLPack(x[::-1].copy()), OverDLPack(out), 1)
    np.testing.assert_array_equal(out, x + x[::-1])
    with pytest.raises(
        ArgumentError, match=r"'x' has elements of type DLPack code 5, 64 bits, which kernels do not have"
    ):
        add(OverDLPack(x.astype(np.complex64)), x, out, 1)


@mc.kernel
def with_rows(x: T["M", "N"], bias: mc.f32["N"] | None = None):
    pass


@pytest.mark.parametrize(
    ("x", "bias", "multiples"),
    [
        (np.zeros((32, 3000), np.float16), None, dict(M=16, N=8)),
        (np.zeros((32, 3004), np.float16), None, dict(M=16)),
        (np.zeros((3, 3004), np.float32), None, dict(N=4)),
        (np.zeros((3, 3008), np.float16), None, dict(N=16)),
        (np.zeros((3, 3004), np.float16), np.zeros(3004, np.float32), dict(N=4)),
        (np.zeros((3, 3001), np.float16)[:, :3000], None, {}),  # rows that start anywhere
        (np.zeros((3000, 5), np.float16).T, None, {}),  # dimension N has no neighbours
        (np.zeros((5, 0), np.float16), None, {}),
    ],
    ids=range(8),
)
def test_rows_of_whole_words(x, bias, multiples):
    """What vector loads need to know of a row's length."""
    bound = bind(with_rows, (x,) if bias is None else (x, bias), {})
    assert specialize_call(with_rows, bound).dim_multiples == multiples
