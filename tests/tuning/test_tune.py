"""What tuning tries, leaves out, times and finds."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mosaic_compile import targets
from mosaic_compile.errors import ArgumentError, LaunchError, TuningError
from mosaic_compile.runtime.arguments import bind
from mosaic_compile.tuning import compile as compiling
from mosaic_compile.tuning.candidates import choices
from mosaic_compile.tuning.measure import FIRST
from mosaic_compile.tuning.tune import tune

from .machines import RATES, Planned
from .samples import hopeless, increment, picky, scale, warps

MISSED = "assertion failed: needs long tiles"
CPU = targets.host_cpu()


def vectors(size=4096):
    return np.ones(size, np.float32), np.zeros(size, np.float32)


def entries(report):
    return [dict(row.entry) for row in report.rows]


def test_a_planted_slow_candidate_loses():
    x, out = vectors(100_000)
    report = scale.autotune(x, out)
    assert report.best.entry == dict(B=2048)
    slow, fast = report.rows
    assert slow.timing.hopeless is False and slow.microseconds > 1.5 * fast.microseconds
    assert not out.any()  # tuning works on copies
    scale(x, out)
    np.testing.assert_array_equal(out, 3 * x)


def test_what_a_kernel_reads_and_writes_stays_as_it_is():
    x = np.arange(4096, dtype=np.float32)
    increment.autotune(x)
    np.testing.assert_array_equal(x, np.arange(4096))


def test_candidates_of_one_code_are_tried_once():
    bound = bind(warps, vectors(), {})
    assert [c.entry["num_warps"] for c in choices(warps, bound, "gpu")] == [4, 8]
    assert [c.entry["num_warps"] for c in choices(warps, bound, "cpu")] == [4]
    assert [c.entry for c in choices(scale, bind(scale, vectors(), {}), "cpu", [dict(B=1), dict(B=64)])] == [
        dict(B=1), dict(B=2048), dict(B=64),
    ]  # fmt: skip


def test_what_a_call_sets_is_not_tuned():
    bound = bind(scale, vectors(), dict(B=32))
    (only,) = choices(scale, bound, "cpu")
    assert only.spec.constants == dict(B=32)


def test_candidates_beside_those_of_the_kernel():
    machine = Planned(lambda program: {1: 5.0, 2048: 4.0, 64: 3.0}[program.constants["B"]])
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine, [dict(B=64)])
    assert report.best.entry == dict(B=64) and entries(report) == [dict(B=1), dict(B=2048), dict(B=64)]


@pytest.mark.parametrize(
    "added, message, help",
    [
        (dict(C=1), "a candidate sets 'C', which is not a constant of 'scale'", "there are: B, maxnreg, num_ctas, num_stages, num_warps"),
        (7, "the candidate 7 is no dict", "write candidates=[dict(BLOCK=64, num_warps=4)]"),
        (dict(B=4), "'B' is set by the call and by a candidate", "leave it out of one of the two"),
    ],
)  # fmt: skip
def test_candidates_that_are_none(added, message, help):
    with pytest.raises(ArgumentError) as raised:
        scale.autotune(*vectors(), candidates=[added], **({"B": 8} if help.startswith("leave") else {}))
    assert (raised.value.message, raised.value.help) == (f"scale.autotune: {message}", help)


def test_a_candidate_that_cannot_be_kept():
    with pytest.raises(ArgumentError) as raised:
        scale.autotune(*vectors(), candidates=[dict(B=np.int64(4))])
    assert raised.value.message == f"'scale' cannot be tuned: a candidate sets 'B' to {np.int64(4)!r}"


def test_a_candidate_that_does_not_compile_is_said_and_skipped():
    x, out = vectors()
    report = picky.autotune(x, out)
    assert report.best.entry == dict(B=16)
    assert [row.state for row in report.rows] == ["failed", "timed", "failed"]
    assert [row.why for row in report.rows] == [MISSED, "", MISSED]
    picky(x, out)  # for which the first entry would fail
    np.testing.assert_array_equal(out, x)


def test_no_candidate_is_left():
    with pytest.raises(TuningError) as raised:
        hopeless.autotune(*vectors())
    assert str(raised.value).splitlines() == [
        f"error: no candidate of 'hopeless' can be used: B=8: {MISSED}; B=4: {MISSED}",
        f"  --> {hopeless.span}",
        "   |",
        f'{hopeless.span.line} | def hopeless(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):',
        "   |     ^^^^^^^^",
        "help: choose constants or shapes that satisfy it",
    ]


def test_candidates_that_do_not_fit_a_gpu():
    """Compiled for a GPU that is not here: what needs too much shared memory is left out, with the reason."""
    import ml_dtypes

    from mosaic_compile.kernels import matmul

    a, b, c = (np.zeros((256, 256), ml_dtypes.bfloat16) for _ in range(3))
    tiles = [dict(BM=128, BN=128, BK=256, num_stages=4), dict(BM=64, BN=64, BK=32, num_stages=2)]
    bound = bind(matmul, (a, b, c), dict(GROUP_M=1, num_warps=8))
    machine = Planned(lambda program: 10.0, rates=RATES)
    report = tune(matmul, bound, targets.GPUS["sm90"], machine, tiles)
    large, small = (row for row in report.rows if row.entry in tiles)
    assert small.state == "timed"
    assert large.state == "failed" and "bytes of shared memory, sm90 has 232448" in large.why


def test_a_launch_that_fails_is_said_and_skipped():
    def times(program):
        if program.constants["B"] == 1:
            raise LaunchError("too many resources requested for launch")
        return 3.0

    report = tune(scale, bind(scale, vectors(), {}), CPU, Planned(times))
    assert [(row.state, row.why) for row in report.rows] == [
        ("failed", "too many resources requested for launch"),
        ("timed", ""),
    ]


def test_a_hopeless_candidate_is_launched_a_few_times():
    machine = Planned(lambda program: {1: 100.0, 2048: 90.0, 64: 300.0}[program.constants["B"]])
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine, [dict(B=64)])
    assert [row.timing.hopeless for row in report.rows] == [False, False, True]
    assert report.rows[2].timing.launches == FIRST
    assert report.best.entry == dict(B=2048)


def test_a_candidate_that_takes_for_ever_is_launched_once():
    machine = Planned(lambda program: {1: 100.0, 2048: 2001.0}[program.constants["B"]])
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine)
    assert sum(program.constants["B"] == 2048 for program in machine.launched) == 1
    assert report.rows[1].timing.hopeless and "hopeless: 1 launch\n" in str(report)


def test_candidates_that_are_close_are_timed_again_in_turn():
    machine = Planned(lambda program: {1: 100.0, 2048: 95.0, 64: 120.0}[program.constants["B"]])
    tune(scale, bind(scale, vectors(), {}), CPU, machine, [dict(B=64)])
    order = [program.constants["B"] for program in machine.launched]
    changes = [b for a, b in zip([None, *order], order) if a != b]
    assert changes == [1, 2048, 64, *[1, 2048] * 5]


def test_noise_does_not_decide():
    """The first is slower, but its launches before the finals are measured while the machine happens to be fast."""
    machine = Planned(lambda program: 0.0)

    def times(program):
        luck = 0.96 if len(machine.launched) < 100 else 1.0
        return {1: 100.0 * luck, 2048: 97.0}[program.constants["B"]]

    machine.times = times
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine)
    assert report.best.entry == dict(B=2048)


def test_registers_that_do_not_suffice():
    machine = Planned(
        lambda program: 5.0, lambda program: {"local_memory": {1: 0, 2048: 1000}[program.constants["B"]]}
    )
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine)
    assert report.rows[1].why == "left out: 1000 bytes a thread do not fit into registers"
    assert report.rows[1].state == "pruned" and report.best.entry == dict(B=1)


def end_process_for_short_tiles(text, options, target):
    """As compile._timed; the process ends at kernels with a tile of one element."""
    if "tensor<1xf32>" in text:
        os._exit(1)
    return real_timed(text, options, target)


real_timed = compiling._timed


def test_a_compiler_that_ends_its_process(monkeypatch):
    monkeypatch.setattr(compiling, "_timed", end_process_for_short_tiles)
    report = tune(
        scale, bind(scale, vectors(), {}), CPU, Planned(lambda program: 5.0), [dict(B=64), dict(B=32)]
    )
    assert [row.state for row in report.rows] == ["failed", "timed", "timed", "timed"]
    assert report.rows[0].why == "the back end ended its process"


def test_what_is_shown_while_tuning(capfd):
    report = scale.autotune(*vectors(100_000), progress=True)
    shown = capfd.readouterr().err
    assert shown.startswith(f"scale with N=100000 on {report.about['device']}\n")
    lines = [line.split() for line in shown.splitlines()[1:]]
    assert lines[0] == ["candidate", "compile", "s", "time", "quartiles", "ratio"]
    assert [line[0] for line in lines[1:]] == ["B=1", "B=2048"]
    assert "1.00" in [line[-1] for line in lines[1:]], "the fastest"


def test_nothing_is_shown_where_nobody_looks(capfd):
    scale.autotune(*vectors())
    assert capfd.readouterr().err == ""


def test_each_step_is_watched():
    seen = []

    def watch(rows, doing):
        seen.append(([row.state for row in rows], dict(doing)))

    tune(scale, bind(scale, vectors(), {}), CPU, Planned(lambda program: 5.0), watch=watch)
    assert seen[0] == (["waiting", "waiting"], {})
    assert seen[1] == (["waiting", "waiting"], {0: "compiling", 1: "compiling"})
    assert (["waiting", "waiting"], {0: "timing"}) in seen
    assert (["timed", "timed"], {0: "timing again", 1: "timing again"}) in seen
    assert seen[-1] == (["timed", "timed"], {})


def test_the_report_as_text():
    machine = Planned(lambda program: {1: 2000.0, 2048: 1600.0}[program.constants["B"]])
    report = tune(scale, bind(scale, vectors(), {}), CPU, machine)
    title, head, slow, fast, summary = str(report).splitlines()
    assert title == "scale with N=4096 on a planned machine"
    assert head.split() == ["candidate", "compile", "s", "time", "quartiles", "ratio"]
    assert slow.split()[2:] == ["2.00", "ms", "2.00", "ms", "…", "2.00", "ms", "1.25"]
    assert fast.split()[2:] == ["1.60", "ms", "1.60", "ms", "…", "1.60", "ms", "1.00"]
    assert summary.startswith("best: B=2048, 1.60 ms, 1.25x as fast as B=1; ")


@pytest.mark.parametrize("target", ["sm90", "cpu"])
def test_other_processes_compile_to_the_same_bytes(target, cache, monkeypatch):
    from mosaic_compile import driver
    from mosaic_compile.kernels import matmul

    found = targets.find(target)
    specs = [matmul.specialize(tuned=dict(BM=64, BN=64, BK=32, num_warps=4, num_stages=2), dims=dict(K=64))]
    elsewhere = []
    compiling.compile_all(matmul, specs, found, lambda *result: elsewhere.append(result[1]))
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(cache / "another"))
    here = driver.cached_artifact(matmul, specs[0], driver.Compilation(found))
    assert elsewhere == [here]
