"""Loading a kernel file: a Python file, run as a module, and the kernels that it defines."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from .errors import KernelFileError, MosaicError, NoKernelError, Span, UsageError
from .frontend.source import display_path
from .language.kernel import Kernel


def load_kernels(path: Path) -> dict[str, Kernel]:
    """The kernels defined in a file, in order; raises UsageError, KernelFileError or NoKernelError."""
    if not path.exists():
        raise UsageError(f"there is no file '{path}'", "give the path of a Python file with kernels")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder", "give the path of a Python file with kernels")
    module_name = f"mosaic_kernel_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' is not a Python file", "kernels live in files that end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that pickling and dataclasses in the file work
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        file = display_path(error.filename or str(path))
        line, column = error.lineno or 1, (error.offset or 1) - 1
        end = (error.end_offset or column + 2) - 1
        raise KernelFileError(f"{error.msg}", "correct the Python syntax", (Span(file, line, column, line, max(end, column + 1)),)) from None
    except (UnicodeDecodeError, ValueError) as error:
        raise KernelFileError(f"'{path}' is not Python text: {error}", "kernels live in text files that end in .py") from None
    except MosaicError:
        raise
    except Exception as error:
        raise KernelFileError(f"{type(error).__name__}: {error}", "this happened while the file was imported", _frames(error, path)) from None
    finally:
        sys.path.pop(0)
    kernels = {k.name: k for k in vars(module).values() if isinstance(k, Kernel) and k.function.__module__ == module_name}
    if not kernels:
        raise NoKernelError(f"'{path}' has no kernels", "mark a function with @mc.kernel(grid=…)")
    return kernels


def _frames(error: Exception, path: Path) -> tuple[Span, ...]:
    """The last line of the kernel file that led to an exception."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve() == path.resolve() and frame.lineno:
            column = frame.colno or 0
            return (Span(display_path(frame.filename), frame.lineno, column, frame.end_lineno or frame.lineno, frame.end_colno or column + 1),)
    return ()


def choose(kernels: dict[str, Kernel], name: str | None, path: Path) -> dict[str, Kernel]:
    """All kernels, or the one of that name."""
    if name is None:
        return kernels
    if name not in kernels:
        raise NoKernelError(f"'{path}' has no kernel '{name}'", f"its kernels are: {', '.join(kernels)}")
    return {name: kernels[name]}
