"""LLVM IR as MLIR's bindings print it (LLVM 24), as llvmlite reads it (LLVM 22).

The two differ in how floating-point constants are spelled: LLVM 24 prints the shortest decimal number that rounds to the
value, and names for infinities and NaNs; LLVM 22 takes decimal numbers that are exact, else the bits in hexadecimal.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class _Format:
    """A binary floating-point format: the bits of exponent and of mantissa, and how LLVM 22 marks its hexadecimal form."""

    exponent: int
    mantissa: int
    mark: str

    @property
    def sign(self) -> int:
        return 1 << (self.exponent + self.mantissa)

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.mantissa

    @property
    def quiet(self) -> int:
        return 1 << (self.mantissa - 1)


_FORMATS = {
    "half": _Format(5, 10, "0xH"),
    "bfloat": _Format(8, 7, "0xR"),
    "float": _Format(8, 23, "0x"),
    "double": _Format(11, 52, "0x"),
}

# A constant follows its type, at once or behind other operands of the same type. Quoted text is neither.
_TOKEN = re.compile(
    r"""
    "[^"]*"
    | \b(?P<type>half|bfloat|float|double)\b
    | (?<![\w.$%@-])(?P<constant>
        f0x[0-9A-Fa-f]+
        | [-+]? (?: \d+\.\d*(?:[eE][-+]?\d+)? | inf | qnan | s?nan\(0x[0-9A-Fa-f]+\) ) (?![\w.])
      )
    """,
    re.VERBOSE,
)
_MAY_HAVE_CONSTANT = re.compile(r"\d\.|inf|nan|f0x")


def for_llvmlite(text: str) -> str:
    """The module's text with its floating-point constants as LLVM 22 spells them; each keeps its bits."""
    return "\n".join(
        _rewrite_line(line) if _MAY_HAVE_CONSTANT.search(line) else line for line in text.split("\n")
    )


def _rewrite_line(line: str) -> str:
    type_ = ""

    def rewrite(found: re.Match[str]) -> str:
        nonlocal type_
        type_ = found["type"] or type_
        return found[0] if found["constant"] is None or not type_ else _spell(found["constant"], type_)

    return _TOKEN.sub(rewrite, line)


def _spell(constant: str, type_: str) -> str:
    form = _FORMATS[type_]
    bits = _bits(constant, form)
    if type_ != "float":
        return f"{form.mark}{bits:0{(form.exponent + form.mantissa + 1) // 4}X}"
    return f"0x{_as_double(bits):016X}"  # LLVM 22 writes a float as the double of the same value


def _bits(constant: str, form: _Format) -> int:
    if constant.startswith("f0x"):
        return int(constant[3:], 16)
    sign = form.sign if constant[0] == "-" else 0
    body = constant.lstrip("+-")
    if body == "inf":
        return sign | form.infinity
    if body == "qnan":
        return sign | form.infinity | form.quiet
    if "nan" in body:
        payload = int(body[body.index("0x") :].rstrip(")"), 16)
        return sign | form.infinity | payload | (0 if body[0] == "s" else form.quiet)
    return sign | _round(float(body), form)


def _round(value: float, form: _Format) -> int:
    """The bits of a positive number in a format, rounded to nearest, ties to even."""
    if value == 0:
        return 0
    bias = (1 << (form.exponent - 1)) - 1
    exponent = max(math.frexp(value)[1] - 1, 1 - bias)
    steps = round(math.ldexp(value, form.mantissa - exponent))  # exact before it is rounded
    # A number below the smallest normal one has no hidden bit; rounding up carries into the exponent by itself.
    return steps + ((exponent + bias - 1) << form.mantissa)


def _as_double(bits: int) -> int:
    """The bits of the double that equals a float; a NaN keeps its payload, at the upper end."""
    form, double = _FORMATS["float"], _FORMATS["double"]
    if bits & form.infinity == form.infinity:
        payload = (bits & ((1 << form.mantissa) - 1)) << (double.mantissa - form.mantissa)
        return (double.sign if bits & form.sign else 0) | double.infinity | payload
    (value,) = struct.unpack("<f", struct.pack("<I", bits))
    (wide,) = struct.unpack("<Q", struct.pack("<d", value))
    return wide
