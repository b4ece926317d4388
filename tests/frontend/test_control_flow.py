"""Control flow as it appears in the IR: what loops carry, what branches give, what is decided at compile time."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from mosaic_compile.frontend import trace
from mosaic_compile.mlir import ir

from .cases import last_kernel, run, trace_text


def operations(op: ir.Operation) -> Iterator[ir.Operation]:
    """Every operation inside, in textual order."""
    for region in op.regions:
        for block in region:
            for inner in block.operations:
                yield inner.operation
                yield from operations(inner.operation)


def structure(text: str, **names) -> str:
    """The control flow of a kernel body: "for(f32[16]) if()" with the types of the results."""
    shown = []
    for op in operations(trace_text(text, **names).operation):
        if op.name in ("scf.for", "scf.while", "scf.if"):
            types = [str(r.type).replace("tensor<", "").replace(">", "") for r in op.results]
            shown.append(f"{op.name.removeprefix('scf.')}({', '.join(types)})")
    return " ".join(shown)


def count(text: str, name: str, **names) -> int:
    return sum(op.name == name for op in operations(trace_text(text, **names).operation))


T = "16xf32"  # the type of x

LOOPS = {
    "an accumulator": ("acc = x\nfor k in range(n):\n    acc = acc + x\nmc.store(w, p, acc)", f"for({T})"),
    "nothing is read later": ("acc = x\nfor k in range(n):\n    acc = x\n    mc.store(w, k, acc)", "for()"),
    "read by the next iteration only": (
        "acc = x\nfor k in range(n):\n    mc.store(w, k, acc)\n    acc = acc + 1.0",
        f"for({T})",
    ),
    "a number becomes a scalar": ("k = 0\nfor j in range(n):\n    k = k + j\nmc.store(w, k, x)", "for(i32)"),
    "a float becomes f32": ("f = 0.0\nfor j in range(n):\n    f = f + s\nmc.store(w, p, x * f)", "for(f32)"),
    "a truth value becomes i1": (
        "go = True\nfor j in range(n):\n    go = go and j < 3\nif go:\n    mc.store(w, p, x)",
        "for(i1) if()",
    ),
    "two variables in the order of their names": (
        "b = x\na2 = 0\nfor j in range(n):\n    b = b + 1.0\n    a2 = a2 + 1\nmc.store(w, a2, b)",
        f"for(i32, {T})",
    ),
    "a tuple": (
        "state = (x, 0)\nfor j in range(n):\n    state = (state[0] + 1.0, state[1] + 1)\nmc.store(w, state[1], state[0])",
        f"for({T}, i32)",
    ),
    "a nested tuple": (
        "t = ((x, 1.0), x)\nfor j in range(n):\n    (a1, b1), c1 = t\n    t = ((c1, b1), a1)\nmc.store(w, p, t[1])",
        f"for({T}, f32, {T})",
    ),
    "swapped variables": (
        "y = x + 1.0\nfor j in range(n):\n    x, y = y, x\nmc.store(w, p, x)",
        f"for({T}, {T})",
    ),
    "a temporary that changes its shape": (
        "t = x\nfor j in range(n):\n    t = mc.load(v, j, 4)\n    t = mc.cat([t, t])\n    mc.store(w, j, t)",
        "for()",
    ),
    "a temporary of two loops": (
        "for j in range(n):\n    t = x + 1.0\nfor j in range(n):\n    t = i\n    mc.scatter(w, t, x)",
        "for() for()",
    ),
    "a nested loop": (
        "acc = x\nfor j in range(n):\n    for k in range(j):\n        acc = acc + 1.0\nmc.store(w, p, acc)",
        f"for({T}) for({T})",
    ),
    "a constant that is assigned the same value": (
        "mode = 'a'\nfor j in range(n):\n    mode = 'a'\nassert mode",
        "for()",
    ),
    "augmented assignment": ("acc = x\nfor j in range(n):\n    acc += x\nmc.store(w, p, acc)", f"for({T})"),
    "a variable that a nested function reads": (
        "acc = x\ndef out():\n    mc.store(w, p, acc)\nfor j in range(n):\n    acc = acc + 1.0\nout()",
        f"for({T})",
    ),
    "a lambda's parameter is no variable of the loop": (
        "b = x\nfor j in range(n):\n    b = m\n    y = mc.reduce(b, 1, lambda a, b: a + b)\n    mc.store(w, j, y)",
        "for()",
    ),
    "a comprehension's variable is its own": (
        "e = 1\nfor j in range(n):\n    y = [e for e in (1, 2)]\nmc.store(w, e, x)",
        "for()",
    ),
    "while": ("k = 0\nwhile k < n:\n    k = k + 1\nmc.store(w, k, x)", "while(i32)"),
    "while with an accumulator": (
        "k = 0\nwhile k < n and k < 9:\n    k += 1\n    x = x * 2.0\nmc.store(w, p, x)",
        f"while(i32, {T})",
    ),
    "while on a number": ("k = n\nwhile k:\n    k = k - 1", "while(i32)"),
    "a loop in a while": (
        "k = 0\nwhile k < n:\n    for j in range(k):\n        x = x + 1.0\n    k = k + 1\nmc.store(w, p, x)",
        f"while(i32, {T}) for({T})",
    ),
}
BRANCHES = {
    "both branches": ("if n > 0:\n    y = x\nelse:\n    y = -x\nmc.store(w, p, y)", f"if({T})"),
    "one branch": ("y = x\nif n > 0:\n    y = -x\nmc.store(w, p, y)", f"if({T})"),
    "nothing is read later": ("if n > 0:\n    y = x\nelse:\n    y = h", "if()"),
    "no value": ("if n > 0:\n    mc.store(w, p, x)", "if()"),
    "a number and a scalar": ("k = n\nif n > 0:\n    k = 3\nmc.store(w, k, x)", "if(i32)"),
    "two numbers": ("k = 4\nif n > 0:\n    k = 3\nmc.store(w, k, x)", "if(i32)"),
    "equal numbers stay known": ("k = 3\nif n > 0:\n    k = 3\nassert k == 3", "if()"),
    "a tuple": ("t = (x, 1)\nif n > 0:\n    t = (-x, 2)\nmc.store(w, t[1], t[0])", f"if({T}, i32)"),
    "elif": (
        "if n > 0:\n    y = x\nelif n < -3:\n    y = -x\nelse:\n    y = x * 2.0\nmc.store(w, p, y)",
        f"if({T}) if({T})",
    ),
    "in a loop": (
        "for j in range(n):\n    if j > 2:\n        x = x + 1.0\nmc.store(w, p, x)",
        f"for({T}) if({T})",
    ),
    "on a number, as in Python": ("if n:\n    mc.store(w, p, x)", "if()"),
    "early return": ("if n > 3:\n    return\nmc.store(w, p, x)", "if()"),
    "early return in both": ("if n > 3:\n    return\nelse:\n    return", "if()"),
    "return inside a branch that is known": (
        "if B == 16:\n    if n > 3:\n        return\nmc.store(w, p, x)",
        "if()",
    ),
    "return in a helper": (
        "def pick():\n    if n > 0:\n        return x\n    return -x\nmc.store(w, p, pick())",
        f"if({T})",
    ),
    "return of a tuple in a helper": (
        "def pick():\n    if n > 0:\n        return x, 1\n    return -x, 2\ny, k = pick()\nmc.store(w, k, y)",
        f"if({T}, i32)",
    ),
    "return in a helper inside a loop": (
        "def pick(k):\n    if k > 0:\n        return x\n    return -x\nfor j in range(n):\n    mc.store(w, j, pick(j))",
        f"for() if({T})",
    ),
    "three returns": (
        "def pick():\n    if n > 5:\n        return x\n    if n > 3:\n        return -x\n    return x * 2.0\n"
        "mc.store(w, p, pick())",
        f"if({T}) if({T})",
    ),
    "conditional expression": ("y = x if n > 0 else -x\nmc.store(w, p, y)", f"if({T})"),
    "nested conditional expressions": (
        "y = x if n > 0 else -x if n > -3 else x * 2.0\nmc.store(w, p, y)",
        f"if({T}) if({T})",
    ),
    "an array given or not": ("if o is None:\n    y = x\nelse:\n    y = m\nmc.store(w, p, y)", ""),
    "a constant condition": ("if B > 8:\n    y = x\nelse:\n    y = undefined_name\nmc.store(w, p, y)", ""),
    "a constant conditional expression": ("y = x if B > 8 else undefined_name", ""),
    "constant and": ("if B > 8 and n > 3:\n    mc.store(w, p, x)", "if()"),
    "constant false and": ("if B > 64 and undefined_name:\n    mc.store(w, p, x)", ""),
    "constant true or": ("if B > 8 or undefined_name:\n    mc.store(w, p, x)", ""),
    "not": ("if not n > 3:\n    mc.store(w, p, x)", "if()"),
    "chained comparison": ("if 0 < n <= 3:\n    mc.store(w, p, x)", "if()"),
    "chained comparison of constants and scalars": ("if 0 < B < n:\n    mc.store(w, p, x)", "if()"),
    "chained comparison that is known to fail": ("if 0 > B < n:\n    mc.store(w, p, x)", ""),
}
UNROLLED = {
    "static_range": ("for k in mc.static_range(3):\n    mc.store(w, k, x)", 3),
    "a tuple": ("for k in (1, 5):\n    mc.store(w, k, x)", 2),
    "tiles in a tuple": ("for y in (x, -x, x * 2.0):\n    mc.store(w, p, y)", 3),
    "zip": ("for y, k in zip((x, -x), (0, 1)):\n    mc.store(w, k, y)", 2),
    "enumerate": ("for k, y in enumerate([x, -x]):\n    mc.store(w, k, y)", 2),
    "reversed": ("for k in reversed((1, 2, 3)):\n    mc.store(w, k, x)", 3),
    "enumerate of a known range": ("for k, j in enumerate(range(4)):\n    mc.store(w, k + j, x)", 4),
    "a dict": ("for name in {'a': 1, 'b': 2}:\n    assert name\n    mc.store(w, p, x)", 2),
    "a variable changes its shape": (
        "y = x\nfor k in mc.static_range(2):\n    y = mc.cat([y, y])\nassert y.shape == (64,)\nmc.store(w, p, y)",
        1,
    ),
    "the variable stays after the loop": (
        "for k in mc.static_range(3):\n    pass\nassert k == 2\nmc.store(w, k, x)",
        1,
    ),
    "nested": ("for j in (0, 1):\n    for k in mc.static_range(j + 1):\n        mc.store(w, k, x)", 3),
    "of nothing": ("for k in ():\n    mc.store(w, k, x)", 0),
    "comprehension": (
        "ys = [x * float(k) for k in (1, 2, 3) if k != 2]\nfor y in ys:\n    mc.store(w, p, y)",
        2,
    ),
    "nested comprehension": (
        "ks = [j * k for j in (1, 2) for k in range(3)]\nfor k in ks:\n    mc.store(w, k, x)",
        6,
    ),
    "generator": ("for k in tuple(k + 1 for k in (1, 2)):\n    mc.store(w, k, x)", 2),
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_a_loop_carries(name):
    text, expected = LOOPS[name]
    assert structure(text) == expected


@pytest.mark.parametrize("name", BRANCHES)
def test_what_a_branch_gives(name):
    text, expected = BRANCHES[name]
    assert structure(text) == expected


@pytest.mark.parametrize("name", UNROLLED)
def test_unrolling(name):
    text, stores = UNROLLED[name]
    assert (structure(text), count(text, "tile.store")) == ("", stores)


@pytest.mark.parametrize(
    ("text", "stores"),
    [
        ("if B == 16:\n    if n > 3:\n        return\n    mc.store(w, 0, x)\nmc.store(w, 1, x)", 2),
        ("if B == 16:\n    if n > 3:\n        mc.store(w, 0, x)\n        return\nmc.store(w, 1, x)", 2),
        ("if B == 16:\n    return\nmc.store(w, 1, x)", 0),
        ("if B == 8:\n    return\nmc.store(w, 1, x)", 1),
        ("if n > 3:\n    if n > 4:\n        return\n    mc.store(w, 0, x)\nmc.store(w, 1, x)", 3),
        ("for k in mc.static_range(3):\n    if k == 5:\n        return\n    mc.store(w, k, x)", 3),
        ("return\nmc.store(w, 1, x)", 0),
    ],
)
def test_what_follows_a_return_that_may_not_happen(text, stores):
    assert count(text, "tile.store") == stores


KNOWN = {
    "defaults": "def f(a, b=2, *, c=3):\n    return a + b + c\nassert f(1) == 6 and f(1, 3, c=0) == 4",
    "star arguments": "def f(*values):\n    return len(values)\nassert f(1, 2, 3) == 3 and f(*(1, 2)) == 2",
    "keyword arguments": "def f(**values):\n    return values['a']\nassert f(a=4) == 4 and f(**{'a': 5}) == 5",
    "keyword-only and positional-only": "def f(a, /, *, b):\n    return a - b\nassert f(5, b=2) == 3",
    "lambda": "f = lambda a, b=1: a + b\nassert f(1) == 2",
    "lambda in a tuple": "fs = (lambda a: a, lambda a: a * 2)\nassert [f(3) for f in fs] == [3, 6]",
    "closure sees the variable as it is when called": "k = 1\ndef f():\n    return k\nk = 2\nassert f() == 2",
    "default is computed at the definition": "k = 1\ndef f(a=k):\n    return a\nk = 2\nassert f() == 1",
    "lambdas in an unrolled loop keep their default": (
        "fs = []\nfor k in (1, 2):\n    fs = [*fs, lambda k=k: k]\nassert [f() for f in fs] == [1, 2]"
    ),
    "assignment in a function is local": "k = 1\ndef f():\n    k = 5\n    return k\nassert f() == 5 and k == 1",
    "nested functions": "def f(a):\n    def g(b):\n        return a + b\n    return g(1)\nassert f(2) == 3",
    "a function that is returned": "def f(a):\n    return lambda b: a + b\nassert f(2)(3) == 5",
    "function without return": "def f():\n    pass\nassert f() is None",
    "partial": "f = partial(lambda a, b: a - b, 5)\nassert f(3) == 2 and f(b=1) == 4",
    "compile-time recursion": "def f(k):\n    return 1 if k == 0 else k * f(k - 1)\nassert f(5) == 120",
    "walrus": "assert (k := 3) == 3 and k == 3",
    "walrus in a comprehension": "ks = [last := k for k in (1, 2)]\nassert last == 2",
    "f-string": "assert f'{B:>4}|{B!r}|{\"a\"!r}' == '  16|16|\\'a\\''",
    "unpacking": "(a1, *b1), c1 = (1, 2, 3), 4\nassert (a1, b1, c1) == (1, [2, 3], 4)",
    "several targets": "a1 = b1 = 3\nassert a1 == b1 == 3",
    "annotated": "k: int = 3\nj: int\nassert k == 3",
    "augmented": "k = 3\nk *= 2\nk -= 1\nassert k == 5",
    "subscripts": "t = (1, 2, 3)\nd = {'a': 4}\nassert t[-1] == 3 and t[:2] == (1, 2) and d['a'] == 4",
    "arithmetic": "assert (7 // 2, 7 % 3, 2 ** 3, 7 / 2, ~1, -3, +3) == (3, 1, 8, 3.5, -2, -3, 3)",
    "bits": "assert (6 & 3, 6 | 1, 6 ^ 2, 1 << 3, 8 >> 2) == (2, 7, 4, 8, 2)",
    "membership": "assert 1 in (1, 2) and 3 not in (1, 2) and 'a' in {'a': 1}",
    "identity": "assert o is None and x is not None and mc.f32 is v.dtype",
    "and, or give values": "assert (0 or 5) == 5 and (3 and 4) == 4 and (None or 'a') == 'a'",
    "Python's functions": "assert (max(1, 2), min(1, 2), abs(-3), len((1,)), sum((1, 2)), round(1.6)) == (2, 1, 3, 1, 3, 2)",
    "types as values": "T = mc.bf16 if B > 8 else mc.f32\nassert x.to(T).dtype is mc.bf16",
    "shapes as values": "rows, columns = m.shape\nassert rows * columns == 512 and m.ndim == 2",
    "isinstance": "assert isinstance(B, int) and not isinstance(x, int)",
    "NumPy at compile time": "assert np.log2(B) == 4.0",
    "named tuples": "pair = Pair(x, 1)\nassert pair.second == 1 and pair.first is x",
    "docstring and pass": "'a docstring'\npass",
    "a numpy constant": "assert x.shape == (np.int64(16),)",
}


@pytest.mark.parametrize("name", KNOWN)
def test_compile_time_python(name):
    from functools import partial
    from typing import NamedTuple

    class Pair(NamedTuple):
        first: object
        second: object

    assert structure(KNOWN[name], partial=partial, Pair=Pair) == ""


RUNTIME_CALLS = {
    "max of tiles": ("y = max(x, 0.0, x + 1.0)", "arith.maximumf", 2),
    "min of tiles": ("y = min(x, x + 1.0)", "arith.minimumf", 1),
    "abs of a tile": ("y = abs(x)", "math.absf", 1),
    "helper called twice": ("def f(a):\n    return mc.exp(a)\ny = f(x) + f(-x)", "math.exp", 2),
    "partial of an operation": ("f = partial(mc.maximum, 0.0)\ny = f(x)", "arith.maximumf", 1),
    "operation as an argument": ("def f(g, a):\n    return g(a)\ny = f(mc.exp, x)", "math.exp", 1),
    "method as a value": ("f = x.sum\ny = f(0)", "tile.reduce", 1),
    "keyword spread": ("y = x.sum(**{'axis': 0, 'keepdims': True})", "tile.reduce", 1),
    "reduce with a nested function": (
        "def f(a, b):\n    return mc.maximum(a, b)\ny = mc.reduce(x, 0, f)",
        "tile.reduce",
        1,
    ),
}


@pytest.mark.parametrize("name", RUNTIME_CALLS)
def test_calls_on_tiles(name):
    from functools import partial

    text, operation, number = RUNTIME_CALLS[name]
    assert count(text, operation, partial=partial) == number


def test_a_named_tuple_stays_one_through_a_loop_and_a_branch():
    from typing import NamedTuple

    class State(NamedTuple):
        total: object
        steps: object

    text = """
state = State(x, 0)
for j in range(n):
    state = State(state.total + 1.0, state.steps + 1)
    if j > 3:
        state = State(-state.total, state.steps)
mc.store(w, state.steps, state.total)"""
    assert structure(text, State=State) == f"for({T}, i32) if({T}, i32)"


def test_loop_options_are_attributes():
    module = trace_text("for j in range(n, num_stages=3, unroll=2, flatten=True):\n    mc.store(w, j, x)")
    loop = next(op for op in operations(module.operation) if op.name == "scf.for")
    assert all(f"tile.{name}" in loop.attributes for name in ("num_stages", "unroll", "flatten"))


def test_tracing_is_deterministic():
    text = LOOPS["a nested tuple"][0]
    assert str(trace_text(text)) == str(trace_text(text))


def test_a_fixed_dimension_converts_as_a_dynamic_one():
    text = """
    @mc.kernel
    def kernel(x: mc.f32["N"], y: mc.f32["N"]):
        mc.store(y, 0, mc.load(x, 0, 4) / x.shape[0].to(mc.f32))
    """
    kernel = last_kernel(run(textwrap.dedent(text), "fixed_dimension.py"))
    assert "1.024000e+03" in str(trace(kernel, kernel.specialize(dims={"N": 1024})))
    assert "arith.sitofp" in str(trace(kernel, kernel.specialize()))
