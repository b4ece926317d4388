"""Memory is moved 128 bits at a time wherever rows are known to be whole 16-byte words: read off the PTX for sm80."""

import re

import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.driver import Compilation, compile_kernel
from mosaic_compile.kernels.flash_attention import flash_attention
from mosaic_compile.kernels.matmul import matmul
from mosaic_compile.kernels.rms_norm import rms_norm
from mosaic_compile.kernels.softmax import softmax
from mosaic_compile.kernels.vector_add import vector_add
from mosaic_compile.language.dtypes import DTYPES

T = mc.DTypeVar("T", *DTYPES.values())


@mc.kernel(grid=lambda M, N: (M,))
def row(x: T["M", "N"], y: T["M", "N"]):
    m = mc.program_id(0)
    mc.store(y, (m, 0), mc.load(x, (m, 0), (1, 4096)))


@mc.kernel(grid=lambda M, N: (M,))
def row_of_view(x: T["M", "N"], y: T["M", "N"]):
    m = mc.program_id(0)
    for n in range(mc.cdiv(x.shape[1], 1024)):
        mc.store(y[m], n, mc.load(x[m], n, 1024))


@mc.kernel(grid=lambda M, N: (M,))
def row_at(x: T["M", "N"], y: T["M", "N"], o: mc.i32):
    m = mc.program_id(0)
    mc.store(y, (m, 0), mc.load(x, offset=(m, o * 32), shape=(1, 4096)))


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)))
def transposed(x: T["M", "N"], y: T["N", "M"]):
    i, j = mc.program_id(0), mc.program_id(1)
    mc.store(y, (j, i), mc.load(x, (i, j), (64, 64)).T)


def accesses(kernel, **choices) -> set[str]:
    """How global memory is accessed: "ld.global.v4.b32", "cp.async 16" …"""
    outcome = compile_kernel(kernel, kernel.specialize(**choices), Compilation(targets.find("sm80")))
    ptx = outcome.results["ptx"]
    copies = re.findall(r"cp\.async\.\S+ \[.*?\], \[.*?\], (0x[0-9a-f]+)", ptx)
    return set(re.findall(r"\b(?:ld|st)\.global[\w.:]*", ptx)) | {
        f"cp.async {int(size, 16)}" for size in copies
    }


WIDE = {"ld.global.v4.b32", "st.global.v4.b32"}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_rows(dtype):
    wide = {"ld.global.v2.b64", "st.global.v2.b64"} if dtype.bits == 64 else WIDE
    assert accesses(row, T=dtype) == wide


@pytest.mark.parametrize("kernel", [row, row_of_view, row_at, transposed], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("choices", [{}, {"dims": {"N": 4096, "M": 128}}], ids=["masked", "fixed"])
def test_patterns(kernel, choices):
    assert accesses(kernel, T=mc.bf16, **choices) == WIDE


def test_rows_of_any_length():
    """Neighbours may lie on both sides of the edge."""
    assert accesses(row, T=mc.bf16, multiples={"N": 1}) == {"ld.global.b16", "st.global.b16"}


@pytest.mark.parametrize(
    "kernel, choices",
    [
        (vector_add, {"multiples": {"N": 16}}),
        (softmax, {}),
        (rms_norm, {}),
        (softmax, {"dims": {"N": 4096}}),
        (rms_norm, {"dims": {"N": 4096}}),
    ],
)
def test_row_kernels(kernel, choices):
    assert accesses(kernel, **choices) == WIDE


@pytest.mark.parametrize(
    "choices", [{}, {"dims": {"M": 4096, "N": 4096, "K": 4096}}], ids=["masked", "fixed"]
)
def test_matrix_product(choices):
    assert accesses(matmul, **choices) == {"cp.async 16", "st.global.v4.b32"}


def test_attention():
    assert accesses(flash_attention) == {"cp.async 16", *WIDE}
