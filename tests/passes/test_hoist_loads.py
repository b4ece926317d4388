"""hoist-loads: what leaves a loop, and what must not."""

import mosaic_compile as mc
from mosaic_compile.passes.hoist_loads import HoistLoads

from .helpers import PREPARE, checked

PASS = HoistLoads()


@checked(*PREPARE, PASS)
@mc.kernel
def test_out_of_two_loops(a: mc.f32["N"], i: mc.i32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: %[[I:.*]] = "tile.load"(%arg1
    # CHECK: "tile.gather"(%arg0, %[[I]])
    # CHECK: scf.for
    # CHECK: scf.for
    # CHECK-NOT: tile.load
    # CHECK-NOT: tile.gather
    # CHECK: return
    for j in range(n):
        for k in range(n):
            mc.store(out, j + k, mc.gather(a, mc.load(i, 0, 16)))


@checked(*PREPARE, PASS)
@mc.kernel
def test_as_far_as_its_offset_allows(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: scf.for
    # CHECK: tile.load
    # CHECK: scf.for
    # CHECK-NOT: tile.load
    # CHECK: tile.store
    for j in range(n):
        for k in range(n):
            mc.store(out, k, mc.load(a, j, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_not_what_the_loop_changes(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: scf.for
    # CHECK: tile.load
    # CHECK: tile.load
    at = mc.i32(0)
    for k in range(n):
        x = mc.load(a, k, 16) + mc.load(a, at, 16)
        at = at * 2 + 1
        mc.store(out, k, x)


@checked(*PREPARE, PASS)
@mc.kernel
def test_not_from_an_array_that_is_written(x: mc.f32["N"], n: mc.i32):
    # CHECK: scf.for
    # CHECK: tile.load
    for k in range(n):
        mc.store(x, k, mc.load(x, 0, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_not_from_an_array_that_is_written_later(x: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # Another program may be there already.
    # CHECK: scf.for
    # CHECK: tile.load
    for k in range(n):
        mc.store(out, k, mc.load(x, 0, 16))
    mc.scatter(x, mc.iota(16), mc.zeros((16,), mc.f32))


@checked(*PREPARE, PASS)
@mc.kernel
def test_not_from_under_an_if(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: scf.for
    # CHECK: scf.if
    # CHECK: tile.load
    for k in range(n):
        if k > 3:
            mc.store(out, k, mc.load(a, 0, 16))


@checked(*PREPARE, PASS)
@mc.kernel
def test_not_out_of_a_while_loop(a: mc.f32["N"], n: mc.i32, out: mc.f32["N"]):
    # CHECK: scf.while
    # CHECK: tile.load
    k = mc.i32(0)
    while k < n:
        mc.store(out, k, mc.load(a, 0, 16))
        k = k + 1
