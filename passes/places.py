"""From a place in the IR back to the user's text: passes raise their errors with the line that is meant."""

from __future__ import annotations

import linecache
import re

from mosaic_compile.errors import Span
from mosaic_compile.mlir import ir

_STATEMENT = re.compile(r"(def|for|while|if|return|assert)\b")
_NAME = re.compile(r"[\w.]*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def frames_of(location: ir.Location) -> tuple[Span, ...]:
    """A location's source ranges, from the kernel down to the helper in which it stands; () for none."""
    if isinstance(location, ir.FileLineColLoc):
        return (_span(location.filename, location.start_line, location.start_col - 1),)
    if isinstance(location, ir.CallSiteLoc):
        return frames_of(location.caller) + frames_of(location.callee)
    if isinstance(location, ir.NameLoc):
        return frames_of(location.child_loc)
    if isinstance(location, ir.FusedLoc):  # operations that were merged: the first one speaks for all
        return next(filter(None, map(frames_of, location.locations)), ())
    return ()


def _span(file: str, line: int, column: int) -> Span:
    # Columns count bytes.
    rest = linecache.getline(file, line).rstrip("\n").encode()[column:].decode(errors="ignore")
    width = len(rest[: _length(rest)].encode())
    return Span(file, line, column, line, column + max(1, width))


def _length(text: str) -> int:
    """How much of `text` belongs to what starts it: locations hold no end, so this is an estimate.

    A statement goes to the end of the line; anything else is a name with the calls and indices behind it.
    """
    if _STATEMENT.match(text):
        return len(text.split(" #")[0].rstrip().rstrip(":"))
    end = 0
    while True:
        end += len(_NAME.match(text[end:]).group())  # type: ignore[union-attr]
        if text[end : end + 1] not in _CLOSING:
            return end
        close = _matching(text, end)
        if close is None:
            return len(text)  # the expression goes on in the next line
        end = close + 1


def _matching(text: str, start: int) -> int | None:
    """The place of the bracket that closes the one at `start`, if it is on this line."""
    open_: list[str] = []
    for place in range(start, len(text)):
        if text[place] in _CLOSING:
            open_.append(_CLOSING[text[place]])
        elif open_ and text[place] == open_[-1]:
            open_.pop()
            if not open_:
                return place
    return None
