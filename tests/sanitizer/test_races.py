"""Races among random blocks, against a detector that compares all pairs of programs; and what else a report says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError

ROWS, COLUMNS, BM, BN = 11, 13, 4, 4
STORE, ADD, READ = 0, 1, 2


@mc.kernel(grid=lambda P: (P,))
def accesses(
    plan: mc.i32["P", "STEPS", 4], a: mc.InOut[mc.f32["M", "N"]], seen: mc.Out[mc.f32["P", "STEPS"]]
):
    """Each program goes through its row of the plan: what it does, and the block's first row and column."""
    p = mc.program_id(0)
    for step in range(plan.shape[1]):
        does = mc.gather(plan, (p, step, 0))
        start = mc.gather(plan, (p, step, 1)), mc.gather(plan, (p, step, 2))
        total = 0.0
        if does == 0:
            mc.store(a, mc.ones((4, 4), mc.f32), offset=start)
        elif does == 1:
            mc.atomic_add(a, mc.ones((4, 4), mc.f32), offset=start)
        else:
            total = mc.load(a, offset=start, shape=(4, 4)).sum()
        mc.store(seen, (p, step), total)


def inside(row: int, column: int) -> set[tuple[int, int]]:
    rows = range(max(0, row), min(ROWS, row + BM))
    columns = range(max(0, column), min(COLUMNS, column + BN))
    return {(i, j) for i in rows for j in columns}


def races(plan: np.ndarray) -> set[tuple[int, int, tuple[int, int]]]:
    """What the second program does, what another did, and the element, for all pairs that may not meet."""
    found = set()
    for q in range(len(plan)):
        for p in range(q):
            for theirs, *at in plan[p, :, :3]:
                for mine, *here in plan[q, :, :3]:
                    if {theirs, mine} not in ({ADD}, {READ}):
                        found |= {(mine, theirs, element) for element in inside(*at) & inside(*here)}
    return found


step = st.tuples(st.integers(0, 2), st.integers(-5, ROWS + 1), st.integers(-5, COLUMNS + 1))
plans = st.integers(1, 3).flatmap(
    lambda steps: st.lists(st.lists(step, min_size=steps, max_size=steps), min_size=1, max_size=5)
)
VERBS = {"writes": STORE, "adds to": ADD, "reads": READ}
PAST = {"wrote": STORE, "added to": ADD, "read": READ}


@settings(max_examples=150, deadline=None)
@given(plans)
@example([[(READ, 0, 0)], [(STORE, 3, 3)]])
@example([[(ADD, 0, 0), (STORE, 0, 0)], [(ADD, 3, 3), (ADD, 0, 0)]])
def test_random_blocks(rows):
    plan = np.array([[(*s, 0) for s in row] for row in rows], np.int32)
    seen = np.zeros(plan.shape[:2], np.float32)
    report = accesses.sanitize(plan, np.zeros((ROWS, COLUMNS), np.float32), seen)
    expected = races(plan)
    found = {}
    for finding in report.findings:
        assert finding.kind == "race" and finding.array == "a"
        words = finding.message.split()
        mine = next(n for verb, n in VERBS.items() if f") {verb} a[" in finding.message)
        theirs = next(n for verb, n in PAST.items() if finding.message.endswith(f") {verb}"))
        assert (mine, theirs, finding.element) in expected, words
        assert (mine, theirs) not in found
        found[mine, theirs] = finding
        check_example(plan, finding, mine, theirs)
    assert set(found) == {(mine, theirs) for mine, theirs, _ in expected}
    for pair, finding in found.items():
        assert finding.count >= len({e for *kinds, e in expected if tuple(kinds) == pair})


def check_example(plan, finding, mine: int, theirs: int) -> None:
    """The programs of an example do what is said, at its element and in its lane."""
    (q, _, _), (p, _, _) = finding.program, finding.other_program
    assert p < q
    assert any(does == theirs and finding.element in inside(*at) for does, *at in plan[p, :, :3])
    starts = [at for does, *at in plan[q, :, :3] if does == mine]
    assert any(tuple(np.add(start, finding.lane)) == finding.element for start in starts)


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B), 2))
def staggered(x: mc.f32["N"], out: mc.InOut[mc.f32["N"]], total: mc.InOut[mc.f32["N"]], *, B: mc.Const = 16):
    i, side = mc.program_id(0), mc.program_id(1)
    mc.atomic_add(total, i, mc.load(x, i, B))
    mc.store(out, mc.load(x, i, B) + mc.load(total, i, B), offset=B * i + side * 5)
    mc.scatter(out, mc.iota(B) * 2, mc.load(x, i, B))


PASSES = [
    None,
    "canonicalize",
    "tile-canonicalize",
    "hoist-loads",
    "propagate-divisibility",
    "choose-memory-path",
]


@pytest.mark.parametrize("after", PASSES[1:])
def test_races_are_the_same_after_passes(after):
    x, zeros = np.arange(37, dtype=np.float32), np.zeros(37, np.float32)

    def found(after):
        report = staggered.sanitize(x, zeros.copy(), zeros.copy(), after=after)
        return [(f.kind, f.message, f.frames, f.other, f.count) for f in report.findings]

    assert len(found(None)) > 3
    assert found(after) == found(None)


def test_clipped():
    @mc.kernel(grid=lambda M: (mc.cdiv(M, 4),))
    def kernel(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M"]]):
        i, lane = mc.program_id(0), mc.iota(4)
        rows = mc.load(x, (i, 0), (4, 8)).sum(1)
        mc.store(out, i, rows + mc.gather(x, (4 * i + lane, lane + 3), mask=lane < 3))

    report = kernel.sanitize(np.ones((6, 5), np.float32), np.zeros(6, np.float32))
    assert report.ok
    counts = [(c.array, c.outside, c.total) for c in report.clipped]
    # 2 programs: blocks of 32 over 6 x 5 elements; of 3 unmasked lanes, columns 3 and 4 are inside, rows to 6;
    # stores of 4 over 6.
    assert counts == [("x", 64 - 30, 64), ("x", 6 - 4, 6), ("out", 2, 8)]
    assert "34 of 64 elements of this access lie outside x" in report.render(clipped=True)
    assert "lie outside" not in str(report)


def test_a_finding_says_where():
    @mc.kernel(grid=(3,))
    def kernel(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
        i = mc.program_id(0)
        mc.store(out, i, mc.sqrt(mc.load(x, i, 4)))

    x = np.ones(11, np.float32)
    x[[6, 7, 9]] = -1
    out = np.zeros(11, np.float32)
    report = kernel.sanitize(x, out)
    (finding,) = report.findings
    assert (finding.kind, finding.count) == ("nan", 3)
    assert (finding.array, finding.element, finding.lane) == ("out", (6,), (2,))
    assert (finding.program, finding.other_program) == ((1, 0, 0), None)
    assert "mc.sqrt" in finding.frames[-1].source_line() and finding.other[-1].column == 8
    assert not report.ok and report.programs == 3
    np.testing.assert_array_equal(np.isnan(out), x < 0)


def test_unknown_array():
    with pytest.raises(ArgumentError, match="names 'y', which is no array of this call"):
        accesses.sanitize(
            np.zeros((1, 1, 4), np.int32),
            np.zeros((4, 4), np.float32),
            np.zeros((1, 1), np.float32),
            uninitialized=["y"],
        )
