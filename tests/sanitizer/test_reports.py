"""Whole reports, as users read them: the cases stand in goldens/."""

from __future__ import annotations

import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.passes.tile_to_tt import TileToTT
from mosaic_compile.sanitizer import KINDS

from .cases import GOLDENS, Case, read_cases, write_cases

FILES = sorted(GOLDENS.glob("*.txt"))
CASES = [pytest.param(path, c, id=f"{path.stem}: {c.name}") for path in FILES for c in read_cases(path)]


@pytest.fixture(scope="session", autouse=True)
def _update(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update", default=False):
        for path in FILES:
            write_cases(path, read_cases(path))


@pytest.mark.parametrize(("path", "case"), CASES)
def test_report(path, case: Case, request: pytest.FixtureRequest):
    if request.config.getoption("--update", default=False):
        case = next(c for c in read_cases(path) if c.name == case.name)
    assert case.actual() == case.expected


def test_every_kind_is_planted():
    kinds = {f.kind for path in FILES for case in read_cases(path) for f in case.report().findings}
    assert kinds == set(KINDS)


def test_clean_kernels_are_clean():
    for case in read_cases(GOLDENS / "clean.txt"):
        assert case.report().ok, case.name


def test_mistakes_are_found():
    for path in FILES:
        if path.stem != "clean":
            for case in read_cases(path):
                assert not case.report().ok, case.name


def test_no_word_of_the_compiler_itself():
    for path in FILES:
        for case in read_cases(path):
            for word in ("scf.", "arith.", "math.", "tensor<", "tile.", "np.", "object at 0x"):
                assert word not in case.expected.replace("mc.", ""), f"{case.name}: {word}"


def test_marks_of_wrapping_stay_above_triton():
    @mc.kernel
    def kernel(x: mc.u32[16], y: mc.i32[16]):
        mc.store(x, 0, (mc.load(x, 0, 16) + 1) * 7 - 3)
        mc.store(y, 0, (mc.load(y, 0, 16) + 1) * 7 - 3)

    module = trace(kernel, kernel.specialize())
    assert str(module).count("tile.wraps") == 3
    TileToTT().run(module)
    assert "tile.wraps" not in str(module)
    assert str(module).count("arith.muli") >= 2


def test_the_example_of_the_documentation():
    text = (GOLDENS.parents[2] / "docs/language.md").read_text().partition("## Finding mistakes")[2]
    code, shown = (block.strip("\n") for block in text.replace("```python", "```").split("```")[1:4:2])
    code = code.replace("print(", "report = (").replace("numpy.", "np.")
    assert Case("documentation", code, "").actual().replace("kernel.py", "smooth.py") == shown
