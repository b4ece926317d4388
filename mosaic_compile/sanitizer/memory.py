"""Accesses to arrays: races, elements that nothing has written, mistakes that reach memory or an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile.interpreter import REGISTRY, Entry, Env, Op
from mosaic_compile.interpreter.tile import selected, window

from .report import Finding
from .shadow import SITE_BITS, Shadow, first_mark, program_of, site_of
from .tainted import Tainted, value_of, with_origin
from .watch import Watch

# What a program does to an element: in a message's first clause and, for another program, in its second.
VERBS = {"reads": "read", "writes": "wrote", "adds": "added to"}
_DOES = {"reads": "reads", "writes": "writes", "adds": "adds to"}
# What two programs may not do to one element: the marks that each access has to look at.
CONFLICTS = {"reads": ("writes", "adds"), "writes": ("writes", "adds", "reads"), "adds": ("writes", "reads")}


@dataclass(frozen=True, eq=False)
class Block:
    """The elements of a block access that lie inside the array."""

    op: Op
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    part: tuple[slice, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        """This access's elements of an array, or of its marks: a view in the tile's orientation."""
        return window(self.op, array, self.offsets, self.shape)[1]

    def fill(self, marks: np.ndarray, mask: np.ndarray, value: int) -> None:
        self.of(marks)[mask] = value

    def chosen(self, tile: Any) -> Any:
        return tile[self.part]

    def spread(self, elements: np.ndarray) -> np.ndarray:
        """Int64 numbers for these elements as a tile, 0 elsewhere."""
        tile = np.zeros(self.shape, np.int64)
        tile[self.part] = elements
        return tile

    def lane(self, position: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(p.start + i for p, i in zip(self.part, position))

    def element(self, position: tuple[int, ...]) -> tuple[int, ...]:
        place = list(self.offsets)
        for axis, lane in zip(self.op.attributes["axes"], self.lane(position)):
            place[axis] += lane
        return tuple(place)


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of a gather or scatter that are not masked and lie inside the array; positions count these."""

    mask: np.ndarray
    indices: tuple[np.ndarray, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return array[self.indices]

    def fill(self, marks: np.ndarray, mask: np.ndarray, value: int) -> None:
        marks[tuple(i[mask] for i in self.indices)] = value

    def chosen(self, tile: Any) -> Any:
        return np.asarray(tile)[self.mask]

    def spread(self, elements: np.ndarray) -> np.ndarray:
        tile = np.zeros(self.mask.shape, np.int64)
        tile[self.mask] = elements
        return tile

    def lane(self, position: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(map(int, np.argwhere(self.mask)[position[0]]))

    def element(self, position: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(i[position]) for i in self.indices)


Cells = Block | Elements


def name_of(shadow: Shadow, element: tuple[int, ...]) -> str:
    return f"{shadow.name}[{', '.join(map(str, element))}]"


# Which elements an access is about. An index that comes from a mistake is reported, whether it is clipped or not.


def _block(op: Op, watch: Watch, array: np.ndarray, shape: tuple[int, ...], offsets: Sequence[Any]) -> Block:
    shadow = watch.shadows[id(array)]
    for offset in offsets:
        if type(offset) is Tainted:
            watch.blame(op, offset.origin, lambda position: _as_index(shadow))
    starts = tuple(int(value_of(o)) for o in offsets)
    part, view = window(op, array, starts, shape)
    total = int(np.prod(shape))
    watch.clip(op, shadow.name, total - view.size, total)
    return Block(op, starts, shape, part)


def _elements(op: Op, watch: Watch, array: np.ndarray, rest: Sequence[Any]) -> Elements:
    shadow = watch.shadows[id(array)]
    indices, masks = rest[: array.ndim], rest[array.ndim :]
    unmasked = np.ones(np.shape(value_of(indices[0])), bool)
    for mask in masks:
        unmasked = np.asarray(value_of(mask))
        if type(mask) is Tainted:
            watch.blame(op, mask.origin, lambda position: _as_mask(shadow))
    for index in indices:
        if type(index) is Tainted:
            used = np.where(unmasked, index.origin, 0)
            watch.blame(op, used, lambda position: _as_index(shadow) | {"lane": position})
    mask, inside = selected(array, [value_of(x) for x in rest], masked=bool(masks))
    total = int(np.count_nonzero(unmasked))
    watch.clip(op, shadow.name, total - int(np.count_nonzero(mask)), total)
    return Elements(mask, inside)


def _as_index(shadow: Shadow) -> dict[str, Any]:
    return {"message": f"uses the outcome as an index of {shadow.name}", "array": shadow.name}


def _as_mask(shadow: Shadow) -> dict[str, Any]:
    return {"message": f"masks elements of {shadow.name} by the outcome", "array": shadow.name}


# What programs do to elements.


def _visit(op: Op, watch: Watch, shadow: Shadow, cells: Cells, does: str) -> None:
    """Marks the elements as read, written or added to by this program; reports who else does what excludes that."""
    mine = first_mark(watch.number)
    for theirs in CONFLICTS[does]:
        marks = cells.of(getattr(shadow, theirs))
        conflict = (marks > 0) & (marks < mine)
        if conflict.any():
            _race(op, watch, shadow, cells, does, theirs, marks, conflict)
    own = getattr(shadow, does)
    fresh = cells.of(own) == 0
    if fresh.any():
        cells.fill(own, fresh, mine | watch.site(op))
    if watch.loops:
        stamps = cells.of(shadow.stamps)
        if does != "adds":
            _check_iterations(op, watch, shadow, cells, does, stamps)
        if does != "reads":
            stamp = watch.clock << SITE_BITS | watch.site(op)
            cells.fill(shadow.stamps, np.ones(stamps.shape, bool), stamp)


def _race(
    op: Op, watch: Watch, shadow: Shadow, cells: Cells, does: str, theirs: str, marks: Any, conflict: Any
) -> None:
    sites = np.bincount([site_of(int(m)) for m in np.unique(marks[conflict])])
    for site in np.flatnonzero(sites):
        here = conflict & (site_of(marks) == site)
        places = np.argwhere(here)
        position = tuple(map(int, places[0]))
        element = cells.element(position)

        def example(position: Any = position, element: Any = element, site: int = int(site)) -> Finding:
            other = watch.program_at(program_of(int(marks[position])))
            return Finding(
                "race",
                f"program {watch.program} {_DOES[does]} {name_of(shadow, element)}, "
                f"which program {other} {VERBS[theirs]}",
                watch.place(op),
                f"program {other} {VERBS[theirs]} it here",
                watch.place(watch.sites[site]),
                shadow.name,
                element,
                watch.program,
                other,
                cells.lane(position),
            )

        watch.report("race", op, watch.sites[site], len(places), example)


def _check_iterations(
    op: Op, watch: Watch, shadow: Shadow, cells: Cells, does: str, stamps: np.ndarray
) -> None:
    """Reads and writes of what an earlier iteration of a loop wrote, while its iterations may overlap."""
    times = stamps >> SITE_BITS
    early = np.zeros(stamps.shape, bool)
    for loop in watch.loops:
        early |= (times >= loop.began) & (times < loop.iteration)
    if not early.any():
        return
    position = tuple(map(int, np.argwhere(early)[0]))
    element = cells.element(position)
    other = watch.sites[site_of(int(stamps[position]))]
    kind = "pipelined" if does == "reads" else "overwritten"
    example = Finding(
        kind,
        f"program {watch.program} {does} {name_of(shadow, element)}, which an earlier iteration of the loop wrote, "
        "while iterations overlap",
        watch.place(op),
        "the earlier iteration wrote it here",
        watch.place(other),
        shadow.name,
        element,
        watch.program,
        lane=cells.lane(position),
    )
    watch.report(kind, op, other, int(np.count_nonzero(early)), lambda: example)


# Reading.


def _undefined(op: Op, watch: Watch, shadow: Shadow, cells: Cells) -> Any:
    """Origins for the elements that nothing has written, as a tile; None where there are none."""
    missing = (cells.of(shadow.writes) == 0) & (cells.of(shadow.adds) == 0)
    if not missing.any():
        return None
    positions = np.argwhere(missing)
    tile = cells.spread(missing.astype(np.int64)) != 0
    numbers = np.flatnonzero(tile)  # the order of the positions: both are row-major

    def text(lane: int) -> str:
        position = tuple(map(int, positions[np.searchsorted(numbers, lane)]))
        return f"reads {name_of(shadow, cells.element(position))}, which nothing has written"

    return watch.taint("uninitialized", op, tile, text)


def _read(op: Op, watch: Watch, array: np.ndarray, cells: Cells, value: Any) -> Any:
    shadow = watch.shadows[id(array)]
    if shadow.reads is None:
        return value
    origin = _undefined(op, watch, shadow, cells) if shadow.uninitialized else None
    _visit(op, watch, shadow, cells, "reads")
    return value if origin is None else with_origin(value, origin)


def _load(op: Op, env: Env, array: np.ndarray, *offsets: Any) -> Any:
    cells = _block(op, env.state, array, op.results[0].shape, offsets)
    return _read(op, env.state, array, cells, REGISTRY[op.name](op, env, array, *cells.offsets))


def _gather(op: Op, env: Env, array: np.ndarray, *rest: Any) -> Any:
    cells = _elements(op, env.state, array, rest)
    return _read(op, env.state, array, cells, REGISTRY[op.name](op, env, array, *map(value_of, rest)))


# Writing.


def _at(shadow: Shadow, cells: Cells, position: tuple[int, ...], message: str) -> dict[str, Any]:
    """A finding's fields, for an element that is written."""
    place = {"element": cells.element(position), "lane": cells.lane(position)}
    return {"message": message, "array": shadow.name} | place


def _write(op: Op, watch: Watch, array: np.ndarray, value: Any, cells: Cells, adds: bool) -> None:
    shadow = watch.shadows[id(array)]
    if type(value) is Tainted:

        def use(position: tuple[int, ...]) -> dict[str, Any]:
            verb, to = ("adds", "to") if adds else ("stores", "in")
            stored = cells.chosen(value.value)[position]
            outcome = "the outcome" if np.isfinite(stored) else stored
            message = f"{verb} {outcome} {to} {name_of(shadow, cells.element(position))}"
            return _at(shadow, cells, position, message)

        watch.blame(op, cells.chosen(value.origin), use)
    if adds and shadow.uninitialized:
        origin = _undefined(op, watch, shadow, cells)
        if origin is not None:
            watch.blame(op, cells.chosen(origin), lambda position: _at(shadow, cells, position, "adds to it"))
    _visit(op, watch, shadow, cells, "adds" if adds else "writes")


def _store(op: Op, env: Env, array: np.ndarray, value: Any, *offsets: Any) -> None:
    cells = _block(op, env.state, array, op.operands[1].shape, offsets)
    _write(op, env.state, array, value, cells, op.name == "tile.atomic_add")
    REGISTRY[op.name](op, env, array, value_of(value), *cells.offsets)


def _scatter(op: Op, env: Env, array: np.ndarray, value: Any, *rest: Any) -> None:
    cells = _elements(op, env.state, array, rest)
    adds = op.attributes["combine"] == "add"
    if not adds:
        _check_lanes(op, env.state, array, value_of(value), cells)
    _write(op, env.state, array, value, cells, adds)
    REGISTRY[op.name](op, env, array, value_of(value), *map(value_of, rest))


def _check_lanes(op: Op, watch: Watch, array: np.ndarray, value: Any, cells: Elements) -> None:
    """Lanes of one scatter that write different bits to one element."""
    if not cells.indices[0].size:
        return
    flat = np.ravel_multi_index(cells.indices, array.shape)
    order = np.argsort(flat, kind="stable")
    bits = np.ascontiguousarray(cells.chosen(value)).view(f"V{array.dtype.itemsize}")[order]
    ordered = flat[order]
    differ = (ordered[1:] == ordered[:-1]) & (bits[1:] != bits[:-1])
    if not differ.any():
        return
    shadow, at = watch.shadows[id(array)], int(np.flatnonzero(differ)[0])
    first, second = ((int(order[i]),) for i in (at, at + 1))
    element = cells.element(first)
    example = Finding(
        "lanes",
        f"program {watch.program} writes {name_of(shadow, element)} in two lanes of one scatter, "
        f"{cells.lane(first)} and {cells.lane(second)}, with different values",
        watch.place(op),
        array=shadow.name,
        element=element,
        program=watch.program,
        lane=cells.lane(first),
    )
    watch.report("lanes", op, op, int(np.count_nonzero(differ)), lambda: example)


MEMORY: dict[str, Entry] = {
    "tile.load": _load,
    "tile.gather": _gather,
    "tile.store": _store,
    "tile.atomic_add": _store,
    "tile.scatter": _scatter,
}
