"""Triton takes every module: its parser and verifier, and its compiler down to the binary.

To run under another Triton: MOSAIC_TEST_TRITON=folder-with-triton pytest tests/lowering/test_compile.py, or
put the folder on PYTHONPATH and run any of these tests.
"""

import os
import re
import subprocess
import sys

import pytest

from mosaic_compile import targets
from mosaic_compile.driver import Compilation, compile_kernel
from mosaic_compile.language.dtypes import DTYPES

from .case import Case
from .test_values import CASES

_DETAIL = re.compile(rf"{'|'.join(sorted(DTYPES, key=len, reverse=True))}|[\dx,-]+")


def operation(case: Case) -> str:
    """A case's name without element types and numbers."""
    return "-".join(part for part in case.name.split("-") if not _DETAIL.fullmatch(part)).split("-of-")[0]


ONCE = list({operation(case): case for case in reversed(CASES)}.values())


def compile_for(case: Case, target: str) -> None:
    outcome = compile_kernel(case.kernel, case.specialization, Compilation(targets.find(target)))
    assert outcome.artifact is not None and outcome.results[next(reversed(outcome.results))]


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
@pytest.mark.parametrize("case", ONCE, ids=str)
def test_once(case: Case, target: str):
    """Each operation, on one element type."""
    compile_for(case, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm90", "gfx942", "sm80"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every(case: Case, target: str):
    """Each operation on each element type."""
    compile_for(case, target)


@pytest.mark.skipif("MOSAIC_TEST_TRITON" not in os.environ, reason="MOSAIC_TEST_TRITON names no other Triton")
def test_other_triton():
    folder = os.environ["MOSAIC_TEST_TRITON"]
    environment = {k: v for k, v in os.environ.items() if k != "MOSAIC_TEST_TRITON"} | {"PYTHONPATH": folder}
    script = "import sys, triton, pytest; print(triton.__version__); sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "-q", "-x", "-p", "no:cacheprovider", f"{__file__}::test_once"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
