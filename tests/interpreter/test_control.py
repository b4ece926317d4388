"""Loops, branches, functions: what the frontend makes of them computes what Python would."""

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import REGISTRY, Env, InterpreterError, prepare_module, run
from mosaic_compile.mlir import ir, new_context

from .helpers import evaluate, launch

SIDE = 8


def run_scalar(kernel, *inputs, size=SIDE, dtype=np.int32, **choices):
    """Runs a kernel of (scalars…, out) and gives its output."""
    out = np.zeros(size, dtype)
    launch(kernel, *inputs, out, **choices)
    return out


@mc.kernel(grid=(1,))
def counted(start: mc.i32, stop: mc.i32, step: mc.i32, out: mc.i32["N"]):
    total, last, steps = 0, -1, 0
    for i in range(start, stop, step):
        total += i
        last = i
        steps += 1
    mc.store(out, 0, total)
    mc.store(out, 1, last)
    mc.store(out, 2, steps)


@pytest.mark.parametrize("bounds", [(0, 5, 1), (3, 3, 1), (5, 2, 1), (-4, 9, 3), (0, 1, 100)])
def test_for(bounds):
    steps = list(range(*bounds))
    out = run_scalar(counted, *bounds)
    assert list(out[:3]) == [sum(steps), steps[-1] if steps else -1, len(steps)]


@mc.kernel(grid=(1,))
def collatz(n: mc.i32, out: mc.i32["N"]):
    steps, highest = 0, n
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        highest = max(highest, n)
        steps += 1
    mc.store(out, 0, steps)
    mc.store(out, 1, highest)


def test_while():
    assert list(run_scalar(collatz, 27)[:2]) == [111, 9232]
    assert list(run_scalar(collatz, 1)[:2]) == [0, 1]


@mc.kernel(grid=(1,))
def nested_loops(n: mc.i32, out: mc.i32["N"]):
    primes, k = 0, 2
    while k < n:
        is_prime, d = True, 2
        while d * d <= k and is_prime:
            if k % d == 0:
                is_prime = False
            d += 1
        if is_prime:
            primes += 1
        k += 1
    mc.store(out, 0, primes)


def test_nested_while():
    assert run_scalar(nested_loops, 100)[0] == 25


@mc.kernel(grid=(1,))
def early(n: mc.i32, out: mc.i32["N"]):
    mc.store(out, 0, mc.i32(1))
    if n < 0:
        mc.store(out, 1, mc.i32(2))
        return
    mc.store(out, 2, mc.i32(3))
    if n == 0:
        return
    mc.store(out, 3, mc.i32(4))


@pytest.mark.parametrize("n, wanted", [(-1, [1, 2, 0, 0]), (0, [1, 0, 3, 0]), (1, [1, 0, 3, 4])])
def test_early_return(n, wanted):
    assert list(run_scalar(early, n)[:4]) == wanted


def classify(x):
    if x > 10:
        return 2 * x, 1
    if x > 0:
        return x, 0
    return -x, -1


@mc.kernel(grid=(1,))
def calls(n: mc.i32, out: mc.i32["N"]):
    def twice(f, x):
        return f(f(x))

    scale = 3
    value, kind = classify(n)
    mc.store(out, 0, value)
    mc.store(out, 1, kind)
    mc.store(out, 2, twice(lambda v: v * scale, n))
    mc.store(out, 3, n if n > 4 else -n)


@pytest.mark.parametrize("n", [-3, 4, 11])
def test_functions(n):
    value, kind = classify(n)
    assert list(run_scalar(calls, n)[:4]) == [value, kind, 9 * n, n if n > 4 else -n]


@mc.kernel(grid=(1,))
def tiles_in_branches(flag: mc.bool_, x: mc.f32["N"], y: mc.f32["N"]):
    tile = mc.load(x, 0, 8)
    if flag:
        tile, other = tile * 2, tile
    else:
        tile, other = tile + 1, -tile
    mc.store(y, 0, tile + other)


def test_tiles_in_branches():
    x = np.arange(8, dtype=np.float32)
    for flag in (True, False):
        y = np.zeros(8, np.float32)
        launch(tiles_in_branches, flag, x, y)
        np.testing.assert_array_equal(y, 3 * x if flag else np.ones(8))


@mc.kernel(grid=lambda M, N: (M, N, 2))
def identify(out: mc.i32["M", "N", 2]):
    i, j, k = mc.program_id(0), mc.program_id(1), mc.program_id(2)
    code = (
        i
        + 10 * j
        + 100 * k
        + 1000 * mc.num_programs(0)
        + 10000 * mc.num_programs(1)
        + 100000 * mc.num_programs(2)
    )
    mc.store(out, (i, j, k), code)


def test_grid():
    out = np.zeros((3, 4, 2), np.int32)
    launch(identify, out, grid=(3, 4, 2))
    i, j, k = np.indices(out.shape)
    np.testing.assert_array_equal(out, i + 10 * j + 100 * k + 243000)


@mc.kernel(grid=(2,))
def talk(x: mc.f32["N"]):
    mc.device_print("x =", mc.load(x, 0, 2), 3)


def test_print(capsys):
    launch(talk, np.array([1, 2], np.float32), grid=(2,))
    lines = [f"({p}, 0, 0) x = {value}" for p in (0, 1) for value in ("[1. 2.]", "3")]
    assert capsys.readouterr().out.splitlines() == lines


def test_call():
    text = """
    func.func @square(%x: i32) -> i32 { %y = arith.muli %x, %x : i32  return %y : i32 }
    func.func @f(%x: i32) -> (i32, i32) {
      %a = func.call @square(%x) : (i32) -> i32
      %b = func.call @square(%a) : (i32) -> i32
      return %b, %a : i32, i32 }"""
    assert evaluate(text, np.int32(3)) == (81, 9)


def test_if_without_else():
    text = """
    func.func @f(%c: i1, %x: i32) -> i32 { scf.if %c { %y = arith.addi %x, %x : i32 } return %x : i32 }"""
    assert evaluate(text, np.True_, np.int32(3)) == (3,)


def test_op_without_entry():
    text = """func.func @f(%x: f32) { %y = "math.acosh"(%x) : (f32) -> f32  return }"""
    with pytest.raises(InterpreterError, match=r"'math\.acosh' has no entry"):
        evaluate(text, np.float32(1))


def test_another_dialect_plugs_in():
    with new_context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        module = ir.Module.parse(
            """func.func @f() -> i32 { %y = "my.answer"() {add = 2 : i32} : () -> i32  return %y : i32 }"""
        )
        functions = prepare_module(
            module, REGISTRY | {"my.answer": lambda op, env: np.int32(40 + op.attributes["add"])}
        )
    assert functions["f"](Env()) == (42,)


def test_errors_name_the_line():
    def broken(op, env):
        raise ValueError("no")

    with new_context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        module = ir.Module.parse("""func.func @f() { "my.op"() : () -> () loc("nowhere.py":7:3)  return }""")
        functions = prepare_module(module, {"my.op": broken})
    with pytest.raises(InterpreterError) as raised:
        functions["f"](Env(program_id=(1, 2, 0)))
    assert str(raised.value) == (
        "error: 'my.op' failed in program (1, 2, 0): ValueError: no\n"
        "  --> nowhere.py:7:3\n"
        "help: breakpoint() before this line shows the values"
    )
    assert isinstance(raised.value.__cause__, ValueError)


def test_arguments_are_checked():
    module = trace(counted, counted.specialize(dims={"N": 8}))
    with pytest.raises(InterpreterError, match="takes 4 arguments, not 1"):
        run(module, [1], (1,))
    with pytest.raises(InterpreterError, match="'out' is an array of int32, not an array of float32"):
        run(module, [1, 2, 3, np.zeros(8, np.float32)], (1,))
    with pytest.raises(InterpreterError, match=r"'out' is .*, which the shape \(4,\) does not fit"):
        run(module, [1, 2, 3, np.zeros(4, np.int32)], (1,))
    with pytest.raises(InterpreterError, match="'start' is a scalar"):
        run(module, [np.zeros(3), 2, 3, np.zeros(8, np.int32)], (1,))
