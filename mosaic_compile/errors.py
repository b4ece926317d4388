"""Every error that a user can see: one class a mistake, rendered with the user's line and a caret.

An error is raised with a message (what is wrong, in the user's words) and a help line (what would be right).
The frontend fills in where: the frames from the kernel down to the helper with the mistake.
"""

from __future__ import annotations

import linecache
import os
import sys
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Span:
    """A range of source text: lines count from 1, columns from 0 (as Python's ast counts them)."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def source_line(self) -> str:
        return linecache.getline(self.file, self.line).rstrip("\n")

    def __str__(self) -> str:
        # ast columns count UTF-8 bytes; people and editors count characters.
        before = self.source_line().encode()[: self.column]
        column = len(before.decode(errors="ignore")) if before else self.column
        return f"{self.file}:{self.line}:{column + 1}"


def user_span() -> tuple[Span, ...]:
    """The innermost call that stands outside this package: the place of a mistake in plain Python."""
    ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    if frame is None:
        return ()
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    line, end_line, column, end_column = (n if n is not None else 0 for n in positions)
    return (Span(frame.f_code.co_filename, line, column, end_line, end_column),)


class MosaicError(Exception):
    """Base class: `message`, an optional `help`, and the frames in which the mistake was made."""

    def __init__(self, message: str, help: str | None = None, frames: tuple[Span, ...] = ()):
        super().__init__(message)
        self.message = message
        self.help = help
        self.frames = frames

    def at(self, frames: tuple[Span, ...]) -> MosaicError:
        """This error with its place filled in, unless it has one already."""
        if not self.frames:
            self.frames = frames
        return self

    def render(self) -> str:
        """The whole message: what, where with a caret, the way there, and the fix."""
        lines = [f"error: {self.message}", *place(self.frames)]
        if self.help:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


def place(frames: tuple[Span, ...]) -> list[str]:
    """Lines that show the last frame's text with a caret, and the calls that led there."""
    if not frames:
        return []
    calls = [f"note: called from {f}: {f.source_line().strip()}" for f in reversed(frames[:-1])]
    if len(calls) > 8:  # recursion: its ends tell all
        calls = [*calls[:4], f"note: … {len(calls) - 8} calls more …", *calls[-4:]]
    return [*_snippet(frames[-1]), *calls]


def _snippet(span: Span) -> list[str]:
    """The user's line with the span underlined, where it has several lines to the end of its first."""
    text = span.source_line()
    if not text:
        return [f"  --> {span}"]
    end = span.end_column if span.end_line == span.line else len(text)
    # ast columns count UTF-8 bytes; what is underlined are characters.
    start_char = len(text.encode()[: span.column].decode(errors="ignore"))
    end_char = len(text.encode()[:end].decode(errors="ignore")) if span.end_line == span.line else len(text)
    gutter = " " * len(str(span.line))
    # Tabs stay tabs, so that the caret stands under its character in every editor.
    indent = "".join("\t" if c == "\t" else " " for c in text[:start_char])
    return [
        f"{gutter}--> {span}",
        f"{gutter} |",
        f"{span.line} | {text}",
        f"{gutter} | {indent}{'^' * max(1, end_char - start_char)}",
    ]


# Mistakes in a kernel's text.


class UnsupportedSyntaxError(MosaicError):
    """Python that the DSL does not have."""


class SourceUnavailableError(MosaicError):
    """A function whose source text cannot be read."""


class UndefinedNameError(MosaicError):
    """A name without a value on some path to its use."""


class SignatureError(MosaicError):
    """A kernel parameter whose annotation says too little or something impossible."""


class NotConstantError(MosaicError):
    """A runtime value where the compiler must know the value."""


class OperandError(MosaicError):
    """An argument of a kind that the operation does not take."""


class MixedTypesError(MosaicError):
    """Two element types in one arithmetic operation."""


class ElementTypeError(MosaicError):
    """An element type that the operation does not have."""


class ShapeError(MosaicError):
    """Tile shapes that do not fit together."""


class CarriedTypeError(MosaicError):
    """A variable that changes its type from one loop iteration to the next."""


class BranchTypeError(MosaicError):
    """A variable that has one type after `if` and another after `else`."""


class StoreToInputError(MosaicError):
    """A store to an array that the kernel declares as input."""


class LoadFromOutputError(MosaicError):
    """A load from an array that the kernel declares as output only."""


class NothingStoredError(MosaicError):
    """A kernel that writes nothing, so that running it changes nothing."""


class UnwrittenOutputError(MosaicError):
    """An array that the kernel declares as output but never writes."""


class OutsideArrayError(MosaicError):
    """A block that lies outside the array, whatever the arguments."""


class PackedElementsError(MosaicError):
    """A block that cuts through a byte that holds two elements."""


class StaticAssertionError(MosaicError):
    """An `assert` in a kernel that does not hold for these constants."""


class OutsideKernelError(MosaicError):
    """A DSL operation called from plain Python."""


class HelperError(MosaicError):
    """A Python exception raised by a compile-time call inside a kernel."""


class InternalError(MosaicError):
    """A fault of the compiler itself."""


class GridError(MosaicError):
    """A grid that cannot be expressed or launched."""


# Mistakes in what is asked of the compiler.


class ArgumentError(MosaicError):
    """Call arguments, dimensions or constants that do not fit the kernel's signature."""


class KernelFileError(MosaicError):
    """A kernel file that cannot be read or run."""


class NoKernelError(MosaicError):
    """A file without kernels, or without the one that was named."""


class UsageError(MosaicError):
    """A command line or compile option that cannot be followed."""


class UnknownTargetError(UsageError):
    """A target name that no back end has."""


class TargetLimitError(MosaicError):
    """Something that the chosen target cannot do."""


class OverrideError(MosaicError):
    """An edited IR file that does not parse or verify."""


class CacheError(MosaicError):
    """A cache or output folder that cannot be used."""


class BackendError(MosaicError):
    """A failure inside a back end's own compiler."""


class LaunchError(MosaicError):
    """A compiled kernel that could not be started with these arguments."""


class TuningError(MosaicError):
    """A kernel of which no candidate can be compiled and run."""


class InterpreterError(MosaicError):
    """IR that cannot be interpreted, or a program that failed while it was: then `program` is its place in the grid."""

    program: tuple[int, int, int] | None = None
