"""Compiled kernels on disk, shared by processes: a folder an entry, in the form of `-o DIR`.

The folder is MOSAIC_CACHE_DIR, or the user's cache folder. One process compiles a kernel while others that want the same
wait for it; an entry counts once its manifest, written last, is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    return CacheError(
        f"the cache folder '{path}' cannot be used: {error.strerror}",
        "set MOSAIC_CACHE_DIR to a folder that can be written",
    )


def key(*parts: str) -> str:
    """A name for what the parts determine."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:32]


def look_up(name: str) -> Artifact | None:
    """The cached artifact of that name; None where there is none."""
    return _load(folder() / name)


def get_or_make(name: str, make: Callable[[], Artifact]) -> Artifact:
    """The cached artifact of that name, or a new one; of processes that ask at once, one makes it."""
    root = folder()
    found = _load(root / name)
    if found is not None:
        return found
    with locked(root / f"{name}.lock"):
        found = _load(root / name)
        if found is not None:
            return found
        shutil.rmtree(root / name, ignore_errors=True)  # half of one, by a process that was killed
        artifact = make()
        artifact.save(root / name)
        return artifact


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits until no other process or thread is inside with the same file; raises CacheError where it cannot be written.

    The system takes the lock from a process that ends, however it ends.
    """
    lock = filelock.FileLock(file)
    try:
        lock.acquire()
    except OSError as error:
        raise _unusable(file.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _load(entry: Path) -> Artifact | None:
    """The entry, or None where there is none, or a damaged one (by a full disk, say): it is made again."""
    try:
        return Artifact.load(entry) if entry.exists() else None
    except CacheError:
        return None
