"""`import mosaic_compile` is cheap: no back end, no framework, and no compiler where none is used."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "triton", "jax", "iree", "rich")
COMPILER = ("torch_mlir", "llvmlite", "mosaic_compile.frontend", "mosaic_compile.passes")


def imported(code: str, modules: tuple[str, ...]) -> str:
    code = f"import sys, mosaic_compile as mc; {code}; print([m for m in {modules} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_brings_no_heavy_package():
    assert imported("mc.kernel, mc.f32", HEAVY) == "[]"


@pytest.mark.parametrize("use", ["mc.__version__", "mc.load", "import mosaic_compile.runtime.load"])
def test_what_runs_artifacts_brings_no_compiler(use):
    assert imported(use, HEAVY + COMPILER) == "[]"


def test_names_are_what_they_are_whichever_comes_first():
    code = "from mosaic_compile import load; assert mc.load is load; mc.kernel; assert mc.load is mc.load is not load"
    assert imported(code, ("triton",)) == "[]"
    assert imported("from mosaic_compile import *; assert kernel is mc.kernel and exp", ()) == "[]"
    assert imported("assert {'kernel', 'exp', 'load', 'compile', '__version__'} <= {*dir(mc)}", ()) == "[]"
    assert imported("assert mc.errors.MosaicError is mc.MosaicError", ()) == "[]"


def test_load_before_the_compiler_is_the_operation_too(tmp_path):
    """A kernel whose module has imported `load` before anything else."""
    (tmp_path / "early.py").write_text(
        "from mosaic_compile import load\n"
        "import mosaic_compile as mc\n\n"
        "@mc.kernel\n"
        "def copy(x: mc.f32[16], out: mc.Out[mc.f32[16]]):\n"
        "    mc.store(out, 0, load(x, 0, 16))\n"
    )
    code = (
        "import numpy as np; from early import copy; x, out = np.arange(16, dtype='f4'), np.zeros(16, 'f4');"
        "copy.interpret(x, out); assert (x == out).all()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
