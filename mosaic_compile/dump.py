"""`--dump-ir DIR`: a numbered file for each pass that ran, and index.json, which tells them apart for programs.

docs/dump-format.md describes the format.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import CacheError, Span, UsageError
from .files import write_bytes_aside, write_text_aside

FORMAT = 1
INDEX = "index.json"


@dataclass
class Dump:
    """Collects the IR after each pass of one kernel's compilation. `about` describes the kernel in the index."""

    folder: Path
    about: Mapping[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)
    previous: str = ""

    def __post_init__(self) -> None:
        prepare_folder(self.folder)
        self.finish(problem("the compiler did not finish"))  # what stays if the process is killed

    def record(
        self,
        stage: str,
        name: str,
        extension: str,
        text: str | bytes,
        milliseconds: float | None,
        located: str | None = None,
    ) -> None:
        """Writes one file; `located` is the same IR printed with source locations, for the line map."""
        file = f"{len(self.entries) + 1:03d}-{name}.{extension}"
        time = None if milliseconds is None else round(milliseconds, 3)
        entry: dict[str, Any] = {"file": file, "stage": stage, "pass": name, "milliseconds": time}
        if isinstance(text, bytes):
            write_bytes_aside(self.folder / file, text)
            entry |= {"changed": True, "lines": []}
        else:
            text = text if text.endswith("\n") else text + "\n"
            write_text_aside(self.folder / file, text)
            entry["changed"] = text != self.previous
            if extension == "mlir":
                before, after = Counter(operation_names(self.previous)), Counter(operation_names(text))
                entry["added"] = dict(sorted((after - before).items()))
                entry["removed"] = dict(sorted((before - after).items()))
            entry["lines"] = line_map(located if located is not None else text, extension)
            self.previous = text
        self.entries.append(entry)

    def finish(
        self,
        error: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        timings: Iterable[tuple[str, str, float]] = (),
    ) -> None:
        """Writes the index. error: what `problem` says where the compilation failed. timings: stage, step, milliseconds."""
        stages: dict[str, float] = {}
        for stage, _, milliseconds in timings:
            stages[stage] = stages.get(stage, 0) + milliseconds
        index = {
            "format": FORMAT,
            **self.about,
            "error": error,
            "stages": [{"name": name, "milliseconds": round(time, 3)} for name, time in stages.items()],
            "passes": self.entries,
            "manifest": manifest,
        }
        write_text_aside(self.folder / INDEX, json.dumps(index, indent=1) + "\n")


def problem(message: str, help: str | None = None, place: Span | None = None) -> dict[str, Any]:
    """What an index says of a failure."""
    file, line, column = (
        (None, None, None) if place is None else (place.file, place.line, int(str(place).rpartition(":")[2]))
    )
    return {"message": message, "help": help, "file": file, "line": line, "column": column}


def prepare_folder(folder: Path) -> None:
    """Makes the folder, and removes an older dump's files from it."""
    index = folder / INDEX
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if index.exists():
            if not _is_index(index):
                raise UsageError(f"'{index}' is not a dump's index", "choose another folder for --dump-ir")
            for file in folder.iterdir():
                if _DUMPED.match(file.name):
                    file.unlink()
            index.unlink()
    except OSError as error:
        reason = f"the folder '{folder}' cannot be written: {error.strerror}"
        raise CacheError(reason, "choose a folder that can be written") from None


_DUMPED = re.compile(r"\d{3,}-")


def _is_index(file: Path) -> bool:
    try:
        index = json.loads(file.read_bytes())
        return isinstance(index, dict) and {"format", "kernel", "passes"} <= index.keys()
    except ValueError:
        return False


_OPERATION = re.compile(r'(?:^|= )\s*"?((?:[a-z_][a-z_0-9]*\.)+[a-z_0-9]+)"?(?=[\s(<{]|$)', re.MULTILINE)


def operation_names(text: str) -> list[str]:
    """The operations in printed MLIR; empty for other text."""
    return _OPERATION.findall(text) if _MODULE.search(text) else []


_MODULE = re.compile(r"^module\b", re.MULTILINE)
_STRING = r'"(?:[^"\\]|\\.)*"'
_NESTED = rf'(?:[^()"]|{_STRING})*'
for _ in range(4):  # loc(callsite("f"("file":1:2) at "g"(#loc3)))
    _NESTED = rf'(?:[^()"]|{_STRING}|\({_NESTED}\))*'
_LOCATION = re.compile(rf" loc\({_NESTED}\)")


def without_locations(text: str) -> str:
    """Printed MLIR without loc(…) and the lines that define their aliases."""
    return _LOCATION.sub("", re.sub(r"^#loc.*\n?", "", text, flags=re.MULTILINE))


LineMap = list[list[Any]]  # [line of the file, source file, source line, source column]


def line_map(text: str, extension: str) -> LineMap:
    """The place in the kernel of each line that has one.

    Lines count from 1, in the file as it was written. Columns count from 1, and are 0 where only the line is known.
    """
    readers = {
        "mlir": _mlir_lines,
        "llir": _llvm_lines,
        "ptx": _assembly_lines,
        "amdgcn": _assembly_lines,
        "s": _assembly_lines,
        "sass": _sass_lines,
    }
    return readers[extension](text) if extension in readers else []


_LOCATION_ALIAS = re.compile(r"^#(loc\d*) = loc\((.*)\)$", re.MULTILINE)
_FILE_LOCATION = re.compile(r'"([^"]+)":(\d+):(\d+)')


def _mlir_lines(text: str) -> LineMap:
    """From MLIR printed with locations; lines are counted as `without_locations` leaves them."""
    aliases = dict(_LOCATION_ALIAS.findall(text))

    def resolve(location: str, depth: int = 0) -> tuple[str, int, int] | None:
        found = _FILE_LOCATION.search(location)
        if found:
            return found[1], int(found[2]), int(found[3])
        # callsite(#loc4 at #loc2), fused[…], "name"(#loc3): the innermost place stands first.
        for name in re.findall(r"#(loc\d*)", location):
            place = resolve(aliases.get(name, ""), depth + 1) if depth < 16 else None
            if place:
                return place
        return None

    result: dict[int, tuple[str, int, int]] = {}
    opened: list[
        int
    ] = []  # the lines of operations whose regions are open: their place follows the closing brace
    lines = [line for line in text.split("\n") if not line.startswith("#loc")]
    for number, line in enumerate(lines, 1):
        closes = line.lstrip().startswith("}")
        opener = opened.pop() if closes and opened else number
        if _LOCATION.sub("", line).rstrip().endswith("{"):
            opened.append(opener)
        start = line.rfind(" loc(")
        if start < 0 or not line.endswith(")"):
            continue
        place = resolve(line[start:])
        if place:
            result[number] = place
            result.setdefault(opener, place)
    return [[number, *result[number]] for number in sorted(result)]


_LLVM_LOCATION = re.compile(
    r"^!(\d+) = (?:distinct )?!DILocation\(line: (\d+)(?:, column: (\d+))?, scope: !(\d+)", re.MULTILINE
)
_LLVM_SCOPE = re.compile(
    r"^!(\d+) = (?:distinct )?!DI(?:Subprogram|LexicalBlock|LexicalBlockFile)\(.*?\bfile: !(\d+)",
    re.MULTILINE,
)
_LLVM_FILE = re.compile(
    r'^!(\d+) = (?:distinct )?!DIFile\(filename: "([^"]*)", directory: "([^"]*)"', re.MULTILINE
)


def _llvm_lines(text: str) -> LineMap:
    files = {i: f"{folder}/{name}" if folder else name for i, name, folder in _LLVM_FILE.findall(text)}
    scopes = {i: files.get(file, "") for i, file in _LLVM_SCOPE.findall(text)}
    places = {
        i: [scopes.get(scope, ""), int(line), int(column or 0)]
        for i, line, column, scope in _LLVM_LOCATION.findall(text)
    }
    result: LineMap = []
    for number, line in enumerate(text.split("\n"), 1):
        found = re.search(r"!dbg !(\d+)", line)
        if found and found[1] in places and places[found[1]][1]:
            result.append([number, *places[found[1]]])
    return result


_ASSEMBLY_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]+)"(?:\s+"([^"]+)")?', re.MULTILINE)
_ASSEMBLY_LOCATION = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)")
_INSTRUCTION = re.compile(r"^\s+[@a-z]")


def _assembly_lines(text: str) -> LineMap:
    """From the .loc lines of PTX, and of AMD's and CPUs' assembly."""
    files = {i: f"{first}/{second}" if second else first for i, first, second in _ASSEMBLY_FILE.findall(text)}
    result: LineMap = []
    current: list[Any] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        found = _ASSEMBLY_LOCATION.match(line)
        if found:
            known = int(found[2]) > 0
            current = [files.get(found[1], found[1]), int(found[2]), int(found[3])] if known else None
        elif current is not None and _INSTRUCTION.match(line):
            result.append([number, *current])
    return result


_SASS_LOCATION = re.compile(r'^\s*//## File "([^"]+)", line (\d+)')


def _sass_lines(text: str) -> LineMap:
    """From nvdisasm's comments; of a place inlined into another, the innermost."""
    result: LineMap = []
    current: list[Any] | None = None
    follows = False
    for number, line in enumerate(text.split("\n"), 1):
        found = _SASS_LOCATION.match(line)
        if found and not follows:
            current = [found[1], int(found[2]), 0]
        elif not found and current is not None and line.rstrip().endswith(";"):
            result.append([number, *current])
        follows = found is not None
    return result
