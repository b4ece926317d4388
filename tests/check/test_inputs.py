"""Arguments that are made for a kernel: sizes, numbers, files, and mistakes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile import kernels
from mosaic_compile.check.inputs import Wanted, make_inputs
from mosaic_compile.errors import ArgumentError, UsageError

T = mc.DTypeVar("T", mc.f32, mc.bf16)


@mc.kernel(grid=lambda M, N, BM: (mc.cdiv(M, BM), N // 2))
def mixed(
    x: T["B", "M", "N"],
    index: mc.i32["M"],
    small: mc.i8["M", 4],
    flags: mc.bool_["N"],
    out: mc.Out[T["M", "N"]],
    count: mc.Out[mc.u8["M"]],
    scale: mc.f32,
    offset: mc.i32 = 3,
    flag: mc.bool_ = False,
    w: mc.f32["K"] | None = None,
    *,
    BM: mc.Const = 32,
    D: mc.Const = 16,
):
    m = mc.program_id(0)
    mc.store(out, (m, 0), mc.load(x[0], (m, 0), (BM, D)) * scale.to(out.dtype))


SIZES = {
    "vector_add": dict(N=1032),
    "matmul": dict(M=136, K=88, N=264),
    "flash_attention": dict(B=2, H=2, S=104, D=128, HK=2, T=88),
    "softmax": dict(M=104, N=72),
    "histogram": dict(N=520, BINS=120),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_two_tiles_of_which_one_is_cut(name):
    inputs = make_inputs(getattr(kernels, name), Wanted())
    assert inputs.sizes == SIZES[name]
    assert list(inputs.sizes) == [d for d in getattr(kernels, name).signature.dims if d in inputs.sizes]


def test_what_is_given_comes_first():
    inputs = make_inputs(
        kernels.matmul, Wanted(given=dict(BM=16, BN=16), dims=dict(M=5), multiples=dict(K=16))
    )
    assert inputs.sizes == dict(M=5, K=112, N=72)
    assert inputs.arguments["BM"] == 16 and inputs.arguments["a"].shape == (5, 112)
    inputs = make_inputs(kernels.flash_attention, Wanted(given=dict(D=32, E="f32")))
    assert inputs.sizes["D"] == 32 and inputs.arguments["q"].dtype == np.float32
    assert "E" not in inputs.arguments


def test_values():
    made = make_inputs(mixed, Wanted(arrays=frozenset({"w"}))).arguments
    assert {n: v.shape for n, v in made.items() if isinstance(v, np.ndarray)} == {
        "x": (2, 104, 72), "index": (104,), "small": (104, 4), "flags": (72,), "out": (104, 72), "count": (104,),
        "w": (120,),
    }  # fmt: skip
    assert abs(made["x"].mean()) < 0.1 and abs(made["x"].std() - 1) < 0.1
    assert made["index"].min() >= 0 and made["index"].max() < 2, (
        "below the smallest dimension of other arrays"
    )
    assert (made["small"].min(), made["small"].max()) == (-8, 7)
    assert set(made["flags"].tolist()) == {True, False}
    assert np.isnan(made["out"]).all() and (made["count"] == 77).all()
    assert (made["scale"], made["offset"], made["flag"]) == (1, 3, False)
    made = make_inputs(mixed, Wanted(given=dict(scale=0.5, offset=7, flag=1, T="bf16")))
    assert [made.arguments[n] for n in ("scale", "offset", "flag")] == [0.5, 7, True]
    assert made.arguments["x"].dtype == ml_dtypes.bfloat16


def test_the_seed_decides():
    first, same, other = (make_inputs(mixed, Wanted(seed=seed)).arguments["x"] for seed in (0, 0, 1))
    assert (first == same).all() and (first != other).any()


def test_indices_that_cannot_be_used_with_another_array_are_small():
    assert make_inputs(kernels.vector_add, Wanted(given=dict(T="i32"))).arguments["x"].min() == -8
    labels = make_inputs(kernels.cross_entropy, Wanted()).arguments["labels"]
    assert labels.dtype == np.int64 and labels.min() >= 0 and 60 < labels.max() < 72


def test_files(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4).astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "x.npy", x)  # NumPy writes two bytes an element, without a name for the type
    np.save(tmp_path / "w.npy", np.arange(5.0))
    files = {"x": tmp_path / "x.npy", "w": tmp_path / "w.npy"}
    inputs = make_inputs(mixed, Wanted(given=dict(T="bf16"), files=files))
    assert inputs.sizes == dict(B=2, M=3, N=4, K=5)
    assert (inputs.arguments["x"] == x).all() and inputs.arguments["x"].dtype == x.dtype
    assert inputs.arguments["w"].dtype == np.float32


def test_mistakes(tmp_path):
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    for files, message in (
        ({"y": tmp_path / "flat.npy"}, "--input y: 'mixed' has no such array"),
        ({"x": tmp_path / "none.npy"}, "--input x: '.*none.npy' cannot be read: No such file or directory"),
        ({"x": tmp_path / "text.npy"}, "--input x: '.*text.npy' cannot be read"),
    ):
        with pytest.raises(UsageError, match=message):
            make_inputs(mixed, Wanted(files=files))
    with pytest.raises(ArgumentError, match=r"'x' is T\[B, M, N\], but its file has the shape \(3,\)"):
        make_inputs(mixed, Wanted(files={"x": tmp_path / "flat.npy"}))
    with pytest.raises(ArgumentError, match="the kernel has no constant 'BK'"):
        make_inputs(mixed, Wanted(given=dict(BK=4)))
    with pytest.raises(ArgumentError, match="the kernel has no dimension 'Z'"):
        make_inputs(mixed, Wanted(dims=dict(Z=4)))
    with pytest.raises(ArgumentError, match="the kernel has no optional array 'bias'"):
        make_inputs(mixed, Wanted(arrays=frozenset({"bias"})))
