"""`kernel.check` on a GPU: its results agree with the interpreter's, and the caller's tensors are left alone."""

from collections.abc import Mapping

import numpy as np
import pytest

from mosaic_compile import kernels
from mosaic_compile.check.inputs import Wanted, make_inputs

torch = pytest.importorskip("torch")

TORCH = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def to_gpu(value):
    """An array as a CUDA tensor; PyTorch takes the bits of the types that NumPy does not know."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.name in TORCH:
        bits = value.view(np.int16 if value.itemsize == 2 else np.uint8)
        return torch.from_numpy(bits).cuda().view(TORCH[value.dtype.name])
    return torch.from_numpy(value).cuda()


ROWS = dict(BM=4, BN=128)
PRODUCT = dict(BM=64, BN=64, BK=32)


def indices(name: str, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Those that depend on one another."""
    if name == "varlen_attention":
        return dict(
            query_starts=np.array([0, 150, 150, 300], np.int32),
            key_starts=np.array([0, 150, 160, 400], np.int32),
        )
    if name == "paged_attention":
        table = np.random.default_rng(0).permutation(sizes["PAGES"]).reshape(sizes["B"], sizes["MOST"])
        room = sizes["MOST"] * sizes["PAGE"]
        return dict(page_table=table.astype(np.int32), lengths=np.array([room, 1, room - 75], np.int32))
    return {}


# Kernel, what --set says, what --shape says, the optional arrays.
CASES = [
    ("vector_add", {}, dict(N=5000), ()),
    ("softmax", dict(T="f32"), dict(M=20, N=5000), ()),
    ("rms_norm", ROWS, dict(M=20, N=300), ()),
    ("layer_norm", dict(T="f32", **ROWS), dict(M=20, N=300), ("bias", "mean", "rstd")),
    ("cumsum", ROWS, dict(M=20, N=300), ()),
    ("gelu", dict(T="f32"), dict(M=20, N=300), ()),
    ("gated", {}, dict(M=20, N=300), ()),
    ("cross_entropy", dict(label_smoothing=0.1, **ROWS), dict(M=20, V=300), ("lse",)),
    ("gather_rows", {}, dict(N=50, V=60, D=200), ()),
    ("histogram", {}, {}, ()),
    ("rope", dict(D=64, R=16), dict(S=20, H=8), ("positions",)),
    (
        "matmul",
        dict(**PRODUCT, scale=0.5, activation="gelu"),
        dict(M=200, N=136, K=264),
        ("bias", "residual"),
    ),
    ("matmul", dict(**PRODUCT, T="f8e4m3"), dict(M=200, N=144, K=528), ()),
    ("matmul", dict(**PRODUCT, T="f32", U="f32"), dict(M=200, N=136, K=264), ()),
    ("matmul", dict(**PRODUCT, T="f32", U="f32", precision="tf32"), dict(M=200, N=136, K=264), ()),
    ("persistent_matmul", PRODUCT, dict(M=200, N=136, K=264), ()),
    ("batched_matmul", PRODUCT, dict(M=200, N=136, K=264, BB=1), ()),
    ("split_k_matmul", dict(**PRODUCT, SPLIT=3), dict(M=72, N=136, K=520), ()),
    ("flash_attention", dict(D=64, scale=0.125, causal=True), dict(S=200, T=136), ("lse",)),
    ("flash_attention", dict(D=128, scale=0.09, E="f16"), dict(S=136, T=300, H=4), ("lse",)),
    ("flash_attention", dict(D=64, scale=0.125, causal=True, window=70, softcap=5.0), dict(S=200, T=136), ()),
    (
        "varlen_attention",
        dict(D=64, scale=0.125, causal=True),
        dict(S=300, T=400, STARTS=4, H=4, HK=2),
        ("lse",),
    ),
    (
        "paged_attention",
        dict(D=64, PAGE=16, scale=0.125),
        dict(SPLITS=2, B=3, HK=2, G=4, MOST=20, PAGES=60),
        ("lse",),
    ),
    (
        "paged_attention",
        dict(D=64, PAGE=64, scale=0.125),
        dict(SPLITS=3, B=3, HK=2, G=20, MOST=5, PAGES=15),
        (),
    ),
    ("merge_attention", dict(D=128), dict(SPLITS=20, N=30), ("lse",)),
]


@pytest.mark.parametrize("name, given, dims, arrays", CASES, ids=[case[0] for case in CASES])
def test_the_gpu_agrees(name, given, dims, arrays):
    kernel = getattr(kernels, name)
    inputs = make_inputs(kernel, Wanted(given=given, dims=dims, arrays=frozenset(arrays)))
    tensors = {n: to_gpu(v) for n, v in {**inputs.arguments, **indices(name, inputs.sizes)}.items()}
    before = {n: t.clone() for n, t in tensors.items() if isinstance(t, torch.Tensor)}
    report = kernel.check(**tensors)
    assert report.ok, report
    assert report.rows[-1].ran == report.case.target.name and report.rows[-1].status == "ok"
    for n, tensor in before.items():
        bits = (tensor.contiguous().view(torch.uint8), tensors[n].contiguous().view(torch.uint8))
        assert torch.equal(*bits), f"'{n}' was written"


def test_arrays_on_the_host_are_checked_on_the_gpu_too():
    x, out = (
        np.random.default_rng(0).standard_normal((20, 96)).astype(np.float32),
        np.zeros((20, 48), np.float32),
    )
    report = kernels.softmax.check(x[:, ::-2], out)  # strides that are not 1 are kept on the GPU
    assert report.ok and report.rows[-1].difference is not None, report
    assert (out == 0).all()
