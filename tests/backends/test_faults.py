"""Edited IR may be anything; LLVM may end the process it runs in, which is then not ours."""

import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.backends import codegen, isolated
from mosaic_compile.driver import Compilation, compile_kernel
from mosaic_compile.errors import BackendError, MosaicError, OverrideError


@mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
def double(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    i = mc.program_id(0)
    mc.store(out, (i,), mc.load(x, (i,), (64,)) * 2.0)


def compiled(target="cpu", **overrides):
    spec = double.specialize()
    return compile_kernel(double, spec, Compilation(targets.find(target), overrides=overrides))


@pytest.fixture(scope="module")
def results():
    return compiled().results


def edited(tmp_path, text):
    file = tmp_path / "edited"
    file.write_text(text)
    return file


@pytest.mark.parametrize("stage", ["memory", "llvm-dialect", "llvm", "llvm-opt"])
def test_what_emit_wrote_comes_back(stage, results, tmp_path):
    outcome = compiled(**{stage: edited(tmp_path, results[stage])})
    assert outcome.results["asm"].count("vmulps") + outcome.results["asm"].count("vaddps") > 0
    assert outcome.artifact.manifest["overrides"] == {stage: str(tmp_path / "edited")}


def test_an_edit_reaches_the_code(results, tmp_path):
    text = results["llvm"]
    assert "2.000000e+00" in text
    outcome = compiled(llvm=edited(tmp_path, text.replace("2.000000e+00", "3.000000e+00")))
    assert "3.000000e+00" in outcome.results["llvm-opt"] and "2.000000e+00" not in outcome.results["llvm-opt"]


def test_text_that_is_no_llvm(results, tmp_path):
    with pytest.raises(OverrideError, match=r"does not accept the IR: .*error: expected"):
        compiled(llvm=edited(tmp_path, "define nonsense"))
    missing = results["llvm"].replace("ret void", "", 1)
    with pytest.raises(OverrideError, match="LLVM does not accept the IR"):
        compiled(**{"llvm-opt": edited(tmp_path, missing)})


def test_assembly_is_not_taken_back(results, tmp_path):
    with pytest.raises(OverrideError, match="made from LLVM IR"):
        compiled(asm=edited(tmp_path, results["asm"]))
    with pytest.raises(OverrideError, match="is not an object file"):
        compiled(object=edited(tmp_path, "text"))


CANNOT_SELECT = """
define void @f(ptr %p) {
  %a = load bfloat, ptr %p
  %b = fadd bfloat %a, %a
  store bfloat %b, ptr %p
  ret void
}
"""


def test_llvm_ends_another_process():
    machine = codegen.Machine.of(targets.find("wasm32"))
    for _ in range(2):  # it is started again
        with pytest.raises(BackendError, match="LLVM ended its process: LLVM ERROR: Cannot select"):
            isolated.call(codegen.__name__, "object", CANNOT_SELECT, machine)
        assert isolated.call(codegen.__name__, "object", "define void @f() {\n ret void\n}", machine)


def test_edited_ir_at_which_llvm_gives_up(results, tmp_path):
    body = results["llvm"].replace("define void @double_scratch", "define void @unused_scratch")
    text = body + '\ndefine void @f() {\n  call void asm sideeffect "nonsense", ""()\n  ret void\n}\n'
    with pytest.raises(MosaicError):
        compiled(llvm=edited(tmp_path, text))


def test_operations_without_a_form_in_llvm(tmp_path, results):
    text = results["llvm-dialect"]
    assert "llvm.return" in text
    strange = text.replace("llvm.return", '"test.unknown"() : () -> ()\n    llvm.return', 1)
    with pytest.raises(MosaicError, match=r"test\.unknown|unregistered"):
        compiled(**{"llvm-dialect": edited(tmp_path, strange)})
    index = text.replace("llvm.return", "%strange = arith.constant 3 : i32\n    llvm.return", 1)
    with pytest.raises(BackendError, match=r"'arith\.constant' has no form in LLVM IR"):
        compiled(**{"llvm-dialect": edited(tmp_path, index)})
