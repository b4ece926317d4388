"""Planted mistakes are found in the first row that has them, with the elements, tiles and programs."""

from __future__ import annotations

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.check import case as cases
from mosaic_compile.check import executors
from mosaic_compile.errors import ArgumentError, TargetLimitError, UnknownTargetError
from mosaic_compile.mlir import ir
from mosaic_compile.passes import HoistLoads, PropagateDivisibility, TileToTT, walk
from mosaic_compile.runtime.arguments import specialize_call

from .planted import SCALE, arguments, change_constant, grid, plant, reference, scale


def statuses(report) -> dict[str, str]:
    return {row.ran: row.status for row in report.rows}


def first_wrong(report):
    return next(row for row in report.rows if not row.ok)


def test_a_right_kernel():
    given = arguments()
    report = SCALE.check(**given, target="sm90")
    assert report.ok and report.fault is None
    assert statuses(report) == {"reference": "ok", "tile passes": "ok", "tt": "ok", "sm90": "absent"}
    assert np.isnan(given["out"]).all(), "the caller's arrays are left alone"


def test_a_wrong_reference():
    def wrong(x):
        out = reference(x)
        out[35, 20] += 1
        return out

    report = mc.kernel(scale, grid=grid, reference=wrong).check(**arguments(), target="sm90")
    assert statuses(report) == {"reference": "differs", "tile passes": "ok", "tt": "ok", "sm90": "absent"}
    assert report.fault == "'scale' and its reference do not agree: one of the two is wrong"
    found = first_wrong(report).difference
    assert found.wrong == 1
    (worst,) = found.worst(5)
    assert worst.index == (35, 20) and worst.error == pytest.approx(1, rel=1e-6)
    write = report.writes.of("out", worst.index)
    assert (write.program, write.offsets, write.extents) == ((2, 1, 0), (32, 16), (16, 16))
    assert write.place.source_line().strip() == "mc.store(out, (m, n), tile)"


def test_a_wrong_pass(monkeypatch):
    plant(monkeypatch, HoistLoads, 0.5, 1.5)
    report = SCALE.check(**arguments(), target="sm90")
    assert statuses(report) == {
        "reference": "ok",
        "tile passes": "differs",
        "tt": "differs",
        "sm90": "absent",
    }
    assert report.fault == "the pass 'hoist-loads' changes what the kernel means"
    row = first_wrong(report)
    assert row.ran == "tile passes" and row.difference.wrong == 16 * 24
    wrong = np.argwhere(row.difference.ratio > 1)
    assert wrong[:, 0].min() == 16 and wrong[:, 0].max() == 31
    assert row.difference.max_error == pytest.approx(1, rel=1e-5)
    assert {report.writes.of("out", e.index).program[0] for e in row.difference.worst(9)} == {1}


def test_a_wrong_lowering(monkeypatch):
    plant(monkeypatch, TileToTT, 0.5, 0.25)
    for target in ("sm90", "gfx942"):
        report = SCALE.check(**arguments(), target=target)
        assert list(statuses(report).values()) == ["ok", "ok", "differs", "absent"]
        assert (
            report.fault
            == "the stage tt, which lowers the tile dialect to Triton's, changes what the kernel means"
        )


def test_a_pass_that_claims_too_much(monkeypatch):
    """What is outside of the array is accessed: the program fails, and its message is the row's."""
    run = PropagateDivisibility.run

    def wrong(self, module):
        run(self, module)
        for op in walk.operations(module.operation):
            if op.name == "tile.store":
                with module.context:
                    op.attributes["in_bounds"] = ir.DenseBoolArrayAttr.get([True, True])

    monkeypatch.setattr(PropagateDivisibility, "run", wrong)
    report = SCALE.check(**arguments(), target="sm90")
    assert statuses(report)["tile passes"] == "failed"
    assert report.fault == "the pass 'propagate-divisibility' changes what the kernel means"
    message = (
        "array axis 0 is marked as in bounds, but elements 32 to 48 of 40 are accessed, in program (2, 0, 0)"
    )
    assert first_wrong(report).reason == message
    error, _, _, line, carets = str(report).splitlines()[-5:]
    assert error == f"error: {message}"
    assert line.endswith("|     mc.store(out, (m, n), tile)") and carets.endswith(
        "|     ^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    )


def machine_that(monkeypatch, change):
    """This machine as one with an sm90, that computes what the interpreter does and then changes it."""

    def run(kernel, bound, spec, target, gpu, given):
        kernel.interpret(**given)
        change(given["out"])

    monkeypatch.setattr(cases, "gpu_of", lambda bound, target: 0)
    monkeypatch.setattr(cases, "best_fit", lambda kernel, bound, target, gpu: specialize_call(kernel, bound))
    monkeypatch.setattr(executors.machine, "run_on_gpu", run)


def test_a_wrong_machine(monkeypatch):
    def change(out):
        out[3, 4] = np.inf

    machine_that(monkeypatch, change)
    report = SCALE.check(**arguments(), target="sm90")
    assert statuses(report) == {"reference": "ok", "tile passes": "ok", "tt": "ok", "sm90": "differs"}
    assert report.fault == "Triton's compiler, or sm90 itself, computes something else than the stage tt says"
    (worst,) = first_wrong(report).difference.worst(5)
    assert (worst.index, worst.got, worst.error) == ((3, 4), np.inf, np.inf)


def test_a_machine_of_other_rounding(monkeypatch):
    def change(out):
        out *= np.float32(1 + 2**-21)

    machine_that(monkeypatch, change)
    assert SCALE.check(**arguments(), target="sm90").ok


def test_a_kernel_without_a_reference():
    report = mc.kernel(scale, grid=grid).check(**arguments(), target="sm90")
    assert report.ok and report.rows[0].status == "absent"
    assert "reference    the kernel has none: @mc.kernel(reference=…)" in str(report)


REFERENCES = {
    "raised ZeroDivisionError: division by zero": lambda x: 1 / 0,
    "gives 'out' the shape (24, 40), which is (40, 24)": lambda x: x.T,
    "gives 2 arrays, the kernel writes out": lambda x: (x, x),
    "raised TypeError: <lambda>() missing 1 required positional argument: 'y'": lambda x, y: x,
}


@pytest.mark.parametrize("message", REFERENCES)
def test_a_reference_that_fails(message):
    report = mc.kernel(scale, grid=grid, reference=REFERENCES[message]).check(**arguments(), target="sm90")
    assert report.rows[0].status == "failed" and not report.ok
    assert report.rows[0].reason.replace("REFERENCES.", "").startswith(f"the reference of 'scale' {message}")


@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def negated(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], count: mc.Out[mc.i32["N"]]):
    i = mc.program_id(0)
    tile = mc.load(x, i, 16)
    mc.store(out, i, mc.sqrt(tile) * 2.0)
    mc.store(count, i, tile.to(mc.i32))


def test_nan_is_equal_to_nan_and_integers_must_be_equal(monkeypatch):
    x = np.arange(-20, 20).astype(np.float32)
    given = {"x": x, "out": np.zeros(40, np.float32), "count": np.zeros(40, np.int32)}
    report = negated.check(**given, target="sm90")
    assert report.ok and np.isnan(report.roundings["out"].exact).sum() == 20
    assert (report.roundings["count"].tolerance() == 0).all()

    def run(kernel, bound, spec, target, gpu, given):
        kernel.interpret(**given)
        given["count"][7] += 1
        given["out"][0] = 0

    machine_that(monkeypatch, None)
    monkeypatch.setattr(executors.machine, "run_on_gpu", run)
    report = negated.check(**given, target="sm90")
    assert [(r.output, r.difference.wrong) for r in report.rows if r.status == "differs"] == [
        ("out", 1),
        ("count", 1),
    ]


def test_views_and_i4_are_passed_as_they_lie():
    """A part of every second column of a larger array, from behind; the lowered code relies on strides."""
    given = arguments(80, 60)
    x, out = given["x"][::-2, 3:51:2], given["out"][:40, :24]
    before = given["x"].copy()
    report = SCALE.check(x, out, target="sm90")
    assert report.ok, report
    assert np.isnan(given["out"]).all() and (given["x"] == before).all()


def test_mistakes_of_the_caller():
    given = arguments()
    with pytest.raises(ArgumentError, match="the array 'out' is missing"):
        SCALE.check(given["x"])
    with pytest.raises(UnknownTargetError, match="there is no target 'sm_90'"):
        SCALE.check(**given, target="sm_90")


def test_another_back_end_is_one_executor_more(monkeypatch):
    def run(case):
        given = case.arguments()
        given["out"][...] = reference(given["x"])
        return case.written(given)

    def explain(case, right):
        return f"it was run again: {not right(run(case))}"

    mine = executors.Executor("mine for {target}", run, lambda case: None, explain)
    elsewhere = executors.Executor("elsewhere", run, lambda case: "not here", explain)
    monkeypatch.setitem(executors.EXECUTORS, "triton", (mine, elsewhere))
    report = SCALE.check(**arguments(), target="sm80")
    assert statuses(report) == {"mine for sm80": "ok", "elsewhere": "absent"}
    assert str(report).splitlines()[-1] == "ok: mine for sm80 agrees with the interpreter"

    wrong = mc.kernel(scale, grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), 1))  # half of the columns
    report = wrong.check(**arguments(), target="sm80")
    assert statuses(report)["mine for sm80"] == "differs" and report.fault == "it was run again: True"


def test_what_the_target_refuses_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr("mosaic_compile.check.run.roundings", None)
    with pytest.raises(TargetLimitError, match="a tile has the size 12, but sizes on sm80 are powers of two"):
        SCALE.check(**arguments(), BM=12, target="sm80")


def test_a_grid_without_programs():
    report = SCALE.check(np.zeros((0, 24), np.float32), np.zeros((0, 24), np.float32), target="sm90")
    assert report.ok, report


def test_change_constant_is_a_mistake_that_can_be_seen():
    """What the tests plant changes something, and is refused where it would not."""
    with pytest.raises(AssertionError):
        change_constant(_traced(), 123.0, 1.0)


def _traced():
    return cases.make_case(SCALE, _bound(), "sm90").lowered(0)


def _bound():
    from mosaic_compile.runtime.arguments import bind

    return bind(SCALE, (), arguments())
