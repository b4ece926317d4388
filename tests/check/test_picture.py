"""The map of errors: as text, compared as a whole, and as an image."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.check import Difference
from mosaic_compile.check.picture import LEGEND, draw, save_image
from mosaic_compile.check.writes import NOBODY, Write, Writes
from mosaic_compile.errors import UsageError

from .planted import SCALE, arguments, grid, reference, scale


def text(lines) -> str:
    return "\n".join("".join(piece for piece, _ in line) for line in lines)


def tiled(shape: tuple[int, ...], tile: tuple[int, ...]) -> Writes:
    """An output whose blocks of that size are stored one after the other."""
    numbers = np.full(shape, NOBODY)
    writes = Writes({"out": numbers})
    for index in np.ndindex(*(-(-n // t) for n, t in zip(shape, tile))):
        starts = tuple(i * t for i, t in zip(index, tile))
        numbers[tuple(slice(s, s + t) for s, t in zip(starts, tile))] = len(writes.done)
        writes.done.append(Write((len(writes.done), 0, 0), starts, tile, None))
    return writes


def difference(shape: tuple[int, ...], errors: dict[tuple[int, ...], float]) -> Difference:
    got = np.zeros(shape, np.float32)
    for index, error in errors.items():
        got[index] = error
    return Difference(got, np.zeros(shape, np.float32), np.ones(shape))


def test_a_matrix():
    found = difference(
        (12, 24), {(0, 0): 0.5, (3, 8): 5, (4, 15): 50, (7, 16): 500, (8, 23): 1e6, (11, 0): np.nan}
    )
    assert text(draw(found, tiled((12, 24), (4, 8)), "out")) == (
        "error of out: a character is 1 x 1 elements, a tile 4 x 8\n"
        "   0        8        16\n"
        " 0 -·······│········│········\n"
        " 1 ········│········│········\n"
        " 2 ········│········│········\n"
        " 3 ········│░·······│········\n"
        "   ────────┼────────┼────────\n"
        " 4 ········│·······▒│········\n"
        " 5 ········│········│········\n"
        " 6 ········│········│········\n"
        " 7 ········│········│▓·······\n"
        "   ────────┼────────┼────────\n"
        " 8 ········│········│·······█\n"
        " 9 ········│········│········\n"
        "10 ········│········│········\n"
        "11 █·······│········│········\n"
        f"{LEGEND}"
    )


def test_a_vector():
    found = difference((100,), {(70,): 20})
    assert text(draw(found, tiled((100,), (32,)), "out")) == (
        "error of out: a character is 2 elements, a tile 32\n"
        " 0                32               64               96\n"
        " ················│················│···▒············│··\n"
        f"{LEGEND}"
    )


def test_of_more_dimensions_the_slice_with_the_worst_element():
    found = difference((3, 2, 4, 8), {(2, 1, 3, 5): 20, (0, 0, 0, 0): 10})
    assert text(draw(found, tiled((3, 2, 4, 8), (1, 1, 4, 8)), "out")) == (
        "error of out[2, 1, :, :]: a character is 1 x 1 elements, a tile 4 x 8\n"
        "  0\n"
        "0 ········\n"
        "1 ········\n"
        "2 ········\n"
        "3 ·····▒··\n"
        f"{LEGEND}"
    )


def test_cells_are_parts_of_tiles_or_whole_ones():
    """200 x 1000 elements: what one sees does not grow."""
    for tile, cells in (
        ((16, 64), "16 x 16"),
        ((128, 256), "16 x 16"),
        ((1, 1), "9 x 16"),
        ((3, 5), "9 x 20"),
    ):
        lines = text(draw(difference((200, 1000), {}), tiled((200, 1000), tile), "out")).splitlines()
        assert f"a character is {cells} elements, a tile {tile[0]} x {tile[1]}" in lines[0]
        assert len(lines) <= 2 * 24 + 3 and max(map(len, lines[1:-1])) <= 2 * 64 + 4


def test_nothing_is_drawn_of_nothing():
    assert draw(difference((0, 8), {}), tiled((0, 8), (4, 8)), "out") == []


def wrong_reference(x):
    out = reference(x)
    out[35, 20] += 1
    return out


def test_the_whole_report():
    report = mc.kernel(scale, grid=grid, reference=wrong_reference).check(**arguments(), target="sm90")
    lines = str(report).splitlines()
    assert lines[:4] == [
        "scale for sm90: BM=16 BN=16",
        "  x f32[40, 24], out f32[40, 24]",
        "  6 programs, grid (3, 2)",
        "",
    ]
    assert [" ".join(line.split()[:2]) for line in lines[4:11]] == [
        "output max", "rounding out", "reference out", "tile passes", "tt out", "sm90 not", "tolerance of",
    ]  # fmt: skip
    assert lines[6].endswith("DIFFERS") and lines[7].endswith("ok") and lines[8].endswith("ok")
    assert lines[9] == "  sm90         not on this machine, which has no GPU" or lines[9].startswith("  sm90")
    assert lines[10] == "  tolerance of out: 8 x what rounding does to elements of that size + 16 ulp"
    assert lines[12] == "error: 'scale' and its reference do not agree: one of the two is wrong"
    assert lines[14] == "reference: 1 of 960 elements is outside of the tolerance of out"
    assert (
        " ".join(lines[15].split()) == "element reference interpreter error ulp relative program written at"
    )
    assert lines[16].startswith("  [35, 20]") and "(2, 1, 0)  tile (2, 1) of 16 x 16, " in lines[16]
    assert lines[19].split() == ["0", "16"]
    (row,) = [line for line in lines if line.startswith("  34 ")]
    assert row == "  34 ················│····█···"


def test_pictures_of_a_right_kernel_are_drawn_on_request():
    report = SCALE.check(**arguments(), target="sm90")
    assert "error of out" not in report.render()
    assert "error of out" in report.render(pictures=True)


def test_image(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "errors.png"
    found = difference((3, 12, 24), {(1, 3, 8): 5, (1, 4, 4): np.inf})
    save_image(file, found, tiled((3, 12, 24), (1, 4, 8)), "out", "title")
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"cannot be written: .*not supported") as error:
        save_image(tmp_path / "errors.xyz", found, tiled((3, 12, 24), (1, 4, 8)), "out", "title")
    assert error.value.help == "give a name that ends in .png"


def test_image_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.colors", None)
    with pytest.raises(UsageError, match="Matplotlib, which draws the image, is not installed"):
        save_image(tmp_path / "x.png", difference((4, 8), {}), tiled((4, 8), (4, 8)), "out", "title")


def test_an_image_needs_elements(tmp_path):
    empty = SCALE.check(np.zeros((0, 24), np.float32), np.zeros((0, 24), np.float32), target="sm90")
    with pytest.raises(UsageError, match="there is no picture of errors"):
        empty.save_image(tmp_path / "x.png")
