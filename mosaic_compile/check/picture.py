"""Where errors lie in an output: a map of its last two dimensions, with the blocks that were stored.

In the terminal a character stands for a cell of some elements and shows the worst of them; an image shows
every element. Of an array with more dimensions it is the slice with the worst element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_compile.errors import UsageError

from .difference import Difference
from .writes import Writes

ROWS, COLUMNS = 24, 64  # the most cells of a map in the terminal
# Up to which error / tolerance, as what, in which style of Rich.
LEVELS = (
    (0.0, "·", "dim"),
    (1.0, "-", "green"),
    (10.0, "░", "yellow"),
    (100.0, "▒", "dark_orange"),
    (1000.0, "▓", "red"),
    (np.inf, "█", "bold red"),
)
LEGEND = "· equal   - within the tolerance   ░ up to 10 times it   ▒ 100   ▓ 1000   █ more, or not finite"

Line = list[tuple[str, str]]  # pieces of text with their styles


@dataclass(frozen=True, eq=False)
class Slice:
    """The part of an output that is shown. leading: the indices of the dimensions before the last two."""

    leading: tuple[int, ...]
    ratio: np.ndarray  # error / tolerance, two-dimensional
    numbers: np.ndarray  # of the writes
    tile: tuple[int, int] | None

    def boundaries(self, axis: int) -> np.ndarray:
        """The rows (axis 0) or columns with which another block starts, somewhere along them."""
        changes = np.diff(self.numbers, axis=axis) != 0
        return np.flatnonzero(changes.any(axis=1 - axis)) + 1


def slice_of(difference: Difference, writes: Writes, output: str) -> Slice:
    ratio, numbers, tile = difference.ratio, writes.numbers[output], writes.tile(output)
    leading: tuple[int, ...] = ()
    if ratio.ndim == 1:
        ratio, numbers = ratio[None], numbers[None]
        tile = None if tile is None else (1, *tile)
    elif ratio.ndim > 2 and ratio.size:
        worst = np.unravel_index(np.argmax(ratio), ratio.shape)
        leading = tuple(map(int, worst[:-2]))
        ratio, numbers = ratio[leading], numbers[leading]
    return Slice(leading, ratio, numbers, None if tile is None else (tile[-2], tile[-1]))


def draw(difference: Difference, writes: Writes, output: str) -> list[Line]:
    """The map as lines of text; empty for an array without elements."""
    if not difference.ratio.size:
        return []
    shown = slice_of(difference, writes, output)
    tile = shown.tile or (1, 1)
    sizes = [_cell(n, most, t) for n, most, t in zip(shown.ratio.shape, (ROWS, COLUMNS), tile)]
    cells = _worst_of_cells(shown.ratio, sizes)
    edges = [_edges(shown.boundaries(axis), sizes[axis], cells.shape[axis]) for axis in (0, 1)]
    one = difference.ratio.ndim == 1
    width = 0 if one else len(str(shown.ratio.shape[0] - 1))
    lines = [[(_title(difference, shown, output, sizes), "")]]
    lines.append([(" " * (width + 1) + _column_labels(cells.shape[1], sizes[1], edges[1]), "dim")])
    rule = "".join("─" + ("┼" if j + 1 in edges[1] else "") for j in range(cells.shape[1]))
    for i, row in enumerate(cells):
        if i in edges[0]:
            lines.append([(" " * (width + 1) + rule, "dim")])
        line: Line = [(f"{'' if one else i * sizes[0]:>{width}} ", "dim")]
        for j, ratio in enumerate(row):
            if j in edges[1]:
                line.append(("│", "dim"))
            line.append(_level(ratio))
        lines.append(line)
    return [*lines, [(LEGEND, "dim")]]


def _title(difference: Difference, shown: Slice, output: str, sizes: Sequence[int]) -> str:
    where = f"{output}[{', '.join(map(str, (*shown.leading, ':', ':')))}]" if shown.leading else output
    one = difference.ratio.ndim == 1
    per = f"{sizes[1]} elements" if one else f"{sizes[0]} x {sizes[1]} elements"
    tile = shown.tile and (str(shown.tile[1]) if one else f"{shown.tile[0]} x {shown.tile[1]}")
    return f"error of {where}: a character is {per}" + (f", a tile {tile}" if tile else "")


def _cell(size: int, most: int, tile: int) -> int:
    """The least size of cells, of which at most `most` cover a dimension, that divides a tile or is made of whole ones."""
    least = -(-size // most)
    parts = [n for n in range(least, tile + 1) if tile % n == 0]
    return parts[0] if parts else -(-least // tile) * tile


def _worst_of_cells(ratio: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    for axis in (0, 1):
        ratio = np.maximum.reduceat(ratio, np.arange(0, ratio.shape[axis], sizes[axis]), axis=axis)
    return ratio


def _edges(boundaries: np.ndarray, cell: int, count: int) -> frozenset[int]:
    """The cells before which a tile ends; none where that is so for most, so that lines would say nothing."""
    edges = {int(b) // cell for b in boundaries if b % cell == 0}
    return frozenset(edges) if 2 * len(edges) < count else frozenset()


def _column_labels(count: int, cell: int, edges: frozenset[int]) -> str:
    """Numbers of elements above the cells where tiles start, or above every eighth."""
    line = ""
    for j in sorted(edges | {0}) if edges else range(0, count, 8):
        place = j + sum(e <= j for e in edges)  # lines take a column of their own
        if len(line) < place or not line:
            line = line.ljust(place) + str(j * cell)
    return line


def _level(ratio: float) -> tuple[str, str]:
    return next((mark, style) for most, mark, style in LEVELS if ratio <= most)


def save_image(file: Path, difference: Difference, writes: Writes, output: str, title: str) -> None:
    """Writes the map as an image, of the kind that the file's name ends in; raises UsageError without Matplotlib."""
    try:
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "Matplotlib, which draws the image, is not installed", "pip install 'mosaic-compile[image]'"
        ) from None
    shown = slice_of(difference, writes, output)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    values = np.clip(np.nan_to_num(shown.ratio, posinf=1e4), 1e-4, 1e4)
    picture = axes.imshow(
        values, norm=LogNorm(1e-4, 1e4), cmap="coolwarm", interpolation="nearest", aspect="auto"
    )
    lines: dict[str, Any] = {"color": "black", "linewidth": 0.4}
    for row in shown.boundaries(0):
        axes.axhline(row - 0.5, **lines)
    for column in shown.boundaries(1):
        axes.axvline(column - 0.5, **lines)
    dims = ", ".join(map(str, (*shown.leading, ":", ":"))) if shown.leading else ""
    axes.set_title(f"{title}\n{output}{f'[{dims}]' if dims else ''}")
    axes.set_xlabel("column (element)")
    axes.set_ylabel("row (element)")
    figure.colorbar(picture, label="error / tolerance")
    try:
        figure.savefig(file)
    except ValueError as error:  # a kind of image that Matplotlib does not write
        raise UsageError(f"'{file}' cannot be written: {error}", "give a name that ends in .png") from None
