"""--dump-ir: a file for each pass, with what it left; the index's line maps are true."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.driver import Compilation, compile_kernel
from mosaic_compile.dump import line_map, operation_names, without_locations
from mosaic_compile.errors import BackendError, TargetLimitError

HERE = "test_dump.py"


@mc.kernel(grid=lambda N: (mc.cdiv(N, 128),), tune=[dict(num_warps=1)])
def scaled(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    i = mc.program_id(0)
    loaded = mc.load(x, i, 128)  # line: load
    total = mc.zeros(128, mc.f32)
    for k in range(x.shape[0]):  # line: loop
        total = total + helper(loaded * k.to(mc.f32))
    mc.store(out, i, total)  # line: store


def helper(tile):
    return mc.exp2(tile)  # line: helper


LINES = {
    found[1]: number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if (found := re.search(r"# line: (\w+)$", line))
}


@pytest.fixture(scope="module", params=["sm90", "gfx942"])
def dump(request, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dump")
    compile_kernel(scaled, scaled.specialize(), Compilation(targets.find(request.param), dump=folder))
    return folder, json.loads((folder / "index.json").read_text())


def test_one_file_for_each_pass_in_order(dump):
    folder, index = dump
    files = [e["file"] for e in index["passes"]]
    assert sorted([*files, "index.json"]) == sorted(f.name for f in folder.iterdir())
    assert files == sorted(files)
    for number, entry in enumerate(index["passes"], 1):
        assert re.fullmatch(rf"{number:03d}-{re.escape(entry['pass'])}\.\w+", entry["file"])
        counted = {"added", "removed"} if entry["file"].endswith(".mlir") else set()
        assert set(entry) == {"changed", "file", "lines", "milliseconds", "pass", "stage"} | counted
    names = [(e["stage"], e["pass"]) for e in index["passes"]]
    assert names[:2] == [("tile", "trace"), ("tile", "check-kernel")]
    expected = {
        "sm90": ["triton-combine", "convert-triton-to-tritongpu", "convert-triton-gpu-to-llvm", "mlir-to-llvm", "llvm-to-ptx", "ptxas", "nvdisasm"],
        "gfx942": ["triton-combine", "convert-triton-to-tritongpu", "convert-triton-amdgpu-to-llvm", "mlir-to-llvm", "llvm-to-amdgcn", "assemble"],
    }[index["target"]]  # fmt: skip
    passes = [name for _, name in names]
    assert [p for p in passes if p in expected] == expected


def test_about_the_kernel(dump):
    _, index = dump
    assert index["format"] == 1 and index["kernel"] == "scaled" and index["error"] is None
    assert index["source"]["file"].endswith(HERE)
    assert index["source"]["sha256"] == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    stages = list(dict.fromkeys(e["stage"] for e in index["passes"] if e["stage"] != "sass"))
    assert [s["name"] for s in index["stages"]] == stages
    assert all(s["milliseconds"] > 0 for s in index["stages"])
    assert index["manifest"]["entry"] == "scaled"
    assert index["options"]["num_warps"] == 1


def test_each_file_holds_the_ir_after_its_pass(dump):
    folder, index = dump
    texts = {e["pass"]: (folder / e["file"]).read_bytes() for e in index["passes"]}
    assert b"tt.func" in texts["tile-to-tt"] and b"func.func" not in texts["tile-to-tt"]
    assert b"#ttg.blocked" in texts["convert-triton-to-tritongpu"] and b"#ttg.blocked" not in texts["parse"]
    assert (
        b"llvm.func" in texts["convert-nvvm-to-llvm" if index["target"] == "sm90" else "convert-cf-to-llvm"]
    )
    assert b"scf.for" not in texts["convert-scf-to-cf"] and b"cf.cond_br" in texts["convert-scf-to-cf"]
    assert texts["mlir-to-llvm"].startswith(b"; ModuleID") and b"define " in texts["mlir-to-llvm"]
    assert texts["ptxas" if index["target"] == "sm90" else "assemble"].startswith(b"\x7fELF")


def test_changes(dump):
    folder, index = dump
    previous = ""
    for entry in index["passes"]:
        contents = (folder / entry["file"]).read_bytes()
        if contents.startswith(b"\x7fELF"):
            assert entry["changed"]
            continue
        assert entry["changed"] == (contents.decode() != previous), entry["file"]
        previous = contents.decode()
    by_name = {e["pass"]: e for e in index["passes"]}
    assert not by_name["check-kernel"]["changed"]
    assert (
        by_name["tile-to-tt"]["added"]["tt.load"] == 1 and by_name["tile-to-tt"]["removed"]["tile.load"] == 1
    )


def source_lines(dump, name: str, pattern: str) -> set[int]:
    """The kernel's lines that the lines of a file with `pattern` map to."""
    folder, index = dump
    entry = next(e for e in index["passes"] if e["pass"] == name)
    text = (folder / entry["file"]).read_text().splitlines()
    places = {number: (file, line) for number, file, line, _ in entry["lines"]}
    assert all(1 <= number <= len(text) and file.endswith(HERE) for number, (file, _) in places.items())
    return {places[n][1] for n, line in enumerate(text, 1) if re.search(pattern, line) and n in places}


@pytest.mark.parametrize("name", ["trace", "hoist-loads", "choose-memory-path"])
def test_lines_of_tile(dump, name):
    assert source_lines(dump, name, r"tile\.load") == {LINES["load"]}
    assert source_lines(dump, name, r"math\.exp2") == {LINES["helper"]}
    assert source_lines(dump, name, r"scf\.for") == {LINES["loop"]}
    assert source_lines(dump, name, r"tile\.store") == {LINES["store"]}


@pytest.mark.parametrize("name", ["tile-to-tt", "parse", "triton-loop-unroll", "tritongpu-coalesce"])
def test_lines_of_triton(dump, name):
    assert source_lines(dump, name, r"tt\.load") == {LINES["load"]}
    assert source_lines(dump, name, r"math\.exp2") == {LINES["helper"]}
    assert source_lines(dump, name, r"scf\.for") == {LINES["loop"]}
    assert source_lines(dump, name, r"tt\.store") == {LINES["store"]}


def test_lines_of_code(dump):
    if dump[1]["target"] == "sm90":
        assert source_lines(dump, "mlir-to-llvm", r"call float @llvm\.(nvvm\.)?ex2") <= {LINES["helper"]}
        assert source_lines(dump, "llvm-to-ptx", r"ld\.global") == {LINES["load"]}
        assert source_lines(dump, "llvm-to-ptx", r"ex2\.approx") == {LINES["helper"]}
        assert source_lines(dump, "llvm-to-ptx", r"st\.global") == {LINES["store"]}
        assert source_lines(dump, "nvdisasm", r"MUFU\.EX2") == {LINES["helper"]}
        assert source_lines(dump, "nvdisasm", r"\bLDG\b") == {LINES["load"]}
    else:
        assert source_lines(dump, "llvm-to-amdgcn", r"v_exp_f32") == {LINES["helper"]}
        assert source_lines(dump, "llvm-to-amdgcn", r"global_load|buffer_load") == {LINES["load"]}


def test_a_failure_leaves_what_ran(tmp_path, monkeypatch):
    from mosaic_compile.backends import triton

    def fail(self, stage, state, session, record=None):
        raise BackendError("out of luck")

    monkeypatch.setattr(triton.TritonCompiler, "run", fail)
    with pytest.raises(BackendError):
        compile_kernel(scaled, scaled.specialize(), Compilation(targets.find("sm90"), dump=tmp_path))
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["error"] == {
        "message": "out of luck",
        "help": None,
        "file": None,
        "line": None,
        "column": None,
    }
    assert [s["name"] for s in index["stages"]] == ["tile", "tt", "ttir"] and index["manifest"] is None
    assert index["passes"][-1]["pass"] == "parse"


@mc.kernel
def uneven(x: mc.f32["N"], out: mc.f32["N"]):
    mc.store(out, 0, mc.load(x, 0, 96))  # line: uneven


def test_a_failure_has_a_place(tmp_path):
    with pytest.raises(TargetLimitError) as error:
        compile_kernel(uneven, uneven.specialize(), Compilation(targets.find("sm90"), dump=tmp_path))
    found = json.loads((tmp_path / "index.json").read_text())["error"]
    assert found.pop("file").endswith(HERE)
    assert found == {
        "message": "a tile has the size 96, but sizes on sm90 are powers of two",
        "help": error.value.help,
        "line": LINES["uneven"],
        "column": 22,
    }


def test_a_failure_in_triton_leaves_triton_s_passes(tmp_path, monkeypatch):
    from mosaic_compile.backends import triton

    whole = triton.TritonCompiler.__init__

    def breaking(self, session):
        whole(self, session)
        make = self.stages["ttgir"]

        def stage(state, metadata):
            make(state, metadata)
            raise RuntimeError("PassManager::run failed")

        self.stages["ttgir"] = stage

    monkeypatch.setattr(triton.TritonCompiler, "__init__", breaking)
    with pytest.raises(BackendError) as error:
        compile_kernel(scaled, scaled.specialize(), Compilation(targets.find("sm90"), dump=tmp_path))
    assert error.value.message == "Triton's stage 'ttgir' failed for sm90: PassManager::run failed"
    passes = [e["pass"] for e in json.loads((tmp_path / "index.json").read_text())["passes"]]
    assert "tritongpu-coalesce" in passes


def test_a_new_dump_replaces_the_old_one(tmp_path):
    for target in ("sm90", "sm80"):
        compile_kernel(
            scaled, scaled.specialize(), Compilation(targets.find(target), dump=tmp_path, until="tt")
        )
    (tmp_path / "notes").write_text("mine")
    compile_kernel(
        scaled, scaled.specialize(), Compilation(targets.find("sm90"), dump=tmp_path, until="tile")
    )
    names = {f.name for f in tmp_path.iterdir()}
    index = json.loads((tmp_path / "index.json").read_text())
    assert names == {e["file"] for e in index["passes"]} | {"index.json", "notes"}


# Reading locations out of text.


def test_locations_are_taken_out():
    text = (
        '#loc = loc("a (1).py":3:1)\n'
        "module {\n"
        '  tt.func @f(%a: i32 loc("x"(#loc1)), %b: i32 loc(unknown)) {\n'
        '    %0 = arith.addi %a, %b {s = "loc"} : i32 loc(callsite("h"("a (1).py":9:2) at #loc1))\n'
        "  } loc(#loc)\n"
        "} loc(#loc)\n"
        '#loc1 = loc("a (1).py":4:5)\n'
    )
    assert without_locations(text) == (
        'module {\n  tt.func @f(%a: i32, %b: i32) {\n    %0 = arith.addi %a, %b {s = "loc"} : i32\n  }\n}\n'
    )
    place = ["a (1).py", 3, 1]
    assert line_map(text, "mlir") == [
        [1, *place],
        [2, *place],
        [3, "a (1).py", 9, 2],
        [4, *place],
        [5, *place],
    ]


def test_both_ends_of_branches_map_to_their_operation():
    text = 'module {\n  scf.if %c {\n  } else {\n  } loc("k.py":7:3)\n}\n'
    assert line_map(text, "mlir") == [[2, "k.py", 7, 3], [4, "k.py", 7, 3]]


def test_assembly_inlined_and_unknown_places():
    ptx = (
        '.file 1 "k.py"\n\t.loc 1 4 2\n\tadd.f32 %f1, %f2, %f3;\n\t.loc 1 9 2, function_name $L, inlined_at 1 4 2\n'
        "$L1:\n\t@%p1 bra $L1;\n\t.loc 1 0 0\n\tret;\n"
    )
    assert line_map(ptx, "ptx") == [[3, "k.py", 4, 2], [6, "k.py", 9, 2]]
    sass = (
        '\t//## File "h.py", line 9 inlined at "k.py", line 4\n\t//## File "k.py", line 4\n'
        "        /*0000*/                   FADD R1, R2, R3 ;\n"
    )
    assert line_map(sass, "sass") == [[3, "h.py", 9, 0]]
    amd = '\t.file\t1 "src" "k.py"\n\t.loc\t1 5 2\n\ts_endpgm\n'
    assert line_map(amd, "amdgcn") == [[3, "src/k.py", 5, 2]]


def test_operation_names():
    text = 'module {\n  %0:2 = scf.for %i = %a to %b {\n    "tt.reduce"(%x) ({\n  }\n  tt.return\n}\n'
    assert operation_names(text) == ["scf.for", "tt.reduce", "tt.return"]
    assert operation_names(".visible .entry k(\n") == []
