"""What tuning has found, kept on disk: a small file for each device, driver, kernel and bucket of shapes.

The files lie in the folder `tuned` of the cache (see cache.py). Each is written aside and renamed into place; one that cannot be
read counts as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaic_compile import cache
from mosaic_compile.errors import ArgumentError, CacheError
from mosaic_compile.files import write_text_aside
from mosaic_compile.language.dtypes import DTYPES, DType
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import OPTIONS

FORMAT = 1
EXACT = 16  # dimensions up to this have a bucket each


@dataclass(frozen=True)
class Kept:
    """The fastest candidate, its time in microseconds, and the sizes that it was timed with."""

    entry: Mapping[str, Any]
    microseconds: float
    sizes: Mapping[str, int]


def bucket(sizes: Mapping[str, int]) -> dict[str, int]:
    """The dimensions by which results are kept: those above EXACT rounded up to a power of two."""
    return {name: size if size <= EXACT else 1 << (size - 1).bit_length() for name, size in sizes.items()}


def name_of(
    about: Mapping[str, str],
    kernel_key: str,
    entries: tuple[Mapping[str, Any], ...],
    sizes: Mapping[str, int],
) -> str:
    """The name under which a result is kept.

    about: see Machine. kernel_key: stands for the kernel's text, its element types, its layouts, the optional arrays that are
    there, and the compiler (driver.code_key). entries: its `tune` list: a result for another list does not count.
    """
    return cache.key(
        json.dumps(dict(about), sort_keys=True),
        kernel_key,
        repr(entries),
        json.dumps(bucket(sizes), sort_keys=True),
    )


def folder() -> Path:
    return cache.folder() / "tuned"


def any_kept() -> bool:
    """Whether anything has been tuned, so that looking for it is worth while."""
    return folder().is_dir()


@contextmanager
def alone(about: Mapping[str, str]) -> Iterator[None]:
    """One process at a time tunes on a device: others would disturb its measurements. Raises CacheError."""
    _make(folder())
    with cache.locked(folder() / f"{cache.key(json.dumps(dict(about), sort_keys=True))}.lock"):
        yield


def keep(name: str, kernel: Kernel, about: Mapping[str, str], kept: Kept) -> None:
    """Writes a result over an older one; raises CacheError where it cannot be written."""
    contents = {
        "format": FORMAT,
        "kernel": kernel.name,
        **about,
        "bucket": bucket(kept.sizes),
        "sizes": dict(kept.sizes),
        "settings": {k: _encoded(v) for k, v in kept.entry.items()},
        "microseconds": kept.microseconds,
    }
    _make(folder())
    write_text_aside(folder() / f"{name}.json", json.dumps(contents, indent=1) + "\n")


def look_up(name: str, kernel: Kernel) -> Kept | None:
    """The result of that name; None where there is none, or none that can be read."""
    try:
        found = json.loads((folder() / f"{name}.json").read_text())
        if found["format"] != FORMAT:
            return None
        entry = {k: _decoded(v) for k, v in found["settings"].items()}
        sizes = {k: int(v) for k, v in found["sizes"].items()}
        kept = Kept(entry, float(found["microseconds"]), sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = {c.name for c in kernel.signature.constants} | OPTIONS.keys()
    return kept if kept.entry.keys() <= known else None


def check_kept(kernel: Kernel, entry: Mapping[str, Any]) -> None:
    """Refuses an entry that cannot be kept; raises ArgumentError."""
    for name, value in entry.items():
        if not isinstance(value, bool | int | float | str | DType | None):
            raise ArgumentError(
                f"'{kernel.name}' cannot be tuned: a candidate sets '{name}' to {value!r}",
                "candidates set numbers, text and element types",
                (kernel.span,),
            )


def _encoded(value: Any) -> Any:
    return {"dtype": value.name} if isinstance(value, DType) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return DTYPES[value["dtype"]]
    if not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"{value!r} is no setting")
    return value


def _make(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"the cache folder '{path}' cannot be used: {error.strerror}",
            "set MOSAIC_CACHE_DIR to a folder that can be written",
        ) from None
