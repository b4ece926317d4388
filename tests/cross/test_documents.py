"""What the documents show does what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import mosaic_compile as mc
from mosaic_compile.backends import llvm
from mosaic_compile.kernels import softmax

from . import tools
from .machines import run_page

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text().partition("## On other machines\n")[2].partition("\n## ")[0]
C_ABI = (ROOT / "docs/c-abi.md").read_text()


def block(text: str, language: str) -> str:
    """The last block of a language in a document."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[-1]


def save(folder, kernel, target, **given):
    llvm.complete(mc.compile(kernel, target, **given)).save(folder / kernel.name)


@tools.needs(tools.GCC_ARM64, tools.QEMU_ARM64)
def test_c_on_arm(tmp_path):
    save(tmp_path, softmax, "arm64-linux", dims={"N": 1000}, T="f32")
    (tmp_path / "main.c").write_text(block(README, "c"))
    command, expected = re.search(r"\$ (aarch64.*)\n +(.*)\n", README).groups()
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


@tools.needs(tools.WASM_LD, tools.BROWSER)
def test_javascript_in_a_page(tmp_path):
    save(tmp_path, softmax, "wasm32", dims={"N": 1000}, T="f32")
    page = block(README, "html")
    expected = re.search(r"// (\d+\.\d+)\n", page)[1]
    printed = page.replace("console.log(", "send(")
    send = "const send = (body) => fetch('output', { method: 'POST', body });"
    (tmp_path / "page.html").write_text(
        printed.replace('<script type="module">', f'<script type="module">{send}')
    )
    assert printed != page and run_page(tmp_path) == expected.encode()


@mc.kernel(grid=lambda N: (mc.cdiv(N, 1024),))
def add(x: mc.f32["N"], y: mc.f32["N"], sum: mc.Out[mc.f32["N"]]):
    """The kernel of docs/c-abi.md."""
    i = mc.program_id(0)
    mc.store(sum, i, mc.load(x, i, 1024) + mc.load(y, i, 1024))


def test_the_kernel_of_the_interface_s_document():
    shown = block(C_ABI, "python")
    source = Path(__file__).read_text().replace('    """The kernel of docs/c-abi.md."""\n', "")
    assert shown in source


@tools.needs(tools.GCC_ARM64, tools.QEMU_ARM64)
def test_c_of_the_interface_s_document(tmp_path):
    save(tmp_path, add, "arm64-linux")
    main = """
#include <stdio.h>
static _Alignas(16) float x[5000], y[5000], sum[5000];
int main(void) {
    for (int i = 0; i < 5000; ++i) x[i] = i, y[i] = 2 * i;
    add(x, y, sum, 5000);
    for (int i = 0; i < 5000; ++i) if (sum[i] != 3 * i) return 1;
    puts("right");
}
"""
    (tmp_path / "main.c").write_text(re.findall(r"```c\n(.*?)```", C_ABI, re.DOTALL)[1] + main)
    compiler = [tools.program(tools.GCC_ARM64), "-static", "-I", "add", "main.c", "add/add.o", "-o", "main"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    done = subprocess.run(
        [tools.program(tools.QEMU_ARM64), "./main"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "right\n"


@tools.needs(tools.WASM_LD, tools.NODE)
def test_javascript_of_the_interface_s_document(tmp_path):
    save(tmp_path, add, "wasm32")
    script = block(C_ABI, "js") + "console.log(sum.every((v, i) => v === 3 * i));"
    (tmp_path / "main.mjs").write_text(script)
    done = subprocess.run(["node", "main.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "true\n", done.stderr
