"""Writing files so that nobody ever sees half of one: aside, then renamed into place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import CacheError


def write_bytes_aside(path: Path, contents: bytes) -> None:
    """Writes a file in one step; raises CacheError where it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(contents)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CacheError(
            f"'{path}' cannot be written: {error.strerror}", "choose a folder that can be written"
        ) from None


def write_text_aside(path: Path, text: str) -> None:
    write_bytes_aside(path, text.encode())
