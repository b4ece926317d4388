"""Artifacts for CPUs: what `mosaic-compile -o` writes, and `mc.load`."""

import json
import subprocess
import sys

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.cli import main
from mosaic_compile.errors import ArgumentError, CacheError, LaunchError, OutsideKernelError

SOURCE = '''
import mosaic_compile as mc


@mc.kernel(grid=lambda M, N: (M, mc.cdiv(N, 64)))
def scaled(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M", "N"]], factor: mc.f32 = 2.0):
    """Scales a matrix.

    The factor is two where none is given.
    """
    i, j = mc.program_id(0), mc.program_id(1)
    mc.store(out, (i, j), mc.load(x, (i, j), (1, 64)) * factor)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A kernel file, and its artifacts for this machine and another."""
    path = tmp_path_factory.mktemp("artifacts")
    (path / "scaled.py").write_text(SOURCE)
    for target in ("cpu", "hexagon-v68"):
        arguments = [str(path / "scaled.py"), "--target", target, "--shape", "N=%1", "-o", str(path / target)]
        assert main(arguments) == 0
    return path


def test_the_files_of_an_artifact(folder):
    manifest = json.loads((folder / "cpu" / "manifest.json").read_bytes())
    assert {*manifest["files"]} >= {"binary", "assembly", "header"}
    assert [a["access"] for a in manifest["arrays"]] == ["in", "out"]
    assert "Scales a matrix." in (folder / "cpu" / "scaled.h").read_text()
    other = json.loads((folder / "hexagon-v68" / "manifest.json").read_bytes())
    assert other["machine"]["cpu"] == "hexagonv68" and ("missing" in other["library"]) != (
        "library" in other["files"]
    )


@pytest.mark.parametrize("shape", [(3, 100), (1, 1), (0, 7), (5, 64)])
def test_a_loaded_kernel_runs(folder, shape):
    scaled = mc.load(folder / "cpu")
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    for factor in ({}, {"factor": 0.5}):
        for _ in range(2):
            out = np.full(shape, np.nan, np.float32)
            scaled(x, out, **factor)
            np.testing.assert_array_equal(out, x * np.float32(factor.get("factor", 2.0)))


def test_a_loaded_kernel_in_a_fresh_process(folder):
    program = f"""
import numpy as np, mosaic_compile as mc
x, out = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
mc.load({str(folder / "cpu")!r})(x, out, 7)
print(out.sum())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "42.0\n"


def test_mistakes_in_a_call_of_a_loaded_kernel(folder):
    scaled = mc.load(str(folder / "cpu"))
    x, out = np.ones((4, 8), np.float32), np.zeros((4, 8), np.float32)
    with pytest.raises(ArgumentError, match="the array 'out' is missing"):
        scaled(x)
    with pytest.raises(ArgumentError, match=r"'x' is f32\[M, N\], but the array holds f64"):
        scaled(x.astype(np.float64), out)
    with pytest.raises(ArgumentError, match="the dimension M is 4 in 'x', but 3 in 'out'"):
        scaled(x, out[:3])
    with pytest.raises(ArgumentError, match="stride 4, but the kernel was compiled for 1"):
        scaled(np.ones((8, 4), np.float32).T, np.zeros((4, 8), np.float32))
    with pytest.raises(ArgumentError, match="shares memory"):
        scaled(x, x)


def test_what_cannot_be_loaded(folder, tmp_path):
    with pytest.raises(LaunchError, match=r"for hexagon-v68 \(hexagon-unknown-linux-musl\), and this is"):
        mc.load(folder / "hexagon-v68")
    with pytest.raises(CacheError, match="holds no complete artifact"):
        mc.load(tmp_path)
    with pytest.raises(OutsideKernelError, match=r"mc\.load works only inside a kernel"):
        mc.load(np.zeros(4), 0, 4)


@pytest.mark.parametrize("target", targets.CPUS)
def test_every_target_compiles_a_kernel(folder, target, capsys):
    assert main([str(folder / "scaled.py"), "--target", target]) == 0
    assert capsys.readouterr().out.startswith(f"scaled for {target}\n")
