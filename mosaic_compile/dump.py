"""`--dump-ir DIR`: a numbered file for each pass that ran, and index.json, which tells them apart for programs.

docs/dump-format.md describes the format.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import CacheError, UsageError
from .files import write_bytes_aside, write_text_aside

FORMAT = 1
INDEX = "index.json"


@dataclass
class Dump:
    """Collects the IR after each pass of one kernel's compilation."""

    folder: Path
    kernel: str
    target: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    previous: str = ""

    def __post_init__(self) -> None:
        prepare_folder(self.folder)

    def record(
        self, stage: str, name: str, extension: str, text: str | bytes, milliseconds: float, located: str | None = None
    ) -> None:
        """Writes one file; `located` is the same IR printed with source locations, for the line map."""
        file = f"{len(self.entries) + 1:02d}-{name}.{extension}"
        entry: dict[str, Any] = {"file": file, "stage": stage, "pass": name, "milliseconds": round(milliseconds, 3)}
        if isinstance(text, bytes):
            write_bytes_aside(self.folder / file, text)
            entry |= {"changed": True, "bytes": len(text), "lines": []}
        else:
            write_text_aside(self.folder / file, text)
            before, after = Counter(operation_names(self.previous)), Counter(operation_names(text))
            entry |= {
                "changed": text != self.previous,
                "added": dict(sorted((after - before).items())),
                "removed": dict(sorted((before - after).items())),
                "lines": line_map(located if located is not None else text),
            }
            self.previous = text
        self.entries.append(entry)

    def finish(self, manifest: dict[str, Any] | None = None) -> None:
        index = {"format": FORMAT, "kernel": self.kernel, "target": self.target, "passes": self.entries}
        if manifest is not None:
            index["manifest"] = manifest
        write_text_aside(self.folder / INDEX, json.dumps(index, indent=1) + "\n")


def prepare_folder(folder: Path) -> None:
    """Makes the folder, and removes an older dump's files from it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"the folder '{folder}' cannot be made: {error.strerror}", "choose a folder that can be written") from None
    index = folder / INDEX
    if index.exists():
        try:
            old = json.loads(index.read_text())["passes"]
            files = [folder / entry["file"] for entry in old]
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"'{index}' is not a dump's index", "choose another folder for --dump-ir") from None
        index.unlink()
        for file in files:
            if file.parent == folder:
                file.unlink(missing_ok=True)


_OPERATION = re.compile(r'(?:^|= )\s*"?((?:[a-z_]+\.)+[a-z_0-9.]+)"?[ (<]', re.MULTILINE)


def operation_names(text: str) -> list[str]:
    """The operations in printed MLIR; empty for other text."""
    return _OPERATION.findall(text) if "module" in text[:200] else []


_LOCATION_ALIAS = re.compile(r"^#(loc\d*) = loc\((.*)\)$", re.MULTILINE)
_FILE_LOCATION = re.compile(r'"([^"]+)":(\d+):(\d+)')
_TRAILING_LOCATION = re.compile(r"loc\((.*)\)$")
_PTX_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]+)"(?:\s|$)', re.MULTILINE)
_PTX_LOCATION = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)")
_SASS_LOCATION = re.compile(r'^\s*//## File "([^"]+)", line (\d+)')


def line_map(text: str) -> list[list[Any]]:
    """[line of the IR, source file, source line, source column] for each line that has a place in the kernel.

    Lines count from 1, in the file as it was written. Understands MLIR's loc(…), PTX's .loc and nvdisasm's comments.
    """
    if "loc(" in text:
        return _mlir_line_map(text)
    if _PTX_FILE.search(text):
        return _ptx_line_map(text)
    return _sass_line_map(text)


def _mlir_line_map(text: str) -> list[list[Any]]:
    aliases = dict(_LOCATION_ALIAS.findall(text))

    def resolve(location: str, depth: int = 0) -> tuple[str, int, int] | None:
        found = _FILE_LOCATION.search(location)
        if found:
            return found[1], int(found[2]), int(found[3])
        # callsite(#loc4 at #loc2), fused, "name"(#loc3): the innermost place stands first.
        for name in re.findall(r"#(loc\d*)", location):
            place = resolve(aliases.get(name, ""), depth + 1) if depth < 16 else None
            if place:
                return place
        return None

    result: list[list[Any]] = []
    number = 0
    for line in text.split("\n"):
        if line.startswith("#loc"):
            continue
        number += 1
        found = _TRAILING_LOCATION.search(line)
        place = resolve(found[1]) if found else None
        if place:
            result.append([number, *place])
    return result


def _ptx_line_map(text: str) -> list[list[Any]]:
    files = dict(_PTX_FILE.findall(text))
    result: list[list[Any]] = []
    current: list[Any] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        found = _PTX_LOCATION.match(line)
        if found:
            current = [files.get(found[1], found[1]), int(found[2]), int(found[3])]
        elif current is not None and line.endswith(";"):
            result.append([number, *current])
    return result


def _sass_line_map(text: str) -> list[list[Any]]:
    result: list[list[Any]] = []
    current: list[Any] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        found = _SASS_LOCATION.match(line)
        if found:
            current = [found[1], int(found[2]), 0]
        elif current is not None and line.rstrip().endswith(";"):
            result.append([number, *current])
    return result
