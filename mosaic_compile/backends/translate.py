"""A module of MLIR's `llvm` dialect to the text of LLVM IR."""

from __future__ import annotations

from mosaic_compile.errors import BackendError
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import walk

from .llvm_text import for_llvmlite


def translate(module: ir.Module) -> str:
    """LLVM IR that llvmlite reads; raises BackendError for an operation that is not of the `llvm` dialect.

    MLIR's own translation ends the process at such an operation, and at a module that does not verify.
    """
    from mosaic_compile.mlir_llvm import translate_module_to_llvmir

    module.operation.verify()
    for op in walk.operations(module.operation):
        if op.name != "builtin.module" and (not op.name.startswith("llvm.") or op.name == "llvm.inline_asm"):
            raise BackendError(
                f"'{op.name}' has no form in LLVM IR, at {op.location}",
                "lower it to the llvm dialect first",
            )
    return for_llvmlite(translate_module_to_llvmir(module.operation))


def translate_text(text: str) -> str:
    """The same for a module's text."""
    with new_context():
        return translate(ir.Module.parse(text))
