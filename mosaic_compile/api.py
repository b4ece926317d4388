# ruff: noqa: F401  (imported for others)
"""The public names, as `mosaic_compile` has them: importing this imports the compiler."""

from .artifact import Artifact
from .driver import compile
from .errors import MosaicError
from .language.arrays import ArraySpec, Const, In, InOut, Out
from .language.dtypes import (
    DType,
    DTypeVar,
    bf16,
    bool_,
    f8e4m3,
    f8e5m2,
    f16,
    f32,
    f64,
    i4,
    i8,
    i16,
    i32,
    i64,
    u8,
    u32,
)
from .language.kernel import Kernel, kernel
from .language.loops import range_ as range
from .language.loops import static_range
from .language.numbers import cdiv, maximum, minimum
from .language.ops import (
    abs,
    all,
    any,
    argmax,
    argmin,
    atomic_add,
    bitcast,
    broadcast_to,
    cat,
    ceil,
    clamp,
    convert,
    cos,
    cumprod,
    cumsum,
    device_print,
    dot,
    dot4,
    erf,
    exp,
    exp2,
    expand_dims,
    floor,
    fma,
    full,
    gather,
    iota,
    load,
    log,
    log2,
    max,
    mean,
    min,
    num_programs,
    ones,
    permute,
    philox,
    prod,
    program_id,
    random_bits,
    random_normal,
    random_uniform,
    reduce,
    reshape,
    rsqrt,
    scan,
    scatter,
    scatter_add,
    sigmoid,
    sin,
    split,
    sqrt,
    store,
    sum,
    tanh,
    transpose,
    where,
    zeros,
)
from .runtime.threads import get_num_threads, set_num_threads

# The names that PyTorch and NumPy users type first.
float64, float32, float16, bfloat16 = f64, f32, f16, bf16
int64, int32, int16, int8, uint8 = i64, i32, i16, i8, u8
float8_e4m3fn, float8_e5m2 = f8e4m3, f8e5m2
