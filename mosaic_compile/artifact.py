"""A compiled kernel: its manifest, which holds all that a launcher needs, and its files.

The same on disk (`-o DIR`, the cache) and in memory. docs/artifact-format.md describes the manifest.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CacheError

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """`files` maps file names to contents; the manifest says which is which."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def binary(self) -> bytes:
        return self.files[self.manifest["files"]["binary"]]

    def save(self, folder: Path) -> None:
        """Writes the artifact as a folder, in one step: readers see the whole artifact or none.

        An older artifact at the same place is replaced; a folder that holds anything else is refused (CacheError).
        """
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
                raise CacheError(f"the folder '{folder}' holds other files", "choose a new or empty folder for -o")
            aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                for name, contents in self.files.items():
                    (aside / name).write_bytes(contents)
                (aside / MANIFEST).write_text(json.dumps(self.manifest, indent=1) + "\n")
                os.chmod(aside, 0o755)
                self._into_place(aside, folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        except OSError as error:
            raise CacheError(f"the folder '{folder}' cannot be written: {error.strerror}", "choose a folder that can be written") from None

    @staticmethod
    def _into_place(aside: Path, folder: Path) -> None:
        if not folder.exists():
            aside.rename(folder)
            return
        # A folder cannot be renamed over a full one: the old one steps aside first.
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
        folder.rename(old / folder.name)
        aside.rename(folder)
        shutil.rmtree(old)

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Reads an artifact; raises CacheError where the folder holds none, or one of another format."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            if manifest.get("format") != FORMAT:
                raise CacheError(f"the artifact in '{folder}' has format {manifest.get('format')}, this version reads {FORMAT}", "compile it again")
            files = {name: (folder / name).read_bytes() for name in manifest["files"].values()}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CacheError(f"'{folder}' holds no complete artifact: {error}", "compile the kernel again with -o") from None
        return cls(manifest, files)
