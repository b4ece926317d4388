"""cdiv, minimum and maximum: on tiles in a kernel, on plain numbers anywhere, on dimensions in a grid."""

from __future__ import annotations

from typing import Any

from . import ops, symbolic
from .op import is_number
from .symbolic import Symbol


def _outside(values: tuple[Any, ...]) -> bool:
    """Whether these are a grid's dimensions, or plain numbers."""
    return any(isinstance(v, Symbol) for v in values) or all(map(is_number, values))


def cdiv(a: Any, b: Any) -> Any:
    """a / b rounded up: how many tiles of size b cover a."""
    return symbolic.call("cdiv", a, b) if _outside((a, b)) else ops.cdiv(a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a and b; on tiles element by element, NaN if either is NaN."""
    return symbolic.call("min", a, b) if _outside((a, b)) else ops.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a and b; on tiles element by element, NaN if either is NaN."""
    return symbolic.call("max", a, b) if _outside((a, b)) else ops.maximum(a, b)


for _function in (cdiv, minimum, maximum):
    _function.__mosaic_op__ = True  # type: ignore[attr-defined]
