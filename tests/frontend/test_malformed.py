"""Malformed kernels of many kinds: each gives a message for the user, never a fault of the compiler."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.errors import InternalError, MosaicError

from .cases import trace_text

# What may stand where a value is expected: tiles, scalars, arrays, numbers, and what is none of them.
VALUES = [
    "x",
    "h",
    "m",
    "i",
    "n",
    "s",
    "p",
    "v",
    "a",
    "w",
    "o",
    "B",
    "0",
    "1",
    "-1",
    "2.5",
    "1e99",
    "True",
    "None",
    "'text'",
    "()",
    "(1,",
    "2)",
    "[x,",
    "x]",
    "(x,",
    "h)",
    "{}",
    "x.shape",
    "v.shape",
    "a[0]",
    "a.T",
    "x.T",
    "m.T",
    "mc",
    "mc.f32",
    "mc.bf16",
    "mc.load",
    "np",
    "np.ones(3)",
    "np.float32(1)",
    "float('nan')",
    "len",
    "range(3)",
    "range(n)",
    "slice(None)",
    "(lambda:1)",
    "(lambda*z:z[0])",
    "kernel",
    "x>0",
    "n>0",
    "2**70",
    "...",
    "b''",
    "1j",
    "x[:,None]",
    "m[None]",
    "x.sum",
    "x.dtype",
]
VALUES = [value.replace("z:z", "z: z") for value in VALUES]
NAMES = [
    name
    for name in mc.__dict__
    if callable(getattr(mc, name)) and not name.startswith("_") and name not in ("kernel", "MosaicError")
]
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


def check(text: str) -> None:
    """Either the kernel is right, or its message is for the user."""
    try:
        trace_text(text)
    except InternalError as error:
        pytest.fail(f"{text}\n{error}")
    except MosaicError as error:
        assert error.frames, f"{text}\n{error}"
        assert "object at 0x" not in str(error), f"{text}\n{error}"
    except Exception as error:
        pytest.fail(f"{text}\n{type(error).__name__}: {error}")


def check_all(texts: list[str]) -> None:
    """Each line by itself; lines that are right go into one kernel together would hide the others' mistakes."""
    for text in texts:
        check(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_with_every_value(name):
    check_all([f"y = mc.{name}({value})" for value in VALUES])


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_with_values(operator):
    some = [v for v in VALUES if v not in ("2**70",)][:: 2 if operator not in ("+", "==") else 1]
    check_all(
        [
            f"y = ({left}) {operator} ({right})"
            for left, right in itertools.product(["x", "n", "v", "B"], some)
        ]
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method):
    calls = [f"y = {base}.{method}" for base in ("x", "s", "v", "m", "B", "mc.f32", "kernel")]
    calls += [f"y = {base}.{method}({value})" for base in ("x", "a") for value in VALUES]
    check_all(calls)


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


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_place_with_every_value(statement):
    check_all([statement.format(value) for value in VALUES])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
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
