"""What is kept of tuning: names, buckets, files under processes that write, read and die."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import CacheError
from mosaic_compile.runtime import threads
from mosaic_compile.tuning import lookup, results
from mosaic_compile.tuning.results import Kept, bucket, name_of

from .processes import ROOT, kill, says, start, stops_when, until_now
from .samples import FAST, SLOW, scale

ABOUT = {"device": "a GPU", "driver": "1"}
KEPT = Kept(dict(B=64), 2.5, dict(N=100))


def vectors(size=100_000):
    return np.ones(size, np.float32), np.zeros(size, np.float32)


def taken(size=100_000):
    """The constant that a call takes."""
    return scale.compile(*vectors(size)).constants["B"]


def test_dimensions_share_buckets_up_to_a_power_of_two():
    sizes = (0, 1, 7, 16, 17, 32, 33, 4095, 4096, 4097)
    assert [bucket(dict(N=n))["N"] for n in sizes] == [0, 1, 7, 16, 32, 32, 64, 4096, 4096, 8192]


def test_the_name_says_device_driver_kernel_candidates_and_bucket():
    def name(about=ABOUT, kernel="k", entries=(SLOW,), sizes=dict(M=20, N=16)):  # noqa: B006
        return name_of(about, kernel, entries, sizes)

    assert name() == name(about=dict(reversed(ABOUT.items()))) == name(sizes=dict(M=32, N=16))
    others = [
        name(about={**ABOUT, "driver": "2"}),
        name(about={**ABOUT, "device": "another"}),
        name(kernel="l"),
        name(entries=(SLOW, FAST)),
        name(sizes=dict(M=33, N=16)),
        name(sizes=dict(M=20, N=15)),
        name(sizes=dict(M=16, N=20)),
    ]
    assert len({name(), *others}) == 8


@pytest.mark.parametrize(
    "entry", [{}, dict(B=64), dict(B=2, num_warps=8), dict(B=None), dict(B=mc.bf16), dict(B="a")]
)
def test_a_result_comes_back(entry):
    kept = Kept(entry, 2.5, dict(N=100))
    results.keep("name", scale, ABOUT, kept)
    assert results.look_up("name", scale) == kept
    assert results.look_up("other", scale) is None


def test_the_file_is_for_people_too():
    results.keep("name", scale, ABOUT, KEPT)
    assert json.loads((results.folder() / "name.json").read_text()) == {
        "format": 1, "kernel": "scale", "device": "a GPU", "driver": "1", "bucket": {"N": 128}, "sizes": {"N": 100},
        "settings": {"B": 64}, "microseconds": 2.5,
    }  # fmt: skip


GOOD = {"format": 1, "settings": {"B": 64}, "microseconds": 2.5, "sizes": {}}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        json.dumps({**GOOD, "format": 2}).encode(),
        json.dumps({**GOOD, "settings": {"C": 64}}).encode(),
        json.dumps({**GOOD, "settings": {"B": [64]}}).encode(),
        json.dumps({**GOOD, "settings": {"B": {"dtype": "f99"}}}).encode(),
        json.dumps({**GOOD, "settings": None}).encode(),
        json.dumps({**GOOD, "microseconds": "fast"}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "sizes"}).encode(),
        json.dumps(GOOD).encode()[:-9],
    ],
)
def test_a_damaged_file_counts_as_none(contents):
    results.keep("name", scale, ABOUT, KEPT)
    (results.folder() / "name.json").write_bytes(contents)
    assert results.look_up("name", scale) is None
    results.keep("name", scale, ABOUT, KEPT)
    assert results.look_up("name", scale) == KEPT


def test_a_folder_that_cannot_be_written(cache):
    cache.mkdir()
    (cache / "tuned").write_text("in the way")
    with pytest.raises(CacheError) as raised:
        scale.autotune(*vectors())
    assert (raised.value.message, raised.value.help) == (
        f"the cache folder '{cache / 'tuned'}' cannot be used: File exists",
        "set MOSAIC_CACHE_DIR to a folder that can be written",
    )


# Calls.


def test_calls_take_what_was_found():
    assert taken() == 1
    scale.autotune(*vectors())
    assert taken() == taken(70_000) == 2048
    assert taken(200_000) == 1  # another bucket
    x, out = vectors()
    scale(x, out)
    np.testing.assert_array_equal(out, 3 * x)


def test_a_call_that_was_prepared_before_takes_it_too(monkeypatch):
    x, out = vectors()
    scale(x, out)
    scale.autotune(x, out)
    loaded = []
    real = lookup.kept_for
    monkeypatch.setattr(lookup, "kept_for", lambda *args: loaded.append(real(*args)) or loaded[-1])
    scale(x, out)
    scale(x, out)
    assert loaded == [FAST]  # the second call is like the first: nothing is looked for


def test_what_a_call_sets_counts():
    scale.autotune(*vectors())
    assert scale.compile(*vectors(), B=4).constants["B"] == 4


def test_the_number_of_threads_counts():
    before = threads.get_num_threads()
    try:
        mc.set_num_threads(1)
        scale.autotune(*vectors())
        assert taken() == 2048
        mc.set_num_threads(2)
        assert taken() == 1
    finally:
        mc.set_num_threads(before)


def test_nothing_is_looked_for_where_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(lookup, "machine_of", lambda device: pytest.fail("looked for"))
    scale(*vectors())


def test_the_environment_tunes_calls_like_none_before(monkeypatch):
    from mosaic_compile.tuning import autotune

    tuned = []
    real = autotune.tune
    monkeypatch.setattr(
        autotune, "tune", lambda kernel, bound, *rest: tuned.append(bound.sizes) or real(kernel, bound, *rest)
    )
    monkeypatch.setenv("MOSAIC_AUTOTUNE", "1")
    x, out = vectors()
    scale(x, out)
    np.testing.assert_array_equal(out, 3 * x)
    scale(*vectors())
    scale(*vectors(99_999))
    assert [sizes["N"] for sizes in tuned] == [100_000, 99_999]  # of which 16 is no factor: other code
    scale(*vectors(), B=4)  # leaves nothing to choose
    assert len(tuned) == 2 and taken() == 2048


# Processes.

PROGRAM = """\
import sys
import numpy as np
from mosaic_compile import targets
from mosaic_compile.runtime.arguments import bind
from tests.tuning.samples import scale
from mosaic_compile.tuning import autotune, results

arrays = np.ones(100_000, np.float32), np.zeros(100_000, np.float32)
"""
TAKEN = PROGRAM + "print(scale.compile(*arrays).constants['B'])"
TUNES = PROGRAM + "scale.autotune(*arrays); print('done')"
COMPILING, TIMING = (stops_when(f"{what!r} in doing.values()") for what in ("compiling", "timing"))
GOES_ON = """
print("now", flush=True)
scale.autotune(*arrays, candidates=[dict(B=n) for n in range(3, 40)])
"""
STOPS_WRITING = """
import os
def replace(*names):
    if str(names[1]).endswith(".json") and "tuned" in str(names[1]):
        print("now", flush=True)
        __import__("time").sleep(60)
    real(*names)
real, os.replace = os.replace, replace
"""


def children(process: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(file.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_compilers_end_with_the_process_that_started_them():
    process = until_now(PROGRAM + GOES_ON)
    end = time.monotonic() + 60
    while len(workers := children(process.pid)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1.0)
    assert len(workers) >= 3
    kill(process)
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert taken() == 1


def test_other_processes_take_what_was_found():
    assert says(TAKEN) == "1"
    scale.autotune(*vectors())
    assert says(TAKEN) == "2048"


@pytest.mark.parametrize(
    "end",
    [COMPILING, TIMING, STOPS_WRITING],
    ids=["compiling", "timing", "writing"],
)
def test_a_process_that_is_killed_leaves_the_cache_usable(end):
    kill(until_now(PROGRAM + end + "scale.autotune(*arrays)"))
    assert taken() == 1  # nothing was kept
    lookup._found.clear()
    begin = time.monotonic()
    scale.autotune(*vectors())  # its lock is free
    assert time.monotonic() - begin < 50 and taken() == 2048


def test_one_process_tunes_on_a_device_at_a_time():
    holder = until_now(PROGRAM + TIMING + "scale.autotune(*arrays)")
    other = start(TUNES)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5)
    finally:
        kill(holder)
    assert other.communicate(timeout=120)[0] == "done\n"


def write_again_and_again(number: int, folder: str) -> None:
    os.environ["MOSAIC_CACHE_DIR"] = folder
    for count in range(200):
        results.keep("shared", scale, ABOUT, Kept(dict(B=number), float(count), dict(N=10 ** (count % 9))))


def test_readers_see_whole_results_while_processes_write(cache):
    results.keep("shared", scale, ABOUT, KEPT)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_again_and_again, args=(n, str(cache))) for n in (1, 2, 3)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = results.look_up("shared", scale)
        assert found is not None
        seen.add(found.entry["B"])
    assert all(writer.exitcode == 0 for writer in writers)
    assert seen <= {1, 2, 3, 64} and len(seen) > 1
    assert [file.name for file in results.folder().iterdir()] == [
        "shared.json"
    ]  # nothing is left lying about


def test_where_a_kernels_text_stands_does_not_matter(tmp_path):
    """A line more above it, or another way to its file, leave what was found."""
    from mosaic_compile.kernel_file import load_kernels

    text = (ROOT / "tests/tuning/samples.py").read_text()
    kernels = []
    for number, more in enumerate(("", "# A comment.\n\n")):
        (tmp_path / f"kernels{number}.py").write_text(more + text)
        kernels.append(load_kernels(tmp_path / f"kernels{number}.py")["scale"])
    first, moved = kernels
    first.autotune(*vectors())
    assert moved.compile(*vectors()).constants["B"] == 2048


def test_check_runs_what_a_call_runs():
    from mosaic_compile.check.case import make_case
    from mosaic_compile.runtime.arguments import bind

    def checked():
        return make_case(scale, bind(scale, vectors(), {}), "cpu").spec.constants

    assert checked() == SLOW
    scale.autotune(*vectors())
    assert checked() == FAST
