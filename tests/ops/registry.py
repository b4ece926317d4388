"""Which of the language's operations have a test here, so that a new one without a test is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

CHECKED: set[str] = set()


def checks(*names: str) -> Callable[[F], F]:
    """Marks a test as the one of these operations: names in OPS, "Tile.sum", "Array.T", "mc.range"."""

    def mark(test: F) -> F:
        CHECKED.update(names)
        return test

    return mark
