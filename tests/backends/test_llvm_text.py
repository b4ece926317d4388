"""LLVM 24's floating-point constants reach llvmlite with the bits that they had."""

import re

import llvmlite.binding as binding
import numpy as np
import pytest

from mosaic_compile.backends.llvm_text import for_llvmlite
from mosaic_compile.mlir import ir, new_context

UNSIGNED = {"f16": np.uint16, "bf16": np.uint16, "f32": np.uint32, "f64": np.uint64}


def some_bits(name):
    """All numbers of 16 bits; of others the corners of every exponent, and a thousand at random."""
    unsigned = UNSIGNED[name]
    if unsigned is np.uint16:
        return np.arange(1 << 16, dtype=np.uint16)
    width, mantissa = (32, 23) if name == "f32" else (64, 52)
    exponents = np.arange(1 << (width - mantissa), dtype=unsigned) << unsigned(mantissa)
    corners = [exponents + unsigned(d) for d in (0, 1, 2, 3)] + [exponents - unsigned(1)]
    random = np.random.default_rng(5).integers(0, 1 << width, 20000, unsigned, endpoint=False)
    return np.concatenate([*corners, random])


def printed_by_mlir(name, bits):
    """The constants as MLIR's own translation prints them, in the order of the bits."""
    from torch_mlir.dialects import llvm

    with new_context(), ir.Location.unknown():
        element = {"f16": ir.F16Type, "bf16": ir.BF16Type, "f32": ir.F32Type, "f64": ir.F64Type}[name].get()
        digits = bits.itemsize * 2
        values = ", ".join(f"0x{int(b):0{digits}X}" for b in bits)
        module = ir.Module.parse(
            f"llvm.mlir.global constant @c(dense<[{values}]> : tensor<{len(bits)}x{element}>) : !llvm.array<{len(bits)} x {element}>"
        )
        return llvm.translate_module_to_llvmir(module.operation)


@pytest.mark.parametrize("name", UNSIGNED)
def test_every_constant_keeps_its_bits(name):
    bits = some_bits(name)
    text = printed_by_mlir(name, bits)
    module = binding.parse_assembly(for_llvmlite(text))
    (line,) = [x for x in str(module).split("\n") if x.startswith("@c")]
    program = (
        f"{line}\n"
        f"define void @copy(ptr %to) {{\n"
        f"  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @c, i64 {bits.nbytes}, i1 false)\n  ret void\n}}\n"
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n"
    )
    np.testing.assert_array_equal(run_copy(program, bits), bits)


def run_copy(program, like):
    """What the compiled program's `copy` writes."""
    import ctypes

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(program), machine)
    engine.finalize_object()
    out = np.empty_like(like)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("copy"))(out.ctypes.data)
    return out


def test_operands_behind_the_first_take_its_type():
    text = "define float @f(float %x) {\n  %y = fadd float %x, 1.000000e-01\n  ret float %y\n}\n"
    with pytest.raises(RuntimeError, match="floating point constant invalid"):
        binding.parse_assembly(text)
    module = binding.parse_assembly(for_llvmlite(text))
    assert f"fadd float %x, 0x{np.array(np.float32(0.1), np.float64).view(np.uint64):X}" in str(module)


def test_text_that_only_looks_like_a_constant_stays():
    text = (
        '@"float 0.1" = global i32 1\n!0 = !{!"double +inf"}\ndefine void @inf(float %nan.1) {\n  ret void\n}'
    )
    assert for_llvmlite(text) == text


def test_a_phi_of_constants():
    text = (
        "define double @f(i1 %c) {\n  br i1 %c, label %a, label %b\na:\n  br label %b\nb:\n"
        "  %p = phi double [ 3.000000e-01, %0 ], [ -inf, %a ]\n  ret double %p\n}\n"
    )
    printed = str(binding.parse_assembly(for_llvmlite(text)))
    assert re.search(r"phi double \[ 3\.000000e-01, %0 \], \[ 0xFFF0000000000000, %a \]", printed)
