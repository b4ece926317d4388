"""What compiled code may call: functions of libm and C's for blocks of memory, which every machine has."""

_LIBM = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp",
    "exp2", "exp10", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "ldexp", "log", "log10", "log1p", "log2",
    "nearbyint", "pow", "rint", "round", "roundeven", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip

FUNCTIONS = frozenset({*_LIBM, *(f"{name}f" for name in _LIBM), "memcpy", "memmove", "memset"})
