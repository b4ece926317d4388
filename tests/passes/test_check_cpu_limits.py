"""check-cpu-limits: what CPUs do not have is said with the kernel's line."""

import pytest

import mosaic_compile as mc
from mosaic_compile.errors import TargetLimitError
from mosaic_compile.frontend import trace
from mosaic_compile.passes.check_cpu_limits import CheckCpuLimits


@mc.kernel
def prints(x: mc.f32[16]):
    mc.device_print("x", mc.load(x, 0, 16))


@mc.kernel
def stops(x: mc.f32[16]):
    mc.store(x, 0, mc.zeros(16, mc.f32))
    breakpoint()


@mc.kernel
def sines(x: mc.f64[16]):
    mc.store(x, 0, mc.sin(mc.load(x, 0, 16)))


def refused(kernel, limits):
    with pytest.raises(TargetLimitError) as caught:
        limits.run(trace(kernel, kernel.specialize()))
    return caught.value


@pytest.mark.parametrize("kernel,line,said", [(prints, 1, "mc.device_print"), (stops, 2, "breakpoint()")])
def test_what_only_the_interpreter_does(kernel, line, said):
    error = refused(kernel, CheckCpuLimits("arm64-linux"))
    assert error.message.startswith(said) and error.message.endswith("not on arm64-linux")
    assert "kernel.interpret(…)" in error.help
    assert error.frames[-1].line == kernel.span.line + line


def test_functions_of_the_c_library():
    error = refused(sines, CheckCpuLimits("wasm32", libm=False))
    assert error.message.startswith("mc.sin of f64") and error.help == "compute it in f32"
    CheckCpuLimits("cpu").run(trace(sines, sines.specialize()))
