"""Several processes, and processes that end early: nothing half-written is ever taken for whole."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mosaic_compile import cache
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import CacheError

KERNEL = """\
import mosaic_compile as mc


@mc.kernel(grid=lambda N: (mc.cdiv(N, 128),), tune=[dict(num_warps=1)])
def twice(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, 128) * 2.0)
"""
COMMAND = (sys.executable, "-m", "mosaic_compile.cli", "twice.py", "--target", "sm90")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "twice.py").write_text(KERNEL)
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "MOSAIC_CACHE_DIR": str(folder / "cache"), **more}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def at_ptxas(folder: Path, statement: str) -> dict[str, str]:
    """An environment in which Python runs a statement before each start of the assembler (by an audit hook)."""
    (folder / "sitecustomize.py").write_text(
        "import sys, time\n"
        "def hook(event, arguments):\n"
        "    if event == 'subprocess.Popen' and '--gpu-name' in str(arguments[1]):\n"
        f"        {statement}\n"
        "sys.addaudithook(hook)\n"
    )
    return environment(folder, PYTHONPATH=os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
def test_the_same_input_gives_the_same_bytes(folder, target):
    results = []
    for seed in ("1", "2"):
        out, dump = folder / f"out{seed}", folder / f"ir{seed}"
        command = [*COMMAND[:-1], target, "-o", str(out), "--dump-ir", str(dump)]
        subprocess.run(
            command, cwd=folder, env=environment(folder, PYTHONHASHSEED=seed), check=True, capture_output=True
        )
        index = json.loads((dump / "index.json").read_text())
        for entry in index["passes"]:
            del entry["milliseconds"]
        del index["stages"]  # their times
        (dump / "index.json").write_text(json.dumps(index))
        results.append((digests(out), digests(dump)))
    assert results[0] == results[1]
    assert {Path(name).suffix for name in results[0][0]} == {".json", *(
        (".cubin", ".ptx") if target == "sm90" else (".hsaco", ".amdgcn")
    )}  # fmt: skip


def test_of_processes_that_want_the_same_kernel_one_compiles_it(folder):
    env = at_ptxas(folder, "open('compiled', 'a').write('x')")
    running = [
        subprocess.Popen(COMMAND, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [p.communicate(timeout=120)[0] for p in running]
    assert [p.returncode for p in running] == [0, 0, 0]
    assert said[0].startswith("twice for sm90: num_warps=1\n") and len(set(said)) == 1
    assert (folder / "compiled").read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_nothing(folder, number):
    env = at_ptxas(folder, "open('started', 'w').close(); time.sleep(60)")
    command = [*COMMAND, "-o", "out", "--dump-ir", "ir"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert out == "" and not (folder / "out").exists()
    if number == signal.SIGINT:
        assert (process.returncode, err) == (130, "interrupted\n")
    else:
        assert process.returncode == -signal.SIGKILL
    assert not any(f.name == "manifest.json" for f in folder.rglob("*"))
    error = json.loads((folder / "ir" / "index.json").read_text())["error"]["message"]
    assert error == ("interrupted" if number == signal.SIGINT else "the compiler did not finish")
    done = subprocess.run(COMMAND, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0  # nothing is locked, and nothing stands in the way


# The cache and the artifact, in this process.

ARTIFACT = Artifact(
    {"format": 1, "kernel": "k", "files": {"binary": "k.cubin", "assembly": "k.ptx"}},
    {"k.cubin": b"\x7fELF" * 100, "k.ptx": b".version 9.0\n"},
)


def test_an_artifact_is_read_as_it_was_written(tmp_path):
    ARTIFACT.save(tmp_path / "a" / "b")
    assert Artifact.load(tmp_path / "a" / "b") == ARTIFACT
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["k.cubin", "k.ptx", "manifest.json"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_half_an_artifact_is_none(tmp_path, written):
    ARTIFACT.save(tmp_path)
    (tmp_path / "manifest.json").unlink()
    for name in ["k.cubin", "k.ptx"][written:]:
        (tmp_path / name).unlink()
    with pytest.raises(CacheError) as error:
        Artifact.load(tmp_path)
    assert error.value.message == f"'{tmp_path}' holds no complete artifact: No such file or directory"


def test_a_damaged_artifact_is_none(tmp_path):
    ARTIFACT.save(tmp_path)
    (tmp_path / "k.cubin").write_bytes(b"\x7fELF")
    with pytest.raises(CacheError) as error:
        Artifact.load(tmp_path)
    assert error.value.message == f"'{tmp_path}' holds no complete artifact: k.cubin is damaged"
    (tmp_path / "manifest.json").write_text('{"format": 1')
    with pytest.raises(CacheError, match=r"manifest.json is damaged"):
        Artifact.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(CacheError, match="has format 2, this version reads 1"):
        Artifact.load(tmp_path)


def test_a_new_artifact_replaces_an_old_one(tmp_path):
    ARTIFACT.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    other = Artifact(
        {"format": 1, "kernel": "l", "files": {"binary": "l.cubin", "assembly": "k.ptx"}},
        {"l.cubin": b"l", "k.ptx": b"l"},
    )
    other.save(tmp_path)
    assert Artifact.load(tmp_path) == other
    assert sorted(os.listdir(tmp_path)) == ["k.ptx", "l.cubin", "manifest.json", "notes.txt"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    from mosaic_compile import artifact, files

    def full(path, contents):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device")
        files.write_bytes_aside(path, contents)

    monkeypatch.setattr(artifact, "write_bytes_aside", full)
    with pytest.raises(CacheError) as error:
        ARTIFACT.save(tmp_path / "out")
    assert (
        error.value.message == f"the folder '{tmp_path / 'out'}' cannot be written: No space left on device"
    )
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_in_the_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path))
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / ".k.cubin.x1").write_bytes(b"half")
    (tmp_path / "name" / "k.cubin").write_bytes(b"whole")
    made = []
    for _ in range(2):
        assert cache.get_or_make("name", lambda: made.append(1) or ARTIFACT) == ARTIFACT
    assert made == [1]
    assert sorted(os.listdir(tmp_path / "name")) == ["k.cubin", "k.ptx", "manifest.json"]


def test_a_failure_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_make("name", lambda: 1 // 0)
    assert not (tmp_path / "name").exists()


def test_keys_do_not_run_into_each_other():
    assert cache.key("ab", "c") != cache.key("a", "bc") != cache.key("a", "b", "c")
