"""LLVM IR to optimised IR, assembly and object code, by llvmlite.

LLVM ends the process at what it cannot do. Text that our own passes did not make, and machines whose instructions are less
well covered than x86-64's, are therefore given to `isolated.call`, which runs the same functions in another process.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llvmlite import binding

from mosaic_compile.errors import BackendError
from mosaic_compile.targets import CpuTarget

from .externals import FUNCTIONS


@dataclass(frozen=True)
class Machine:
    """What LLVM is told of a target."""

    triple: str
    cpu: str
    features: str
    position_independent: bool

    @classmethod
    def of(cls, target: CpuTarget) -> Machine:
        return cls(target.triple, target.cpu, target.features, target.position_independent)


@functools.cache
def _initialize() -> None:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


def _target_machine(machine: Machine) -> Any:
    _initialize()
    reloc = "pic" if machine.position_independent else "static"
    return binding.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, reloc=reloc, codemodel="default"
    )


def _parse(text: str) -> Any:
    """The module in a context of its own, so that threads do not meet; raises BackendError with LLVM's own message."""
    try:
        module = binding.parse_assembly(text, context=binding.create_context())
        module.verify()
    except RuntimeError as error:
        message = str(error).strip().replace("LLVM IR parsing error\n", "")
        raise BackendError(f"LLVM does not accept the IR: {message}", "correct the IR") from None
    return module


def prepare(text: str, machine: Machine) -> str:
    """The module as LLVM prints it, for this machine: its triple and its layout of data."""
    module = _parse(text)
    module.triple = machine.triple
    module.data_layout = str(_target_machine(machine).target_data)
    return str(module)


def optimize(text: str, machine: Machine) -> str:
    """The module after LLVM's passes at -O3; raises BackendError for a call of what a machine may not have."""
    module = _parse(text)
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
    builder = binding.create_pass_builder(_target_machine(machine), options)
    builder.getModulePassManager().run(module, builder)
    for function in module.functions:
        if (
            function.is_declaration
            and not function.name.startswith("llvm.")
            and function.name not in FUNCTIONS
        ):
            raise BackendError(
                f"the compiled kernel would call '{function.name}', which is no function of libm",
                "this is a fault of Mosaic Compile, unless an edited file led here: please report it",
            )
    return str(module)


def assembly(text: str, machine: Machine) -> str:
    return _target_machine(machine).emit_assembly(_parse(text))


def object(text: str, machine: Machine) -> bytes:
    return _target_machine(machine).emit_object(_parse(text))


def assembled(text: str, machine: Machine) -> bytes:
    """The object of assembly that `assembly` gave: a small part of the time that generating code again would take.

    For machines of this process's architecture, whose assembler alone llvmlite can reach: see `can_assemble`.
    """
    _initialize()
    binding.initialize_native_asmparser()
    escaped = text.replace("\\", "\\5C").replace('"', "\\22")
    lines = "".join(f'module asm "{line}"\n' for line in escaped.split("\n"))
    return _target_machine(machine).emit_object(_parse(f'target triple = "{machine.triple}"\n{lines}'))


def can_assemble(machine: Machine) -> bool:
    return machine.triple.partition("-")[0] == binding.get_process_triple().partition("-")[0]
