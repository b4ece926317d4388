"""The documentation is what the code says."""

from pathlib import Path

import numpy as np
import pytest

from mosaic_compile import api
from mosaic_compile.language.reference import markdown, operations

ROOT = Path(__file__).parents[2]


def test_operations_are_current():
    assert (ROOT / "docs/operations.md").read_text() == markdown(), (
        "run: python -m mosaic_compile.language.reference > docs/operations.md"
    )


def test_every_public_operation_is_documented():
    documented = {function.__name__.rstrip("_") for family in operations().values() for _, function in family}
    public = {n for n, f in vars(api).items() if getattr(f, "__mosaic_op__", False)}
    assert public <= documented | {"range"}
    for family in operations().values():
        for written, function in family:
            assert function.__doc__, f"{written} has no docstring"


def test_the_example_of_quantized_products():
    document = (ROOT / "docs/quantization.md").read_text()
    names: dict = {}
    exec(document.split("```python\n")[1].split("```")[0], names)
    x, weights, out = (names[name].astype(float) for name in ("x", "weights", "out"))
    wanted = x @ weights.T
    assert np.linalg.norm(out - wanted) < 0.15 * np.linalg.norm(wanted)  # 4 bits of a normal distribution


def test_the_example_of_operators():
    torch = pytest.importorskip("torch")
    names: dict = {}
    exec((ROOT / "docs/torch.md").read_text().split("```python\n")[1].split("```")[0], names)
    x, ones = torch.full((2, 64), 3.0), torch.ones(64, 8) / 64
    result = names["layer"](x, torch.ones(64), ones, ones)  # rows of 1, of which products are 1
    torch.testing.assert_close(
        result, torch.full((2, 8), 1 / (1 + np.exp(-1.0))).float(), rtol=1e-4, atol=1e-4
    )


def test_files_that_documents_name_exist():
    import re

    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (
                f"{document.name} links to {target}, which is not there"
            )
