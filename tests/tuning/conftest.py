"""A cold cache for every test, a process that remembers nothing, and one thread: waiting for a second one on cores that
other tests use may take longer than the slowest candidate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mosaic_compile as mc
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


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process and in those that it starts."""
    before = mc.get_num_threads()
    monkeypatch.setenv("MOSAIC_NUM_THREADS", "1")
    mc.set_num_threads(1)
    yield
    mc.set_num_threads(before)
