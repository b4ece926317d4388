"""A compiled kernel: its manifest, which holds all that a launcher needs, and its files.

The same on disk (`-o DIR`, the cache) and in memory. docs/artifact-format.md describes the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CacheError
from .files import write_bytes_aside

FORMAT = 1
MANIFEST = "manifest.json"

# CUtensorMapDataType of an element type, for TMA descriptors.
TENSOR_MAP_TYPES = {
    "i8": 0, "u8": 0, "bool": 0, "f8e4m3": 0, "f8e5m2": 0, "i16": 1, "u32": 2, "i32": 3, "i64": 5, "f16": 6, "f32": 7,
    "f64": 8, "bf16": 9,
}  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """`files` maps file names to contents; the manifest says which is which."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def binary(self) -> bytes:
        return self.files[self.manifest["files"]["binary"]]

    def save(self, folder: Path) -> None:
        """Writes the artifact into a folder, over an older one; raises CacheError.

        The manifest is written last and holds the other files' checksums: a reader takes the whole artifact or none,
        whatever happens to this process or to others that write here.
        """
        try:
            made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            _remove_old(folder, {*self.files})
            written = []
            try:
                for name, contents in {**self.files, MANIFEST: self._manifest_text()}.items():
                    write_bytes_aside(folder / name, contents)
                    written.append(folder / name)
            except BaseException:
                for file in written:
                    file.unlink(missing_ok=True)
                if made:
                    folder.rmdir()
                raise
        except OSError as error:
            reason = f"the folder '{folder}' cannot be written: {error.strerror}"
            raise CacheError(reason, "choose a folder that can be written") from None

    def _manifest_text(self) -> bytes:
        sums = {name: hashlib.sha256(contents).hexdigest() for name, contents in self.files.items()}
        return (json.dumps({**self.manifest, "sha256": sums}, indent=1) + "\n").encode()

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Reads an artifact; raises CacheError where the folder holds none, half of one, or one of another format."""
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            if manifest["format"] != FORMAT:
                raise CacheError(
                    f"the artifact in '{folder}' has format {manifest['format']}, this version reads {FORMAT}",
                    "compile it again",
                )
            files = {name: (folder / name).read_bytes() for name in manifest["files"].values()}
            sums = manifest.pop("sha256")
            damaged = [n for n, contents in files.items() if hashlib.sha256(contents).hexdigest() != sums[n]]
        except OSError as error:
            raise _incomplete(folder, error.strerror or "") from None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise _incomplete(folder, f"{MANIFEST} is damaged") from None
        if damaged:
            raise _incomplete(folder, f"{damaged[0]} is damaged")
        return cls(manifest, files)


def _incomplete(folder: Path, reason: str) -> CacheError:
    return CacheError(f"'{folder}' holds no complete artifact: {reason}", "compile the kernel again with -o")


def _remove_old(folder: Path, keep: set[str]) -> None:
    """Removes an older artifact's manifest, and its files that the new one does not replace."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        return
    try:
        old = json.loads(manifest.read_bytes())
        names = {*old["files"].values()} if old["kernel"] else set()
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CacheError(f"'{manifest}' is not an artifact's", "choose another folder") from None
    manifest.unlink()
    for name in names - keep:
        if (folder / name).parent == folder:
            (folder / name).unlink(missing_ok=True)
