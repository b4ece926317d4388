"""Malformed kernels of many kinds: each gives a message for the user, never a fault of the compiler."""

from __future__ import annotations

import itertools
import os
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosaic_compile import api
from mosaic_compile.errors import InternalError, MosaicError

from .cases import trace_text

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # Python finds some of them odd too

# What may stand where a value is expected: tiles, scalars, arrays, numbers, and what is none of them.
VALUES = (
    """
x; h; m; i; n; s; p; v; a; w; o; B; 0; 1; -1; 2.5; 1e99; 2**70; True; None; 'text'; b''; 1j; ...; (); (1, 2); (x, h)
[x, x]; {}; {'a': x}; x.shape; v.shape; x.sum; x.dtype; x > 0; n > 0; x[:, None]; m[None]; x.T; m.T; a[0]; a.T; mc
mc.f32; mc.bf16; mc.load; np; np.ones(3); np.float32(1); np.exp; float('nan'); len; range(3); range(n); slice(None)
lambda: 1; lambda *z: z[0]; kernel
""".strip()
    .replace("\n", "; ")
    .split("; ")
)
OTHER_NAMES = ("kernel", "MosaicError", "Kernel", "ArraySpec", "DType")
NAMES = [n for n, f in vars(api).items() if callable(f) and not n.startswith("_") and n not in OTHER_NAMES]
OPERATORS = [
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "@",
    "&",
    "|",
    "^",
    "<<",
    ">>",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "and",
    "or",
    "in",
    "is",
]
METHODS = [
    "T",
    "to",
    "bitcast",
    "reshape",
    "permute",
    "broadcast_to",
    "sum",
    "max",
    "min",
    "mean",
    "shape",
    "ndim",
    "dtype",
    "value",
    "name",
    "point",
    "foo",
]
STATEMENTS = [
    "for k in {}: pass",
    "for k in range({}): x = x + 1.0",
    "for k in mc.static_range({}): pass",
    "while {}: x = x + 1.0",
    "if {}: x = x + 1.0",
    "if {}: x = h",
    "assert {}",
    "y, z = {}",
    "y, *z = {}",
    "y = [e for e in {}]",
    "y = x if {} else h",
    "y = f'{{{}}}'",
    "y = not ({})",
    "y = -({})",
    "y = ~({})",
    "y = ({})[0]",
    "y = ({})[n]",
    "y = ({})[:, None]",
    "y = ({})()",
    "y = ({})(x)",
    "y = x[{}]",
    "y = a[{}]",
    "y = (*({}),)",
    "y = mc.exp(**({}))",
    "mc.store(w, {}, x)",
    "mc.store(w, p, {})",
    "y = mc.load(v, {}, 16)",
    "y = mc.load(v, p, {})",
    "y = mc.load(v, p, 16, pad={})",
    "y = mc.load(v, shape=16, offset={})",
    "y = mc.gather(a, (i, {}))",
    "y = mc.zeros({}, mc.f32)",
    "y = mc.full(4, {}, mc.i8)",
    "y = mc.full(4, 1, {})",
    "y = m.sum({})",
    "y = mc.reduce(x, 0, {})",
    "y = mc.cat({})",
    "y = mc.split(x, {})",
    "y = mc.dot(m, m.T, {})",
    "y = mc.dot(m, m.T, dtype={})",
    "y = mc.where({}, x, 0.0)",
    "y = mc.philox({}, (1, 2))",
    "y = print({})",
    "y = int({})",
    "y = max({}, x)",
    "y = {{{}: 1}}",
    "x[{}] = 1.0",
    "x += {}",
    "return {}",
    "state = {}\nfor k in range(n): state = x",
    "state = x\nfor k in range(n): state = {}\nmc.store(w, p, state)",
    "state = {}\nif n > 0: state = x\nmc.store(w, p, state)",
    "def f(y): return {}\nz = f(x)",
    "f = lambda y={}: y\nz = f()",
]


def fault(text: str) -> str | None:
    """What is wrong with the message of a kernel; None where the kernel is right, or the message good."""
    try:
        trace_text(text)
    except SyntaxError:
        return None  # Python's own
    except InternalError as error:
        return f"{text}\n{error}"
    except MosaicError as error:
        return None if error.frames and "object at 0x" not in str(error) else f"{text}\n{error}"
    except Exception as error:
        return f"{text}\n{type(error).__name__}: {error}"
    return None


def check(*texts: str) -> None:
    faults = list(filter(None, map(fault, texts)))
    assert not faults, "\n\n".join(faults)


def some(texts: list[str]) -> list[str]:
    """A share of many texts, another one for each test; MALFORMED=all takes all, in minutes."""
    return texts if os.environ.get("MALFORMED") == "all" else texts[zlib.crc32(texts[0].encode()) % 24 :: 24]


@pytest.mark.parametrize("name", NAMES)
def test_every_operation(name):
    check(*some([f"y = mc.{name}({value})" for value in VALUES]))
    check(*some([f"y = mc.{name}(x, {value})" for value in VALUES]))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator(operator):
    pairs = itertools.product(["x", "n", "v", "B"], VALUES)
    check(*some([f"y = ({left}) {operator} ({right})" for left, right in pairs]))


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method):
    check(*(f"y = {base}.{method}" for base in ("x", "s", "v", "B", "mc.f32", "kernel")))
    check(*some([f"y = {base}.{method}({value})" for base in ("x", "a") for value in VALUES]))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_place(statement):
    check(*some([statement.format(value) for value in VALUES]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_operations_with_any_arguments(data):
    name = data.draw(st.sampled_from(NAMES))
    arguments = data.draw(st.lists(st.sampled_from(VALUES), max_size=4))
    keyword = data.draw(
        st.sampled_from(["", "axis", "keepdims", "pad", "offset", "mask", "dtype", "reverse", "foo"])
    )
    if keyword:
        arguments = [*arguments, f"{keyword}={data.draw(st.sampled_from(VALUES))}"]
    check(f"y = mc.{name}({', '.join(arguments)})")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_nests_of_statements(data):
    """Statements under loops and branches, with values that fit or not."""
    lines, depth = [], 0
    for _ in range(data.draw(st.integers(1, 6))):
        header = data.draw(
            st.sampled_from(
                ["for k in range(n):", "if n > 3:", "while n > 0:", "def f(x):", "for k in (1, 2):", ""]
            )
        )
        value = data.draw(st.sampled_from(VALUES))
        target = data.draw(st.sampled_from(["x", "h", "n", "y", "mc.store(w, p, x) or y"]))
        line = f"{target} = {value}" if "(" not in target else "mc.store(w, p, x)"
        if header:
            lines.append("    " * depth + header)
            depth += 1
        lines.append("    " * depth + line)
        depth -= data.draw(st.integers(0, depth))
    check("\n".join(lines))
