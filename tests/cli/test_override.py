"""--override: an edited file takes the place of a stage's result, and is seen in all that follows."""

from __future__ import annotations

import json

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
    assert json.loads((folder / "out" / "manifest.json").read_text())["parameters"]
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
