"""Compiled kernels on disk, shared by processes: a folder an entry, in the form of `-o DIR`.

The folder is MOSAIC_CACHE_DIR, or the user's cache folder. One process compiles a kernel while others that want the same
wait for it; an entry appears in one step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

from .artifact import Artifact
from .errors import CacheError


def folder() -> Path:
    """Where the cache lies; raises CacheError where it cannot be written."""
    path = Path(os.environ.get("MOSAIC_CACHE_DIR") or platformdirs.user_cache_path("mosaic-compile"))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from None
    return path


def _unusable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"the cache folder '{path}' cannot be used: {error.strerror}", "set MOSAIC_CACHE_DIR to a folder that can be written")


def key(*parts: str) -> str:
    """A name for what the parts determine."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:32]


def get_or_make(name: str, make: Callable[[], Artifact]) -> Artifact:
    """The cached artifact of that name, or a new one; of processes that ask at once, one makes it."""
    root = folder()
    entry = root / name
    if entry.exists():
        try:
            return Artifact.load(entry)
        except CacheError:
            pass  # damaged, by a full disk say: made again below
    try:
        with filelock.FileLock(root / f"{name}.lock"):
            if entry.exists():
                try:
                    return Artifact.load(entry)
                except CacheError:
                    pass
            artifact = make()
            artifact.save(entry)
            return artifact
    except (PermissionError, OSError) as error:
        raise _unusable(root, error) from None
