"""Where operations come from: the user's file, line and column, and the calls on the way."""

from __future__ import annotations

import textwrap

import pytest

import mosaic_compile as mc
from mosaic_compile.errors import MosaicError, OutsideKernelError, SourceUnavailableError, Span
from mosaic_compile.frontend import trace
from mosaic_compile.mlir import ir

from .cases import last_kernel, run
from .test_control_flow import operations

SOURCE = """\
@mc.kernel
def kernel(v: mc.f32["N"], w: mc.f32["N"], n: mc.i32):
    p = mc.program_id(0)
    x = mc.load(v, p, 16)
    y = mc.exp(
        x * 2.0
    )
    for k in range(n):
        y = y + helper(x)
        if k > 3:
            y = -y
    while n > 0:
        n = n - 1
    f = lambda a: mc.sqrt(a)
    mc.store(w, p, f(y))


def helper(a):
    return inner(a) - 1.0


def inner(a):
    return mc.sin(a)
"""


@pytest.fixture(scope="module")
def module() -> ir.Module:
    kernel = last_kernel(run(SOURCE, "places.py"))
    return trace(kernel, kernel.specialize())


def places(module: ir.Module, name: str) -> list[str]:
    found = []
    for op in operations(module.operation):
        if op.name == name:
            found.append(str(op.location).removeprefix("loc(").removesuffix(")").replace('"places.py":', ""))
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("func.func", ["2:1"]),
        ("tile.program_id", ["3:9"]),
        ("tile.load", ["4:9"]),
        ("arith.mulf", ["6:9"]),
        ("math.exp", ["5:9"]),
        ("scf.for", ["8:5"]),
        ("arith.addf", ["9:13"]),
        ("scf.if", ["10:9"]),
        ("arith.cmpi", ["10:12", "12:11"]),
        ("arith.negf", ["11:17"]),
        ("scf.while", ["12:5"]),
        ("tile.store", ["15:5"]),
        ("math.sqrt", ["callsite(14:19 at 15:20)"]),
        ("arith.subf", ["callsite(19:12 at 9:17)"]),
        ("math.sin", ["callsite(23:12 at callsite(19:12 at 9:17))"]),
    ],
)
def test_location(module, name, expected):
    assert places(module, name) == expected


def test_every_operation_has_a_place(module):
    for op in operations(module.operation):
        assert '"places.py"' in str(op.location), op.name


def test_a_file_below_the_current_folder_is_shown_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "kernels.py"
    file.write_text(SOURCE.replace("mc.exp(", "mc.expo("))
    namespace = {"mc": mc, "__name__": "kernels"}
    exec(compile(file.read_text(), str(file), "exec", dont_inherit=True), namespace)
    kernel = last_kernel(namespace)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MosaicError) as error:
        trace(kernel, kernel.specialize())
    assert f"--> sub{'/'}kernels.py:5:9" in str(error.value)
    assert "5 |     y = mc.expo(" in str(error.value)


def test_several_lambdas_in_one_line():
    text = textwrap.dedent("""\
        fs = (lambda a: mc.sin(a), lambda a: mc.cos(a))

        @mc.kernel
        def kernel(v: mc.f32["N"]):
            y = fs[1](mc.load(v, 0, 4))
        """)
    kernel = last_kernel(run(text, "lambdas.py"))
    names = [op.name for op in operations(trace(kernel, kernel.specialize()).operation)]
    assert "math.cos" in names and "math.sin" not in names


def test_a_decorated_helper_is_read_through_its_wrapper():
    text = textwrap.dedent("""\
        import functools

        def twice(f):
            @functools.wraps(f)
            def wrapped(a):
                return f(f(a))
            return wrapped

        @twice
        def helper(a):
            return mc.sin(a)

        @mc.kernel
        def kernel(v: mc.f32["N"]):
            y = helper(mc.load(v, 0, 4))
        """)
    kernel = last_kernel(run(text, "wrapped.py"))
    names = [op.name for op in operations(trace(kernel, kernel.specialize()).operation)]
    assert names.count("math.sin") == 2


def test_a_kernel_without_text():
    namespace = {"mc": mc, "__name__": "nowhere"}
    exec(
        compile("@mc.kernel\ndef kernel(v: mc.f32['N']):\n    pass", "<nowhere>", "exec", dont_inherit=True),
        namespace,
    )
    kernel = last_kernel(namespace)
    with pytest.raises(SourceUnavailableError) as error:
        trace(kernel, kernel.specialize())
    assert str(error.value) == (
        "error: the source of 'kernel' cannot be read (it was defined in <nowhere>)\n"
        "help: define kernels and their helpers in a file or a notebook cell: the compiler reads their text"
    )


def test_a_kernel_whose_file_changed():
    kernel = last_kernel(run(SOURCE, "changed.py"))
    run("# nothing here any more\n", "changed.py")
    with pytest.raises(SourceUnavailableError) as error:
        trace(kernel, kernel.specialize())
    assert str(error.value) == (
        "error: 'kernel' is not at line 1 of changed.py any more\nhelp: reload the file: it changed after it was imported"
    )


def test_a_call_outside_a_kernel_shows_where():
    with pytest.raises(OutsideKernelError) as error:
        mc.exp(1.0)
    assert str(error.value).splitlines()[3].strip().endswith("mc.exp(1.0)")


def test_deep_expressions_are_an_error_not_a_crash():
    text = "@mc.kernel\ndef kernel(s: mc.f32):\n    y = s" + " + s" * 900
    kernel = last_kernel(run(text, "deep.py"))
    with pytest.raises(MosaicError, match="nested too deep"):
        trace(kernel, kernel.specialize())


@pytest.mark.parametrize(
    ("line", "start", "end", "caret"),
    [
        ("x = yy + 1", 4, 6, "    ^^"),
        ("\tx = yy", 5, 7, "\t    ^^"),
        ("é = yy", 5, 7, "    ^^"),
        ("x = yy", 4, 4, "    ^"),
    ],
)
def test_carets(tmp_path, line, start, end, caret):
    file = tmp_path / "line.py"
    file.write_text(line + "\n")
    error = MosaicError("message", "fix", (Span(str(file), 1, start, 1, end),))
    column = len(caret) - caret.count("^") + 1
    assert str(error) == f"error: message\n --> {file}:1:{column}\n  |\n1 | {line}\n  | {caret}\nhelp: fix"


def test_a_span_without_text_shows_its_place():
    assert (
        str(MosaicError("message", None, (Span("gone.py", 3, 4, 3, 5),)))
        == "error: message\n  --> gone.py:3:5"
    )


def test_the_first_place_stays():
    inner, outer = Span("a.py", 1, 0, 1, 1), Span("b.py", 2, 0, 2, 1)
    assert MosaicError("m").at((inner,)).at((outer,)).frames == (inner,)
