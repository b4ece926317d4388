"""`pytest tests/sanitizer --update` writes the golden reports anew."""

from __future__ import annotations

import contextlib

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    # Other folders' conftest files may add it too, as the option is the same everywhere.
    with contextlib.suppress(ValueError):
        parser.addoption("--update", action="store_true", help="write golden files anew")
