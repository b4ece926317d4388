"""Counter-based random numbers: Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
2011).

The same words as Triton's tl.randint4x and, for the same key and counter, XLA's Philox behind JAX's "rbg"
keys.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.errors import ElementTypeError, OperandError
from mosaic_compile.mlir import arith

from ..dtypes import f32, i32, i64, u32
from ..op import broadcast, broadcast_shapes, constant, is_number, op, require_constant, require_tile
from ..tile import Tile
from .convert import bitcast, convert
from .elementwise import (
    add,
    bitwise_xor,
    cos,
    less,
    log,
    maximum,
    multiply,
    shift_right,
    sqrt,
    subtract,
    where,
)

ROUNDS = 10
_ROUND_A, _ROUND_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85


def philox_reference(counter: Any, key: Any, rounds: int = ROUNDS) -> Any:
    """The four output words, uint32, for a counter of four and a key of two uint32 words (arrays
    broadcast)."""
    c = [np.asarray(w, np.uint32) for w in counter]
    k = [np.asarray(w, np.uint32) for w in key]
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        a, b = np.uint64(_ROUND_A) * c[0].astype(np.uint64), np.uint64(_ROUND_B) * c[2].astype(np.uint64)
        high_a, low_a = (a >> np.uint64(32)).astype(np.uint32), (a & mask).astype(np.uint32)
        high_b, low_b = (b >> np.uint64(32)).astype(np.uint32), (b & mask).astype(np.uint32)
        c = [high_b ^ c[1] ^ k[0], low_b, high_a ^ c[3] ^ k[1], low_a]
        with np.errstate(over="ignore"):
            k = [k[0] + np.uint32(_KEY_A), k[1] + np.uint32(_KEY_B)]
    return tuple(c)


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int | np.integer):
        raise OperandError(f"{what} is a whole number, not {value}", "round it first: int(…)")
    return int(value)


def _word(value: Any, what: str) -> Tile:
    if is_number(value):
        return constant(_whole(value, what) & 0xFFFFFFFF, u32)
    tile = require_tile(value, what)
    if tile.dtype not in (u32, i32):
        raise ElementTypeError(f"{what} is made of 32-bit words, not {tile!r}", "convert it: .to(mc.u32)")
    return bitcast(tile, u32)


@op(reference=philox_reference)
def philox(counter: Any, key: Any, *, rounds: int = ROUNDS) -> tuple[Tile, Tile, Tile, Tile]:
    """Four u32 tiles of random bits for a counter of four and a key of two 32-bit words (u32 or i32 tiles, or
    numbers)."""
    if (
        len(require_constant(counter, (tuple, list), "mc.philox's counter")) != 4
        or len(require_constant(key, (tuple, list), "mc.philox's key")) != 2
    ):
        raise OperandError(
            "mc.philox takes a counter of four words and a key of two",
            "mc.philox((offset, 0, 0, 0), (seed, 0))",
        )
    words = [_word(w, "mc.philox's counter") for w in counter]
    k0, k1 = (_word(w, "mc.philox's key") for w in key)
    shape = broadcast_shapes("mc.philox", *(w.shape for w in words), k0.shape, k1.shape)
    c0, c1, c2, c3 = (broadcast(w, shape) for w in words)
    for _ in range(require_constant(rounds, int, "mc.philox's rounds")):
        low_a, high_a = _full_product(_ROUND_A, c0)
        low_b, high_b = _full_product(_ROUND_B, c2)
        c0, c1, c2, c3 = (
            bitwise_xor(bitwise_xor(high_b, c1), k0),
            low_b,
            bitwise_xor(bitwise_xor(high_a, c3), k1),
            low_a,
        )
        k0, k1 = add(k0, _KEY_A), add(k1, _KEY_B)
    return c0, c1, c2, c3


def _full_product(factor: int, x: Tile) -> tuple[Tile, Tile]:
    """The low and the high word of a 64-bit product."""
    low, high = arith.mului_extended(constant(factor, u32, x.shape).value, x.value)
    return Tile(low, u32, x.shape), Tile(high, u32, x.shape)


def _seed_words(seed: Any) -> tuple[Any, Any]:
    """A 64-bit seed (a number, or an i32 or i64 scalar) as two words."""
    if is_number(seed):
        number = _whole(seed, "the seed")
        return number & 0xFFFFFFFF, (number >> 32) & 0xFFFFFFFF
    seed = require_tile(seed, "the seed")
    if seed.dtype is i64:
        return convert(seed, u32), convert(shift_right(seed, 32), u32)
    return _word(seed, "the seed"), 0


def _random_bits_reference(seed: int, offset: Any) -> Any:
    return philox_reference((offset, 0, 0, 0), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))[0]


@op(reference=_random_bits_reference)
def random_bits(seed: Any, offset: Any) -> Tile:
    """A u32 of random bits for each element of `offset` (i32 or u32): the words of Triton's tl.randint."""
    return philox((offset, 0, 0, 0), _seed_words(seed))[0]


def _unit_interval_reference(bits: Any) -> Any:
    signed = np.asarray(bits).view(np.int32)
    return np.where(signed < 0, ~signed, signed).astype(np.float32) * np.float32(4.6566127342e-10)


def _unit_interval(bits: Tile) -> Tile:
    """Uniform f32 in [0, 1) from u32 bits, the way Triton's tl.rand makes them: 31 bits, scaled by just under
    2^-31."""
    signed = bitcast(bits, i32)
    magnitude = where(less(signed, 0), subtract(-1, signed), signed)
    return multiply(convert(magnitude, f32), 4.6566127342e-10)


@op(reference=lambda seed, offset: _unit_interval_reference(_random_bits_reference(seed, offset)))
def random_uniform(seed: Any, offset: Any) -> Tile:
    """Uniform f32 in [0, 1), one for each element of `offset`; equal to Triton's tl.rand."""
    return _unit_interval(random_bits(seed, offset))


@op()
def random_normal(seed: Any, offset: Any) -> Tile:
    """Standard normal f32, one for each element of `offset`, by Box and Muller's transform; equal to Triton's
    tl.randn."""
    first, second, _, _ = philox((offset, 0, 0, 0), _seed_words(seed))
    u1, u2 = maximum(_unit_interval(first), 1.0e-7), _unit_interval(second)
    return multiply(sqrt(multiply(-2.0, log(u1))), cos(multiply(6.283185307179586, u2)))


__all__ = ["philox", "random_bits", "random_normal", "random_uniform"]
