"""Rotary position embedding of queries or keys."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)


def reference(x, cos, sin, positions=None, *, interleaved=False) -> np.ndarray:
    """The definition, in float64."""
    x, cos, sin = (array.astype(np.float64) for array in (x, cos, sin))
    S, R = len(x), cos.shape[1]
    rows = np.arange(S) if positions is None else positions
    known = (rows >= 0) & (rows < len(cos))
    turn = np.ones((S, 1, R), np.complex128)
    turn[known, 0] = (cos + 1j * sin)[rows[known]]
    first, second = (
        (slice(0, 2 * R, 2), slice(1, 2 * R, 2)) if interleaved else (slice(0, R), slice(R, 2 * R))
    )
    out = x.copy()
    out[..., first] = x[..., first] * turn.real - x[..., second] * turn.imag
    out[..., second] = x[..., first] * turn.imag + x[..., second] * turn.real
    return out


@mc.kernel(
    grid=lambda S, H, BS, BH: (mc.cdiv(S, BS), mc.cdiv(H, BH)),
    tune=dict(
        gpu=[
            dict(BS=1, BH=8, num_warps=4, when=lambda S: S <= 512),
            dict(BS=1, BH=32, num_warps=8, when=lambda H: H > 16),
            dict(BS=4, BH=8, num_warps=4),
            dict(BS=8, BH=8, num_warps=8),
            dict(BS=1, BH=8, num_warps=2),
            dict(BS=1, BH=16, num_warps=2),
            dict(BS=1, BH=16, num_warps=4),
            dict(BS=1, BH=32, num_warps=4),
            dict(BS=2, BH=8, num_warps=4),
            dict(BS=2, BH=16, num_warps=4),
        ],
        cpu=[
            dict(BS=4, BH=8),
            dict(BS=1, BH=8),
        ],
    ),
    reference=reference,
)
def rope(
    x: T["S", "H", "D"],
    cos: mc.f32["P", "R"],
    sin: mc.f32["P", "R"],
    out: mc.Out[T["S", "H", "D"]],
    positions: mc.i32["S"] | None = None,
    *,
    interleaved: mc.Const = False,
    BS: mc.Const = 4,
    BH: mc.Const = 8,
    D: mc.Const = 128,
    R: mc.Const = 64,
):
    """Each pair of elements of a head, turned by its angle: (a cos - b sin, a sin + b cos).

    x, out: S tokens of H heads of D elements of type T, as serving engines keep them; a batch of sequences is
    one list of tokens. cos, sin: f32, a row of R angles for each of P positions. Pair r is elements r and
    R + r of a head (GPT-NeoX, Llama) or, if `interleaved`, 2r and 2r + 1 (GPT-J). The elements from 2R on,
    which partial rotation leaves as they are, are copied.
    positions: S row numbers of the tables, i32; without them, token s is at position s. Angles that the tables
    do not have are 0.
    BS, BH: tokens and heads of a program. D, R: sizes that the arrays give in a call.

    Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """
    assert 0 < 2 * R <= D, f"{R} angles turn {2 * R} elements, but a head has {D}"
    s, h = mc.program_id(0), mc.program_id(1)
    rows = s * BS + mc.iota(BS)
    if positions is not None:
        rows = mc.gather(positions, rows, pad=-1)
    if interleaved:
        BD = 1 << (D - 1).bit_length()  # tiles are powers of two; what is beyond D is not stored
        heads = mc.load(x, (s, h, 0), (BS, BH, BD))
        first, second = mc.split(heads.reshape(BS, BH, BD // 2, 2), 2, axis=3)
        turned = turn(first, second, *(t[:, None, :, None] for t in angles(cos, sin, rows, 0, BD // 2)))
        result = mc.cat(turned, axis=3).reshape(BS, BH, BD)
        mc.store(out, (s, h, 0), mc.where(mc.iota(BD) < 2 * R, result, heads))
    else:
        BR, BC = power_of_two_in(R), power_of_two_in(D - 2 * R)
        for r in range(R // BR):  # once, for the usual sizes
            first, second = mc.load(x, (s, h, r), (BS, BH, BR)), mc.load(x, (s, h, R // BR + r), (BS, BH, BR))
            turned = turn(first, second, *(t[:, None, :] for t in angles(cos, sin, rows, r, BR)))
            mc.store(out, (s, h, r), turned[0])
            mc.store(out, (s, h, R // BR + r), turned[1])
        for c in range((D - 2 * R) // BC):
            place = (s * BS, h * BH, 2 * R + c * BC)
            mc.store(out, mc.load(x, offset=place, shape=(BS, BH, BC)), offset=place)


def power_of_two_in(n):
    """The largest power of two that divides n: the widest tiles that fill n elements exactly."""
    return n & -n or 1


def angles(cos, sin, rows, r, BR):
    """Block r of these rows of the tables; cos 1 and sin 0 outside of them."""
    at = (rows[:, None], (r * BR + mc.iota(BR))[None, :])
    return mc.gather(cos, at, pad=1), mc.gather(sin, at)


def turn(first, second, cos, sin):
    """Pairs turned by their angles, in f32 and rounded once."""
    a, b = first.to(mc.f32), second.to(mc.f32)
    return (a * cos - b * sin).to(first.dtype), (a * sin + b * cos).to(first.dtype)
