"""check-kernel: the message that a user sees, and kernels that must pass."""

import re

import pytest

import mosaic_compile as mc
from mosaic_compile.errors import (
    NothingStoredError,
    OutsideArrayError,
    PackedElementsError,
    UnwrittenOutputError,
)
from mosaic_compile.frontend import trace
from mosaic_compile.passes.check_kernel import CheckKernel


def check(kernel, **choices):
    CheckKernel().run(trace(kernel, kernel.specialize(**choices)))


@mc.kernel
def reads_only(a: mc.f32["N"]):
    mc.load(a, 0, 16)


@mc.kernel
def forgets_one(a: mc.f32["N"], b: mc.Out[mc.f32["N"]], c: mc.Out[mc.f32["N"]]):
    mc.store(b, 0, mc.load(a, 0, 16))


@mc.kernel
def from_the_end(a: mc.f32["N", "N"], out: mc.f32["N"]):
    mc.store(out, 0, mc.load(a[-1], 0, 16))


@mc.kernel
def behind_the_end(a: mc.f32["N"], out: mc.f32[64]):
    mc.store(out, 4, mc.load(a, 0, 16))


@mc.kernel
def half_a_byte(a: mc.i4["M", "N"], out: mc.i8["M", "N"]):
    mc.store(out, (0, 0), mc.load(a, (0, 0), (16, 1)).to(mc.i8))


@pytest.mark.parametrize(
    "kernel, error, message, source",
    [
        (reads_only, NothingStoredError, "the kernel 'reads_only' writes nothing", "def reads_only"),
        (forgets_one, UnwrittenOutputError, "declares 'c' as output but never writes it", "def forgets_one"),
        (from_the_end, OutsideArrayError, "mc.load: index -1 is outside dimension 0 of 'a'", "mc.load(a[-1]"),
        (
            behind_the_end,
            OutsideArrayError,
            "mc.store: the block 64 to 79 is outside dimension 0 of 'out', which has the size 64",
            "mc.store(out, 4",
        ),
        (half_a_byte, PackedElementsError, "the block has 1 of 'a's elements in a row", "mc.load(a, (0, 0)"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_mistakes(kernel, error, message, source):
    with pytest.raises(error, match=re.escape(message)) as caught:
        check(kernel)
    frame = caught.value.frames[-1]
    assert frame.file.endswith("test_check_kernel.py")
    assert frame.source_line()[frame.column :].startswith(source)
    assert caught.value.help


@mc.kernel
def prints(a: mc.f32["N"]):
    mc.device_print("a", mc.load(a, 0, 16))


@mc.kernel
def adds(a: mc.Out[mc.f32["N"]], b: mc.Out[mc.f32["N"]]):
    mc.atomic_add(a, 0, mc.zeros((16,), mc.f32))
    mc.scatter(b, mc.iota(16), mc.zeros((16,), mc.f32))


@mc.kernel
def reaches_over_the_edges(a: mc.f32[64], out: mc.f32["N"]):
    x = mc.load(a, offset=-15, shape=16) + mc.load(a, offset=63, shape=16)
    mc.store(out, 1000, x)  # how long out is, is known at launch


@mc.kernel
def behind_an_if(a: mc.f32[64], n: mc.i32, out: mc.f32["N"]):
    if n > 1:
        mc.store(out, 0, mc.load(a, 100, 16))
    mc.store(out, 0, mc.load(a, 0, 16))


@mc.kernel
def even_rows(a: mc.i4["M", "N"], out: mc.i8["M", "N"]):
    mc.store(out, (0, 0), mc.load(a, (0, 0), (1, 16)).to(mc.i8))


@pytest.mark.parametrize(
    "kernel", [prints, adds, reaches_over_the_edges, behind_an_if, even_rows], ids=lambda kernel: kernel.name
)
def test_what_passes(kernel):
    check(kernel)


def test_the_message_as_it_is_shown():
    with pytest.raises(OutsideArrayError) as caught:
        check(from_the_end)
    lines = caught.value.render().splitlines()
    assert lines[0] == "error: mc.load: index -1 is outside dimension 0 of 'a'"
    assert lines[3].endswith("|     mc.store(out, 0, mc.load(a[-1], 0, 16))")
    assert lines[4].endswith("|                      ^^^^^^^^^^^^^^^^^^^^^")
    assert lines[5].startswith("help: indices never count from the end")
