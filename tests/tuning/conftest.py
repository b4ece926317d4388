"""A cold cache for every test, and a process that remembers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosaic_compile.runtime import call, forms
from mosaic_compile.tuning import lookup


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder."""
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("MOSAIC_AUTOTUNE", raising=False)
    monkeypatch.setattr(lookup, "_found", {})
    monkeypatch.setattr(call, "_compiled", {})
    monkeypatch.setattr(forms, "_prepared", {})
    return tmp_path / "cache"
