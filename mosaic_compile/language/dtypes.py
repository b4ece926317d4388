"""Element types: `mc.bf16`, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from mosaic_compile.errors import SignatureError, user_span

if TYPE_CHECKING:
    from .arrays import ArraySpec

Kind = Literal["float", "int", "uint", "bool"]


@dataclass(frozen=True)
class DType:
    """An element type.

    `mc.f32["M", 64]` annotates an array parameter, `mc.f32` a scalar one; inside a kernel `mc.f32(x)` makes a
    scalar of this type from a number, or converts a tile.
    """

    name: str
    bits: int
    kind: Kind
    mlir: str
    numpy: np.dtype[Any]

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_fp8(self) -> bool:
        return self.is_float and self.bits == 8

    @property
    def bytes(self) -> float:
        """Size of an element in memory; half a byte for i4."""
        return max(self.bits, 4) / 8 if self.kind != "bool" else 1

    @property
    def min(self) -> int:
        """Smallest value of an integer type."""
        return -(1 << (self.bits - 1)) if self.kind == "int" else 0

    @property
    def max(self) -> int:
        """Largest value of an integer type."""
        return (1 << (self.bits - 1)) - 1 if self.kind == "int" else (1 << self.bits) - 1

    def __getitem__(self, dims: Any) -> ArraySpec:
        from .arrays import array_spec

        return array_spec(self, dims)

    def __or__(self, other: Any) -> Any:
        raise SignatureError(
            "a scalar cannot be left out of a call", f"annotate it with mc.{self} alone", user_span()
        )

    __ror__ = __or__

    def __call__(self, value: Any) -> Any:
        from . import ops

        return ops.as_dtype(value, self)

    def __repr__(self) -> str:
        return self.name


def _dtype(name: str, bits: int, kind: Kind, mlir: str, numpy: Any) -> DType:
    return DType(name, bits, kind, mlir, np.dtype(numpy))


f64 = _dtype("f64", 64, "float", "f64", np.float64)
f32 = _dtype("f32", 32, "float", "f32", np.float32)
f16 = _dtype("f16", 16, "float", "f16", np.float16)
bf16 = _dtype("bf16", 16, "float", "bf16", ml_dtypes.bfloat16)
f8e4m3 = _dtype("f8e4m3", 8, "float", "f8E4M3FN", ml_dtypes.float8_e4m3fn)
f8e5m2 = _dtype("f8e5m2", 8, "float", "f8E5M2", ml_dtypes.float8_e5m2)
i64 = _dtype("i64", 64, "int", "i64", np.int64)
i32 = _dtype("i32", 32, "int", "i32", np.int32)
i16 = _dtype("i16", 16, "int", "i16", np.int16)
i8 = _dtype("i8", 8, "int", "i8", np.int8)
i4 = _dtype("i4", 4, "int", "i4", ml_dtypes.int4)
u8 = _dtype("u8", 8, "uint", "i8", np.uint8)
# Philox works on unsigned words; u32 is what random bits come as.
u32 = _dtype("u32", 32, "uint", "i32", np.uint32)
bool_ = _dtype("bool", 1, "bool", "i1", np.bool_)

DTYPES = {d.name: d for d in (f64, f32, f16, bf16, f8e4m3, f8e5m2, i64, i32, i16, i8, i4, u8, u32, bool_)}


@dataclass(frozen=True)
class DTypeVar:
    """An element type that is chosen when the kernel is compiled: `T = mc.DTypeVar("T", mc.bf16, mc.f16)`.

    The first choice is the default; `--set T=f16` or the arguments' own types choose another.
    """

    name: str
    choices: tuple[DType, ...]

    def __init__(self, name: str, *choices: DType):
        if not isinstance(name, str):
            raise SignatureError(
                f"a type variable has a name, not {name!r}", 'mc.DTypeVar("T", mc.bf16, mc.f16)', user_span()
            )
        if not choices:
            raise SignatureError(
                f"the type variable '{name}' has no choices",
                f'mc.DTypeVar("{name}", mc.bf16, mc.f16)',
                user_span(),
            )
        for choice in choices:
            if not isinstance(choice, DType):
                raise SignatureError(
                    f"a type variable chooses between element types, and {choice!r} is none",
                    f'mc.DTypeVar("{name}", mc.bf16, mc.f16)',
                    user_span(),
                )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "choices", choices)

    def __getitem__(self, dims: Any) -> ArraySpec:
        from .arrays import array_spec

        return array_spec(self, dims)

    def __repr__(self) -> str:
        return self.name
