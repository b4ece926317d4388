"""Whole error messages, as users read them: the cases stand in goldens/."""

from __future__ import annotations

from pathlib import Path

import pytest

import mosaic_compile
from mosaic_compile import errors

from .cases import GOLDENS, Case, read_cases, write_cases

FILES = sorted(GOLDENS.glob("*.txt"))
CASES = [
    pytest.param(path, case, id=f"{path.stem}: {case.name}") for path in FILES for case in read_cases(path)
]


@pytest.fixture(scope="session", autouse=True)
def _update(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update", default=False):
        for path in FILES:
            write_cases(path, [case.updated() for case in read_cases(path)])


@pytest.mark.parametrize(("path", "case"), CASES)
def test_message(path, case: Case, request: pytest.FixtureRequest):
    if request.config.getoption("--update", default=False):
        case = next(c for c in read_cases(path) if c.name == case.name)
    assert case.actual == case.expected


def test_names_are_unique():
    names = [case.name for path in FILES for case in read_cases(path)]
    assert sorted(names) == sorted(set(names))


def test_no_word_of_the_compiler_itself():
    for path in FILES:
        for case in read_cases(path):
            message = case.expected.partition("\n")[2]
            for word in (
                "mlir",
                "MLIR",
                "scf.",
                "arith.",
                "tensor<",
                "ast.",
                "Traceback",
                "object at 0x",
                "InternalError",
            ):
                assert word not in message, f"{case.name}: {word}"


def test_every_class_that_tracing_raises_has_a_case():
    covered = {
        case.expected.partition("\n")[0].removeprefix("--- ") for path in FILES for case in read_cases(path)
    }
    folder = Path(mosaic_compile.__file__).parent
    text = "".join(p.read_text() for name in ("language", "frontend") for p in (folder / name).rglob("*.py"))
    raised = {name for name in vars(errors) if name.endswith("Error") and f"{name}(" in text}
    # A fault of the compiler has no case; a kernel without text cannot stand in a file (test_source.py has it).
    assert raised - covered == {"InternalError", "SourceUnavailableError"}
