"""Loops: `range` as the device runs it, and `static_range`, unrolled by the compiler."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mosaic_compile.errors import NotConstantError, OperandError, ShapeError
from mosaic_compile.mlir import ir

from .op import kind_of, require_constant, require_index
from .tile import Tile


@dataclass(frozen=True)
class Range:
    """A loop's bounds, and what is asked of the loop."""

    kind: ClassVar[str] = "a range"  # in messages

    start: Tile | int
    stop: Tile | int
    step: Tile | int
    num_stages: int | None = None
    unroll: int | None = None
    flatten: bool = False
    warp_specialize: bool = False

    def known(self) -> builtins.range:
        """The same as Python's range, where the bounds are known at compile time."""
        bounds = (self.start, self.stop, self.step)
        if any(isinstance(bound, Tile) for bound in bounds):
            raise NotConstantError(
                "this range is known only when the kernel runs", "loop over it with `for i in range(…):`"
            )
        return builtins.range(*bounds)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return iter(self.known())

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.known())

    def __len__(self) -> int:
        return len(self.known())

    def __getitem__(self, index: Any) -> Any:
        return self.known()[index]

    def __contains__(self, value: Any) -> bool:
        return value in self.known()

    def attributes(self) -> dict[str, ir.Attribute]:
        """The options as attributes of an scf.for."""
        i32 = ir.IntegerType.get_signless(32)
        result: dict[str, ir.Attribute] = {}
        if self.num_stages is not None:
            result["tile.num_stages"] = ir.IntegerAttr.get(i32, self.num_stages)
        if self.unroll is not None:
            result["tile.unroll"] = ir.IntegerAttr.get(i32, self.unroll)
        if self.flatten:
            result["tile.flatten"] = ir.UnitAttr.get()
        if self.warp_specialize:
            result["tile.warp_specialize"] = ir.UnitAttr.get()
        return result


def range_(
    start: Any,
    stop: Any = None,
    step: Any = 1,
    *,
    num_stages: int | None = None,
    unroll: int | None = None,
    flatten: bool = False,
    warp_specialize: bool = False,
) -> Range:
    """Python's range as a loop on the device; the bounds may be known at launch only, the step is positive.

    num_stages: how many iterations' loads are in flight. unroll: copies of the body. flatten: merge with the
    loop inside it, so that the pipeline does not drain between tiles. warp_specialize: loads and computation
    in warps of their own. The last three are for GPUs, and targets without them ignore them.
    """
    if stop is None:
        start, stop = 0, start
    for value, what in ((start, "range's start"), (stop, "range's stop"), (step, "range's step")):
        require_index(value, what)
    if not isinstance(step, Tile) and step <= 0:
        raise ShapeError(
            f"a loop's step is positive, not {step}",
            "count up, and compute the falling index inside: n - 1 - i",
        )
    for value, what in ((num_stages, "num_stages"), (unroll, "unroll")):
        if value is not None and require_constant(value, int, f"range's {what}") < 1:
            raise OperandError(f"range's {what} is at least 1, not {value}", "leave it out for the default")
    return Range(start, stop, step, num_stages, unroll, bool(flatten), bool(warp_specialize))


def static_range(start: Any, stop: Any = None, step: Any = 1) -> builtins.range:
    """A loop that the compiler unrolls: the loop variable is a compile-time number."""
    for value in (start, step) if stop is None else (start, stop, step):
        if not isinstance(value, int | Tile):
            raise OperandError(
                f"mc.static_range takes whole numbers, not {kind_of(value)}", "round it first: int(…)"
            )
        if isinstance(value, Tile):
            raise NotConstantError(
                f"mc.static_range takes compile-time numbers, not a value of type {value!r}",
                "use range(…) for a loop on the device",
            )
    if step == 0:
        raise ShapeError("the step of mc.static_range cannot be 0", "count up or down")
    return builtins.range(start, stop, step) if stop is not None else builtins.range(start)


range_.__name__ = "range"  # what messages call it
range_.__mosaic_op__ = True  # type: ignore[attr-defined]
static_range.__mosaic_op__ = True  # type: ignore[attr-defined]
