"""Loading a kernel file: a Python file, run as a module, and the kernels that it defines."""

from __future__ import annotations

import contextlib
import difflib
import io
import linecache
import sys
import tokenize
import traceback
import types
from pathlib import Path

from .errors import KernelFileError, MosaicError, NoKernelError, Span, UsageError
from .frontend.source import display_path
from .language.kernel import Kernel


def load_kernels(path: Path) -> dict[str, Kernel]:
    """The kernels defined in a file, in order; raises UsageError, KernelFileError or NoKernelError.

    A kernel goes by the name of its variable, which for one made by a function is not that of its `def`.
    """
    check_file(path)
    linecache.checkcache(str(path))  # the file may have changed since this process read it last
    code = _compiled(path)
    name = f"mosaic_kernel_file_{path.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # so that pickling and dataclasses in the file work
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as `python FILE` does: a file may import its neighbours
    try:
        exec(code, vars(module))
    except MosaicError:
        raise
    except (Exception, SystemExit) as error:
        text = f": {error}" if str(error) else ""
        reason = f"{type(error).__name__}{text}"
        help = "this happened while the file was imported; guard code that is not for import by if __name__ == '__main__'"
        raise KernelFileError(
            reason, help if isinstance(error, SystemExit) else help.partition(";")[0], _frames(error, path)
        ) from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
    kernels: dict[str, Kernel] = {}
    for variable, value in vars(module).items():
        if isinstance(value, Kernel) and value.function.__module__ == name and value not in kernels.values():
            kernels[variable] = value
    if not kernels:
        raise NoKernelError(f"'{path}' has no kernels", "mark a function with @mc.kernel(grid=…)")
    return kernels


def check_file(path: Path) -> None:
    """Raises UsageError where there is no such file."""
    if not path.exists():
        raise UsageError(f"there is no file '{path}'", "give the path of a Python file with kernels")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder", "give the path of a Python file with kernels")


def _compiled(path: Path) -> types.CodeType:
    """The file's code; raises UsageError where it cannot be read, KernelFileError where it is not Python."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the file '{path}' cannot be read: {error.strerror}",
            "give the path of a Python file with kernels",
        ) from None
    try:
        return compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        if error.lineno is None or _is_not_text(source):  # an encoding that is not what the file says
            raise KernelFileError(
                f"'{path}' is not Python text: {error.msg}", "save the file as UTF-8"
            ) from None
        file = display_path(error.filename or str(path))
        raise KernelFileError(f"{error.msg}", "correct the Python syntax", (_place(error, file),)) from None
    except ValueError as error:  # null bytes, before Python 3.12
        raise KernelFileError(f"'{path}' is not Python text: {error}", "save the file as UTF-8") from None


def _is_not_text(source: bytes) -> bool:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        source.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        return True
    return b"\0" in source


def _place(error: SyntaxError, file: str) -> Span:
    """Where a syntax error stands; Python counts its columns in characters, from 1."""
    line = error.lineno or 1
    text = linecache.getline(error.filename or "", line)

    def column(offset: int) -> int:
        return len(text[: max(0, offset - 1)].encode())

    start = column(error.offset or 1)
    if not error.end_offset or error.end_lineno is None:  # Python knows where it starts only
        end = start + 1
    else:
        end = column(error.end_offset) if error.end_lineno == line else len(text.rstrip().encode())
    return Span(file, line, start, line, max(end, start + 1))


def _frames(error: BaseException, path: Path) -> tuple[Span, ...]:
    """The last line of the kernel file that led to an exception."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve() == path.resolve() and frame.lineno:
            column = frame.colno or 0
            return (
                Span(
                    display_path(frame.filename),
                    frame.lineno,
                    column,
                    frame.end_lineno or frame.lineno,
                    frame.end_colno or column + 1,
                ),
            )
    return ()


def choose(kernels: dict[str, Kernel], name: str | None, path: Path) -> dict[str, Kernel]:
    """All kernels, or the one of that name; raises UsageError."""
    if name is None:
        return kernels
    if name not in kernels:
        close = difflib.get_close_matches(name, kernels, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"'{path}' has no kernel '{name}'", f"{hint}its kernels are: {', '.join(kernels)}")
    return {name: kernels[name]}
