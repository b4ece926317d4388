"""Mathematical functions of f32 and f64 as straight arithmetic: no branches, tables or calls, so that loops over them are
vectors.

Ranges are reduced as W. J. Cody and W. Waite do ("Software Manual for the Elementary Functions", 1980): whole numbers times a
constant of two parts, the first with so few bits that the product is exact. What the reduced argument adds is a polynomial
(polynomials.py) whose leading term is exact and added last: J.-M. Muller, "Elementary Functions", 3rd edition, 2016.
Infinities, NaN, zeros' signs and numbers below the smallest normal one come out as IEEE 754-2019, 9.2, has them.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

from mosaic_compile.mlir import ir

from . import polynomials
from .elements import element_of
from .narrow_floats import Format
from .numbers import Number, copy_sign, multiply_add, polynomial, scaled, square_root, where

# ln 2 and its inverse to 40 digits.
LN2 = Fraction("0.6931471805599453094172321214581765680755")
HALF_PI = Fraction("1.5707963267948966192313216916397514420986")
LOG2_E = Fraction("1.4426950408889634073599246810018921374266")
INFINITY, NAN = float("inf"), float("nan")


def exp2(x: Number) -> Number:
    """2^x = 2^n e^(r ln 2), with n the whole number next to x."""
    form = x.format
    x = _limited(x, -(form.bias + form.mantissa + 2), form.bias + 2)
    whole, n = _nearest_integer(x)
    part = x - whole
    if x.fused:
        powers = [float(LN2**k) * c for k, c in enumerate((1, 1, *polynomials.EXP[form.width]))]
        return _scaled(polynomial(part, powers), whole, n)
    high, low = _in_parts(LN2, form)
    r, lost = part * high, part * low
    return _scaled(_exp_minus_one(r, lost) + 1, whole, n)


def exp(x: Number) -> Number:
    """e^x = 2^n e^r, with n the whole number next to x / ln 2."""
    form = x.format
    x = _limited(x, -(form.bias + form.mantissa + 2) * float(LN2), (form.bias + 2) * float(LN2))
    if x.fused:  # each step of Horner's rule rounds once: what r has rounded away is too little to matter
        whole, n = _nearest_integer(x, float(LOG2_E))
        high, low = _ln2_in_parts(form)
        r = multiply_add(whole, -low, multiply_add(whole, -high, x))
        return _scaled(polynomial(r, (1, 1, *polynomials.EXP[form.width])), whole, n)
    whole, n, r, lost = _reduced(x)
    return _scaled(_exp_minus_one(r, lost) + 1, whole, n)


def _exp_of_sum(high: Number, low: Number) -> Number:
    """e^(high + low), more closely than exp: high is between the limits there, low within its rounding error."""
    whole, n, r, lost = _reduced(high)
    return _scaled(_sum(r.constant(1), r, multiply_add(r * r, _exp_quotient(r), lost + low)), whole, n)


def _exp_minus_one(r: Number, low: Number) -> Number:
    """e^(r + low) - 1, where low is within the rounding error of r."""
    return multiply_add(r * r, _exp_quotient(r), low) + r


def _exp_quotient(r: Number) -> Number:
    """(e^r - 1 - r) / r^2"""
    return polynomial(r, polynomials.EXP[r.format.width])


def expm1(x: Number) -> Number:
    """e^x - 1 = (2^n - 1) + 2^n (e^r - 1); at half its size, since 2^n itself may be too large."""
    form = x.format
    _, n, r, lost = _reduced(_limited(x, -(form.mantissa + 3) * float(LN2), (form.bias + 1.25) * float(LN2)))
    half = _power_of_two(n - 1, x)
    first = half - 0.5
    rest = multiply_add(half, multiply_add(r * r, _exp_quotient(r), lost), (half - first) - 0.5)
    result = 2 * _sum(first, half * r, rest)
    return where(abs(x) < 2.0 ** -(form.mantissa + 2), x, result)


def _reduced(x: Number) -> tuple[Number, Number, Number, Number]:
    """n as a float and as an integer, x - n ln 2, and what that has rounded away."""
    whole, n = _nearest_integer(x, float(LOG2_E))
    high, low = _ln2_in_parts(x.format)
    exact = multiply_add(whole, -high, x)
    r = multiply_add(whole, -low, exact)
    return whole, n, r, multiply_add(whole, -low, exact - r)


def _ln2_in_parts(form: Format) -> tuple[float, float]:
    """ln 2 as two numbers, of which the first times an exponent is exact."""
    return _in_parts(LN2, form, form.width - form.mantissa)


def _in_parts(x: Fraction, form: Format, spare: int = 0) -> tuple[float, float]:
    """A constant between 1/4 and 1 as two numbers, of which the first has some bits to spare."""
    bits = form.mantissa + 1 - spare
    high = Fraction(int(x * 2**bits), 2**bits)
    return float(high), float(x - high)


def _limited(x: Number, low: float, high: float) -> Number:
    """NaN stays."""
    x = where(x < low, low, x)
    return where(x > high, high, x)


def _nearest_integer(x: Number, factor: float = 1.0) -> tuple[Number, Number]:
    """The whole number next to factor * x, as a float and as an integer; it is below 2^(mantissa - 2).

    Adding 1.5 * 2^mantissa leaves no fraction: the sum's low bits are the number.
    """
    large = x.constant(1.5 * 2.0**x.format.mantissa)
    total = x + large if factor == 1.0 else multiply_add(x, factor, large)
    return total - large, total.bits - large.bits


def _as_float(n: Number, like: Number) -> Number:
    """The reverse of _nearest_integer."""
    large = like.constant(1.5 * 2.0**like.format.mantissa)
    return (n + large.bits).as_float(like.value.type) - large


def _power_of_two(n: Number, like: Number) -> Number:
    """2^n, for n between the exponents of numbers; one above is infinity."""
    form = like.format
    return ((n + form.bias) << form.mantissa).as_float(like.value.type)


def _scaled(x: Number, whole: Number, n: Number) -> Number:
    """x 2^n, by an instruction or in two steps, of which only the last may round; `whole` is n as a float."""
    if x.is_avx512:
        return scaled(x, whole)
    half = n >> 1
    return x * _power_of_two(half, x) * _power_of_two(n - half, x)


def log(x: Number) -> Number:
    """ln x = e ln 2 + ln(1 + f), with 1 + f between sqrt(1/2) and sqrt(2)."""
    exponent, f = _exponent_and_fraction(x)
    high, low = _ln2_in_parts(x.format)
    rest = multiply_add(exponent, low, f * f * polynomial(f, polynomials.LOG[x.format.width]))
    return _logarithm_of_special(x, _sum(exponent * high, f, rest))


def log2(x: Number) -> Number:
    """log2 x = e + f + (f (log2(e) - 1) + ...), of which the first two are exact."""
    exponent, f = _exponent_and_fraction(x)
    high, low = _in_parts(LOG2_E - 1, x.format)
    curved = f * f * polynomial(f, [c * float(LOG2_E) for c in polynomials.LOG[x.format.width]])
    rest = multiply_add(f, high, multiply_add(f, low, curved))
    return _logarithm_of_special(x, _sum(exponent, f, rest))


def log1p(x: Number) -> Number:
    """ln(1 + x), where what 1 + x rounds away is added to first order."""
    form = x.format
    u = x + 1
    part = u - 1
    lost = (1 - (u - part)) + (x - part)  # D. E. Knuth, "The Art of Computer Programming", 4.2.2
    exponent, f = _exponent_and_fraction(u)
    near = exponent.is_equal(0)
    f = where(near, x, f)
    high, low = _ln2_in_parts(form)
    rest = multiply_add(exponent, low, f * f * polynomial(f, polynomials.LOG[form.width]))
    rest = where(near, rest, rest + lost / u)
    result = _logarithm_of_special(u, _sum(exponent * high, f, rest))
    return where(abs(x) < 2.0 ** -(form.mantissa + 2), x, result)


def _exponent_and_fraction(x: Number) -> tuple[Number, Number]:
    """e and f with x = 2^e (1 + f), e as a float; x > 0 is finite."""
    form = x.format
    up = form.mantissa + 1
    is_small = x < 2.0 ** (1 - form.bias)
    bits = where(is_small, x * 2.0**up, x).bits
    smallest = x.constant(2.0**-0.5).bits
    exponent = (bits - smallest) >> form.mantissa
    f = (bits - (exponent << form.mantissa)).as_float(x.value.type) - 1
    return _as_float(where(is_small, exponent - up, exponent), x), f


def _sum(a: Number, b: Number, rest: Number) -> Number:
    """a + b + rest, where a is 0 or larger than b, rounded once but for what is lost of rest.

    T. J. Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik, 1971.
    """
    total = a + b
    return total + (((a - total) + b) + rest)


def _logarithm_of_special(x: Number, result: Number) -> Number:
    result = where(x < INFINITY, result, x)  # infinity and NaN
    return where(x > 0, result, where(x.is_equal(0), -INFINITY, where(x < 0, NAN, x)))


def tanh(x: Number) -> Number:
    """An odd polynomial up to 1, 1 - 2 / (e^2x + 1) beyond."""
    magnitude, square = abs(x), x * x
    small = multiply_add(magnitude * square, polynomial(square, polynomials.TANH[x.format.width]), magnitude)
    large = 1 - 2 / (exp(magnitude + magnitude) + 1)
    return copy_sign(where(magnitude < 1, small, large), x)


ERF_SWITCH = 0.875


def erf(x: Number) -> Number:
    """An odd polynomial up to 0.875; 1 - e^g with g = x p(x) beyond, where what g has rounded away counts."""
    width = x.format.width
    magnitude, square = abs(x), x * x
    small = multiply_add(magnitude, polynomial(square, polynomials.ERF_SMALL[width]), magnitude)
    last = {32: 4.0, 64: 6.0}[width]  # from here on 1 is nearest
    t = where(magnitude > last, last, magnitude)
    first, *others = polynomials.ERF_LARGE[width]
    added = t * polynomial(t, others)
    factor = first + added
    g = t * factor
    lost = t * ((first - factor) + added)
    if x.fused:
        lost = lost + multiply_add(t, factor, -g)
    large = 1 - _exp_of_sum(g, lost)
    return copy_sign(where(magnitude < ERF_SWITCH, small, large), x)


def rsqrt(x: Number) -> Number:
    """1 / sqrt(x), corrected by what both operations rounded away, to first order.

    Without fused operations f32 goes through f64, and f64 has two roundings.
    """
    form = x.format
    if not x.fused:
        return (1 / square_root(x.to(ir.F64Type.get()))).to(element_of(x.value.type))
    up = 2 * (form.bias // 4)
    is_small = x < 2.0**-up  # where what is left of x would be lost
    x = where(is_small, x * 2.0**up, x)
    root = square_root(x)
    first = 1 / root
    of_root, of_quotient = multiply_add(-root, root, x), multiply_add(-root, first, 1)
    better = multiply_add(first, of_quotient - 0.5 * of_root * first * first, first)
    result = where(better.is_equal(better), better, first)  # zeros and infinity
    return where(is_small, result * 2.0 ** (up // 2), result)


def sqrt_by_products(x: Number) -> Number:
    """sqrt(x) of f32 where no instruction has it."""
    wide = x.to(ir.F64Type.get())
    root = (wide * _inverse_root(wide)).to(element_of(x.value.type))
    return where((x > 0) & (x < INFINITY), root, where(x < 0, NAN, x))  # zeros, infinity and NaN stay


def rsqrt_by_products(x: Number) -> Number:
    """1 / sqrt(x) of f32 where no instruction has the root."""
    inverse = _inverse_root(x.to(ir.F64Type.get())).to(element_of(x.value.type))
    special = where(x.is_equal(0), copy_sign(x.constant(INFINITY), x), where(x > 0, 0.0, x.constant(NAN)))
    return where((x > 0) & (x < INFINITY), inverse, special)


def _inverse_root(x: Number) -> Number:
    """1 / sqrt(x) of an f64 that f32 holds: half the exponent as a start, then Newton's iteration, to 2^-51.

    The start is within 3.5 % (C. Lomont, "Fast inverse square root", 2003); each step squares that.
    """
    y = (0x5FE6EB50C7B537A9 - (x.bits >> 1)).as_float(x.value.type)
    for _ in range(4):
        y = y * (1.5 - 0.5 * x * y * y)
    return y


def fma(a: Number, b: Number, c: Number) -> Number:
    """a * b + c rounded once, of f32 and narrower, by f64: the product is exact, the sum is rounded to odd.

    Then the last rounding is right (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Transactions on Computers, 2008).
    """
    f64 = ir.F64Type.get()
    product, c64 = a.to(f64) * b.to(f64), c.to(f64)
    total = product + c64
    part = total - product
    lost = (product - (total - part)) + (c64 - part)  # D. E. Knuth, "The Art of Computer Programming", 4.2.2
    bits = total.bits
    outward = ((bits ^ lost.bits) >> 63) | 1
    is_rounded_to_even = (abs(lost) > 0) & (bits & 1).is_equal(0)
    odd = where(is_rounded_to_even, bits + outward, bits).as_float(total.value.type)
    return odd.to(element_of(a.value.type))


def roundeven(x: Number) -> Number:
    """The nearest whole number: adding 2^mantissa leaves no fraction."""
    large = 2.0**x.format.mantissa
    magnitude = abs(x)
    return copy_sign(where(magnitude < large, (magnitude + large) - large, magnitude), x)


def trunc(x: Number) -> Number:
    magnitude = abs(x)
    nearest = roundeven(magnitude)
    return copy_sign(where(nearest > magnitude, nearest - 1, nearest), x)


def floor(x: Number) -> Number:
    nearest = roundeven(x)
    return copy_sign(where(nearest > x, nearest - 1, nearest), x)


def ceil(x: Number) -> Number:
    nearest = roundeven(x)
    return copy_sign(where(nearest < x, nearest + 1, nearest), x)


def sin(x: Number) -> Number:
    """Of f32: sin or cos of what the quarter turns in x leave."""
    return _of_turned(x, 0)


def cos(x: Number) -> Number:
    return _of_turned(x, 1)


def _of_turned(x: Number, turns: int) -> Number:
    """The sine of x and some quarter turns."""
    quarters, high, low = _reduced_angle(abs(x))
    square = high * high
    sine = multiply_add(high * square, polynomial(square, polynomials.SIN[32]), low) + high
    half = 0.5 * square
    near_one = 1 - half
    rest = multiply_add(square * square, polynomial(square, polynomials.COS[32]), -(high * low))
    cosine = near_one + (((1 - near_one) - half) + rest)
    quarters = quarters + turns
    result = where((quarters & 1).is_equal(0), sine, cosine)
    negative = (quarters & 2) << 30
    if turns == 0:
        negative = negative ^ (x.bits & 1 << 31)
    result = (result.bits ^ negative).as_float(x.value.type)
    return where(abs(x) < INFINITY, result, NAN)


# 2 / pi: 32 zeros, then the first 224 bits of its fraction.
TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)


def _reduced_angle(x: Number) -> tuple[Number, Number, Number]:
    """x >= 0 as quarter turns (modulo 4) and the rest, in two parts: exact to 2^-60 for every finite f32.

    x = m 2^s, and m times those bits of 2 / pi that stand for less than four turns and more than 2^-94 is an integer product
    (M. H. Payne and R. N. Hanek, "Radian reduction for trigonometric functions", SIGNUM Newsletter, 1983).
    """
    form = x.format
    place = (x.bits >> form.mantissa) - (form.bias + form.mantissa - 30)
    word, shift = place >> 5, place & 31
    masks = [word.is_equal(k) for k in range(1, len(TWO_OVER_PI) - 3)]
    words = []
    for j in range(4):
        chosen = word.constant(TWO_OVER_PI[j])
        for k, mask in enumerate(masks, start=1):
            chosen = where(mask, TWO_OVER_PI[j + k], chosen)
        words.append(chosen)
    window = [
        ((a << shift) | b.shifted_down(1).shifted_down(31 - shift)).resized(64)
        for a, b in itertools.pairwise(words)
    ]
    m = ((x.bits & (1 << form.mantissa) - 1) | 1 << form.mantissa).resized(64)
    product = (
        ((m * window[0]) << 32) + m * window[1] + (m * window[2]).shifted_down(32)
    )  # 2^62 is a quarter turn
    quarters = (product + (1 << 61)).shifted_down(62)
    rest = product - (quarters << 62)
    f64 = ir.F64Type.get()
    upper = rest.shifted_down(32).resized(32).converted(f64)
    large = upper.constant(2.0**52)
    lower = ((rest & 0xFFFFFFFF) | large.bits).as_float(large.value.type) - large
    angle = (upper * 2.0**32 + lower) * (float(HALF_PI) * 2.0**-62)
    high = angle.to(ir.F32Type.get())
    low = (angle - high.to(f64)).to(ir.F32Type.get())
    is_small = x < 0.5
    return where(is_small, 0, quarters.resized(32)), where(is_small, x, high), where(is_small, 0.0, low)
