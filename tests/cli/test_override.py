"""--override: an edited file takes the place of a stage's result, and is seen in all that follows."""

from __future__ import annotations

import json
import re

import pytest

# stage: what is edited, and what it becomes
EDITS = {
    "tile": ("dense<3.000000e+00>", "dense<5.000000e+00>"),
    "tt": ("dense<3.000000e+00>", "dense<5.000000e+00>"),
    "ttir": ("dense<3.000000e+00>", "dense<5.000000e+00>"),
    "ttgir": ("dense<3.000000e+00>", "dense<5.000000e+00>"),
    "llvm": ("float 3.000000e+00", "float 5.000000e+00"),
    "ptx": ("0f40400000", "0f40A00000"),
}


def edited(command, folder, stage: str, target: str = "sm90") -> str:
    text = command("scale.py", "--target", target, "--emit", stage).out
    old, new = EDITS[stage]
    if old not in text:  # LLVM 22 writes floats without an exponent
        old, new = "3.000000e+00", "5.000000e+00"
    assert old in text
    (folder / f"edited.{stage}").write_text(text.replace(old, new))
    return f"{stage}=edited.{stage}"


@pytest.mark.parametrize("stage", EDITS)
def test_an_edited_constant_is_in_the_result(command, folder, stage):
    result = command(
        "scale.py", "--target", "sm90", "--emit", "ptx", "--override", edited(command, folder, stage)
    )
    assert result.err == "" and result.code == 0
    assert "0f40A00000" in result.out and "0f40400000" not in result.out
    result = command("scale.py", "--target", "sm90", "--override", f"{stage}=edited.{stage}", "-o", "out")
    assert result.code == 0
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["parameters"] and manifest["overrides"] == {stage: f"edited.{stage}"}
    assert "0f40A00000" in (folder / "out" / "scale.ptx").read_text()


@pytest.mark.parametrize("stage", ["tt", "ttgir", "llvm"])
def test_for_amd(command, folder, stage):
    override = edited(command, folder, stage, "gfx942")
    result = command("scale.py", "--target", "gfx942", "--emit", "amdgcn", "--override", override)
    assert result.code == 0 and "0x40a00000" in result.out


def test_a_binary(command, folder):
    command("scale.py", "--target", "sm90", "--set", "B=256", "-o", "other")
    result = command("scale.py", "--target", "sm90", "--override", "cubin=other/scale.cubin", "-o", "out")
    assert result.code == 0
    assert (folder / "out" / "scale.cubin").read_bytes() == (folder / "other" / "scale.cubin").read_bytes()


def test_line_numbers_are_those_of_the_edited_file(command, folder):
    override = edited(command, folder, "tt")
    text = command("scale.py", "--target", "sm90", "--emit", "ptx", "--override", override).out
    assert 'edited.tt"' in text and "scale.py" not in text


def test_the_dump_says_so(command, folder):
    result = command(
        "scale.py", "--target", "sm90", "--override", edited(command, folder, "ttgir"), "--dump-ir", "ir"
    )
    assert result.code == 0
    passes = json.loads((folder / "ir" / "index.json").read_text())["passes"]
    assert [p["pass"] for p in passes if p["stage"] == "ttgir"] == ["override"]


BAD = {
    "tile": ("module {\n  nonsense\n}\n", "edited:2:3: custom op 'nonsense' is unknown", "correct the file, or start from one that --dump-ir or --emit wrote"),
    "tt": ("module {\n", "edited:", "correct the file, or start from one that --dump-ir or --emit wrote"),
    "ttir": ("module {\n  nonsense\n}\n", "Triton does not accept edited: edited:2:3: custom op 'nonsense' is unknown", "correct the IR"),
    "ttgir": ("module {\n", "Triton does not accept edited: edited:", "correct the IR"),
    "llvm": ("define void @f( {\n", "'edited' is not LLVM IR: 2:1: expected type", "correct the IR"),
    "ptx": ("nonsense\n", "Triton's stage 'cubin' failed for sm90: line 1 of the PTX: ", None),
    "cubin": ("nonsense\n", "'edited' is not a cubin file", "give what --emit cubin wrote"),
}  # fmt: skip


@pytest.mark.parametrize("stage", BAD)
def test_a_bad_file(command, folder, stage):
    text, message, help = BAD[stage]
    (folder / "edited").write_text(text)
    result = command("scale.py", "--target", "sm90", "--override", f"{stage}=edited", "-o", "out")
    lines = result.err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    assert help is None or lines[1] == f"help: {help}"
    assert lines[2:] == [f"to repeat: mosaic-compile scale.py --target sm90 --override {stage}=edited -o out"]
    assert (result.code, result.out) == (1, "") and not (folder / "out").exists()


@pytest.mark.parametrize("stage", ["tile", "ttir", "llvm", "ptx"])
def test_a_file_that_is_not_text(command, folder, stage):
    (folder / "edited").write_bytes(b"\xff\xfe\x00")
    result = command("scale.py", "--target", "sm90", "--override", f"{stage}=edited")
    assert result.err.startswith(
        f"error: 'edited' is not text\nhelp: give what --emit {stage} wrote, edited\n"
    )
    assert result.code == 1


def test_a_function_without_its_attributes(command, folder):
    text = command("scale.py", "--target", "sm90", "--emit", "tt").out
    (folder / "edited").write_text(text.replace("mosaic.arguments", "mosaic.lost"))
    result = command("scale.py", "--target", "sm90", "--override", "tt=edited")
    assert result.err.startswith("error: the function has lost its attribute mosaic.arguments\n")
    assert result.code == 1


PRODUCT = """\
import mosaic_compile as mc


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)))
def product(a: mc.f16["M", "K"], b: mc.f16["K", "N"], c: mc.f32["M", "N"]):
    m, n = mc.program_id(0), mc.program_id(1)
    sums = mc.zeros((64, 64), mc.f32)
    for k in range(mc.cdiv(a.shape[1], 64)):
        sums = mc.dot(mc.load(a, (m, k), (64, 64)), mc.load(b, (k, n), (64, 64)), sums)
    mc.store(c, (m, n), sums)
"""

FIX = "correct the file, or start from one that --dump-ir or --emit wrote"
OF_2 = "of 2, one for each dimension"
# What is replaced in the first line that has it; the message behind FILE:LINE:COLUMN.
BAD_FACTS = [
    (r'path = "descriptor"', 'path = "descripto"', '"tile.load" has path = "descripto", but a path is "descriptor" or "pointers"'),
    (r'path = "descriptor"', "path = 3", '"tile.load" has path = 3 : i64, but takes a string'),
    (r'path_reason = "[^"]*"', "path_reason = 3", '"tile.load" has path_reason = 3 : i64, but takes a string'),
    (r" multiples = array<i64: [^>]*>", " multiples = array<i64: 64>", f'"tile.load" has multiples = array<i64: 64>, but takes array<i64: …> {OF_2}'),
    (r" multiples = array<i64: [^>]*>", " multiples = array<i32: 64, 64>", f'"tile.load" has multiples = array<i32: 64, 64>, but takes array<i64: …> {OF_2}'),
    (r" multiples = array<i64: [^>]*>", " multiples = array<i64: 64, 0>", '"tile.load" has multiples = array<i64: 64, 0>, but takes positive numbers'),
    (r"in_bounds = array<i1: [^>]*>", "in_bounds = 1", f'"tile.load" has in_bounds = 1 : i64, but takes array<i1: …> {OF_2}'),
    (r"starts_inside = array<i1: [^>]*>", "starts_inside = array<i1: true>", f'"tile.load" has starts_inside = array<i1: true>, but takes array<i1: …> {OF_2}'),
    (r"axes = array<i64: 0, 1>", "axes = [0, 1]", '"tile.load" has axes = [0, 1], but takes array<i64: …>, one for each dimension of the tile'),
    (r"axes = array<i64: 0, 1>, ", "", '"tile.load" has axes = None, but takes array<i64: …>, one for each dimension of the tile'),
    (r"pad = [^,]*", "pad = 0.0 : f32", '"tile.load" has pad = 0.000000e+00 : f32, but takes a number of type f16'),
    (r"pad = [^,]*", 'pad = "zero"', '"tile.load" has pad = "zero", but takes a number of type f16'),
]  # fmt: skip


@pytest.fixture
def product(command, folder) -> str:
    """product.py's tile IR for sm90."""
    (folder / "product.py").write_text(PRODUCT)
    return command("product.py", "--target", "sm90", "--emit", "tile").out


@pytest.mark.parametrize("pattern, edit, message", BAD_FACTS)
def test_facts_of_a_wrong_form(command, folder, product, pattern, edit, message):
    text, count = re.subn(pattern, edit, product, count=1)
    assert count == 1
    (folder / "edited").write_text(text)
    line = next(n for n, (a, b) in enumerate(zip(product.split("\n"), text.split("\n")), 1) if a != b)
    result = command("product.py", "--target", "sm90", "--override", "tile=edited")
    message = message.replace('"tile.load"', "'tile.load'")
    lines = result.err.splitlines()
    assert re.sub(rf"^error: edited:{line}:\d+: ", "", lines[0]) == message
    assert lines[1] == f"help: {FIX}"
    assert (result.code, result.out) == (1, "")


def refused(command, folder, text: str, edited_line: str, target: str) -> tuple[str, str]:
    """The message and help for an edited file, whose line the error shows."""
    (folder / "edited").write_text(text)
    result = command("product.py", "--target", target, "--override", "tile=edited", "-o", "out")
    assert (result.code, result.out) == (1, "") and not (folder / "out").exists()
    error, place, _, shown, _, help, _ = result.err.splitlines()
    number = text.split("\n").index(edited_line) + 1
    assert re.fullmatch(rf" *--> edited:{number}:\d+", place) and shown == f"{number} | {edited_line}"
    return error, help


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.split("\n") if word in line]


@pytest.mark.parametrize("target", ["sm80", "gfx942"])
def test_tma_on_a_target_without_it(command, folder, product, target):
    error, help = refused(command, folder, product, lines_with(product, "tile.load")[0], target)
    assert error == f"error: this block is moved by TMA, which {target} does not have"
    assert help == f"help: emit the file again for {target}"


def test_tma_where_it_cannot_move_the_block(command, folder, product):
    text = product.replace("pad = 0.000000e+00", "pad = 1.000000e+00", 1)
    error, help = refused(command, folder, text, lines_with(text, "pad = 1.0")[0], "sm90")
    assert error == "error: TMA cannot move this block: outside the array a descriptor reads 0, not 1.0"
    assert help == 'help: write path = "pointers"'
    text = product.replace("tile.align = 16", "tile.align = 8", 1)
    error, help = refused(command, folder, text, lines_with(text, "tile.load")[0], "sm90")
    assert error == (
        "error: TMA cannot move this block: the array's address is not known to be a multiple of 16 bytes"
    )
    assert help == 'help: write path = "pointers"'


def test_another_path_is_taken(command, folder, product):
    (folder / "edited").write_text(product.replace('path = "descriptor"', 'path = "pointers"'))
    result = command("product.py", "--target", "sm80", "--override", "tile=edited", "-o", "out")
    assert (result.code, result.err) == (0, "")
    parameters = json.loads((folder / "out" / "manifest.json").read_text())["parameters"]
    assert "descriptor" not in {p["kind"] for p in parameters}
