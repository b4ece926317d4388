"""Mistakes in the kernel file: the whole message, the command that repeats it, and exit code 1."""

from __future__ import annotations

import os

import pytest

HEAD = "import mosaic_compile as mc\n"

# name of the case: the file, the message
MISTAKES = {
    "no kernels": ("x = 1\n", "'k.py' has no kernels\nhelp: mark a function with @mc.kernel(grid=…)\n"),
    "empty": ("", "'k.py' has no kernels\nhelp: mark a function with @mc.kernel(grid=…)\n"),
    "syntax": (
        "x = (1\ny = 2\n",
        "'(' was never closed\n --> k.py:1:5\n  |\n1 | x = (1\n  |     ^\nhelp: correct the Python syntax\n",
    ),
    "syntax behind a tab and an umlaut": (
        'def f():\n\tx = "ü" +\n',
        'invalid syntax\n --> k.py:2:11\n  |\n2 | \tx = "ü" +\n  | \t         ^\nhelp: correct the Python syntax\n',
    ),
    "indentation": (
        "if True:\nx = 1\n",
        "expected an indented block after 'if' statement on line 1\n --> k.py:2:1\n  |\n2 | x = 1\n  | ^\nhelp: correct the Python syntax\n",
    ),
    "null bytes": ("x = 1\0\n", "'k.py' is not Python text: source code string cannot contain null bytes\nhelp: save the file as UTF-8\n"),
    "raises": (
        "def f():\n    return 1 / 0\n\nx = f()\n",
        "ZeroDivisionError: division by zero\n --> k.py:2:12\n  |\n2 |     return 1 / 0\n  |            ^^^^^\nhelp: this happened while the file was imported\n",
    ),
    "raises a ValueError": (
        "x = int('a')\n",
        "ValueError: invalid literal for int() with base 10: 'a'\n --> k.py:1:5\n  |\n1 | x = int('a')\n  |     ^^^^^^^^\nhelp: this happened while the file was imported\n",
    ),
    "exits": (
        "import sys\nsys.exit(3)\n",
        "SystemExit: 3\n --> k.py:2:1\n  |\n2 | sys.exit(3)\n  | ^^^^^^^^^^^\n"
        "help: this happened while the file was imported; guard code that is not for import by if __name__ == '__main__'\n",
    ),
    "imports what is not there": (
        "import numqy\n",
        "ModuleNotFoundError: No module named 'numqy'\n --> k.py:1:1\n  |\n1 | import numqy\n  | ^^^^^^^^^^^^\nhelp: this happened while the file was imported\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_message(command, folder, case):
    text, message = MISTAKES[case]
    (folder / "k.py").write_text(text)
    result = command("k.py", "--target", "sm90")
    assert result.err == f"error: {message}to repeat: mosaic-compile k.py --target sm90\n"
    assert (result.code, result.out) == (1, "")
    assert sorted(os.listdir(folder)) == ["k.py", "scale.py", "two.py"]


def test_not_utf_8(command, folder):
    (folder / "k.py").write_bytes(b"x = '\xff\xfe'\n")
    result = command("k.py", "--target", "sm90")
    first, *rest = result.err.splitlines()
    assert first.startswith(
        "error: 'k.py' is not Python text: (unicode error) 'utf-8' codec can't decode byte 0xff"
    )
    assert rest == ["help: save the file as UTF-8", "to repeat: mosaic-compile k.py --target sm90"]
    assert result.code == 1


TYPE_ERROR = f"""\
{HEAD}
@mc.kernel(grid=(1,))
def wrong(x: mc.f32["N"], n: mc.i32, out: mc.Out[mc.f32["N"]]):
    mc.store(out, 0, mc.load(x, 0, 16) + mc.iota(16))
"""
STORE_TO_INPUT = f"""\
{HEAD}
@mc.kernel(grid=(1,))
def wrong(x: mc.In[mc.f32["N"]]):
    mc.store(x, 0, mc.zeros(16, mc.f32))
"""
CANNOT_DIVIDE = f"""\
{HEAD}
@mc.kernel(grid=(1,))
def wrong(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    assert x.shape[0] % 16 == 0, "rows are whole vectors"
    mc.store(out, 0, mc.load(x, 0, 16))
"""


def test_type_error_in_a_kernel(command, folder):
    (folder / "k.py").write_text(TYPE_ERROR)
    result = command("k.py", "--target", "sm90")
    lines = result.err.splitlines()
    assert lines[0].startswith("error: ") and lines[1] == " --> k.py:5:22"
    assert lines[-1] == "to repeat: mosaic-compile k.py --target sm90"
    assert result.code == 1


def test_store_to_an_input(command, folder):
    (folder / "k.py").write_text(STORE_TO_INPUT)
    result = command("k.py", "--target", "sm90")
    assert " --> k.py:5:" in result.err and "'x'" in result.err
    assert result.code == 1


def test_a_shape_that_cannot_divide(command, folder):
    (folder / "k.py").write_text(CANNOT_DIVIDE)
    result = command("k.py", "--target", "sm90", "--shape", "N=100")
    assert "rows are whole vectors" in result.err and " --> k.py:5:" in result.err
    assert result.code == 1
    assert command("k.py", "--target", "sm90", "--shape", "N=96").code == 0


def test_the_failing_kernel_of_several_is_named(command, folder):
    (folder / "k.py").write_text((folder / "scale.py").read_text() + TYPE_ERROR.partition("\n")[2])
    result = command("k.py", "--target", "sm90", "--emit", "tile")
    assert (
        result.err.splitlines()[-1]
        == "to repeat: mosaic-compile k.py --target sm90 --emit tile --kernel wrong"
    )
    assert result.out.startswith("// scale for sm90\nmodule")


def test_a_limit_of_the_target(command, folder):
    (folder / "k.py").write_text(
        f"{HEAD}\n@mc.kernel(grid=(1,))\n"
        'def big(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.Out[mc.f32["M", "N"]]):\n'
        "    acc = mc.zeros((256, 128), mc.f32)\n"
        "    for k in range(mc.cdiv(a.shape[1], 128)):\n"
        "        acc = mc.dot(mc.load(a, (0, k), (256, 128)), mc.load(b, (k, 0), (128, 128)), acc)\n"
        "    mc.store(c, (0, 0), acc)\n"
    )
    result = command("k.py", "--target", "sm89", "--set", "num_warps=8", "num_stages=4", "-o", "out")
    assert (
        result.err.startswith("error: 'big' needs ")
        and "bytes of shared memory, sm89 has 101376\n" in result.err
    )
    assert result.code == 1
    assert not (folder / "out").exists()


def test_a_fault_of_the_compiler_is_no_traceback(command, monkeypatch):
    def fail(*_):
        raise KeyError("tile.name")

    monkeypatch.setattr("mosaic_compile.driver.trace", fail)
    arguments = ("scale.py", "--target", "sm90", "--emit", "tile")
    result = command(*arguments)
    assert result.err == (
        "error: the compiler itself failed: KeyError: 'tile.name'\n"
        "help: please report this with the kernel; --debug shows where it happened\n"
        "to repeat: mosaic-compile scale.py --target sm90 --emit tile\n"
    )
    assert result.code == 1
    assert "Traceback (most recent call last)" in command(*arguments, "--debug").err


# Files that are unusual, and right.


def test_crlf_tabs_and_a_byte_order_mark(command, folder):
    text = (folder / "scale.py").read_text().replace("    ", "\t").replace("\n", "\r\n")
    (folder / "k.py").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert command("k.py", "--target", "sm90").code == 0
    (folder / "k.py").write_bytes(text.replace("* 3.0", "* y").encode())
    assert "\n7 | \tmc.store(out, i, mc.load(x, i, B) * y)\n  | \t" in command("k.py", "--target", "sm90").err


def test_a_name_with_spaces(command, folder):
    (folder / "my kernel file.py").write_text((folder / "scale.py").read_text())
    assert command("my kernel file.py", "--target", "sm90", "-o", "the output").code == 0
    (folder / "my kernel file.py").write_text("x = 1\n")
    result = command("my kernel file.py", "--target", "sm90")
    assert result.err.endswith("to repeat: mosaic-compile 'my kernel file.py' --target sm90\n")


def test_a_file_may_import_its_neighbour_and_be_a_link(command, folder):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "neighbour.py").write_text("FACTOR = 7.0\n")
    text = (folder / "scale.py").read_text().replace("3.0", "neighbour.FACTOR")
    (elsewhere / "k.py").write_text(f"import neighbour\n{text}")
    (folder / "link.py").symlink_to(elsewhere / "k.py")
    for path in ("elsewhere/k.py", "link.py", str(elsewhere / "k.py"), "elsewhere/../elsewhere/k.py"):
        result = command(path, "--target", "sm90", "--emit", "tile")
        assert result.code == 0 and "7.000000e+00" in result.out


def test_kernels_made_by_a_function_go_by_their_variables(command, folder):
    (folder / "k.py").write_text(
        f"{HEAD}\ndef make(factor):\n    @mc.kernel(grid=(1,))\n"
        '    def made(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):\n'
        "        mc.store(out, 0, mc.load(x, 0, 16) * factor)\n    return made\n\n"
        "double, triple = make(2.0), make(3.0)\nagain = double\n"
    )
    result = command("k.py", "--target", "sm90")
    assert [line.split()[0] for line in result.out.splitlines()[::2]] == ["double", "triple"]
