"""Ordinary Python inside a kernel: what runs at compile time, and how its exceptions are shown."""

from __future__ import annotations

import functools
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from mosaic_compile.errors import HelperError, MosaicError


@contextmanager
def ordinary_python() -> Iterator[None]:
    """An exception raised inside is the user's, not the compiler's."""
    try:
        yield
    except (MosaicError, RecursionError):
        raise
    except Exception as error:
        raise HelperError(
            f"{type(error).__name__}: {error}", "this part is ordinary Python, run at compile time"
        ) from error


def takes_tiles(function: Any) -> bool:
    """Python's own functions that treat tiles as opaque values, and named tuples."""
    if isinstance(function, type) and issubclass(function, tuple):
        return True
    return function in (
        isinstance, type, len, tuple, list, zip, enumerate, reversed, id, repr, int, float, bool,
        getattr, hasattr,
    )  # fmt: skip


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]})


def is_library(function: FunctionType, caller: dict[str, Any]) -> bool:
    """Whether a function is Python's or an installed package's: run at compile time, not inlined.

    `caller`: the globals of the function that calls. Functions of its own package are always inlined.
    """
    package = (function.__module__ or "").split(".")[0]
    if package in ("mosaic_compile", str(caller.get("__name__")).split(".")[0]):
        return False
    return package in sys.stdlib_module_names or function.__code__.co_filename.startswith(_library_folders())
