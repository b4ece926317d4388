"""The C header of a compiled kernel, from its manifest. docs/c-abi.md describes the functions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

# bf16, f16 and fp8 numbers are passed as their bits: C has no types for them everywhere.
C_TYPES = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "f8e4m3": "uint8_t", "f8e5m2": "uint8_t",
    "i64": "int64_t", "i32": "int32_t", "i16": "int16_t", "i8": "int8_t", "u8": "uint8_t", "u32": "uint32_t",
    "i4": "int8_t", "bool": "uint8_t",
}  # fmt: skip

# Names that a parameter cannot have in C or C++, and those of the parameters that are not the kernel's.
_TAKEN = frozenset((
    "alignas", "alignof", "and", "asm", "auto", "bool", "break", "case", "catch", "char", "class", "const", "constexpr",
    "continue", "default", "delete", "do", "double", "else", "enum", "explicit", "export", "extern", "false", "float",
    "for", "friend", "goto", "if", "inline", "int", "long", "mutable", "namespace", "new", "not", "operator", "or",
    "private", "protected", "public", "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct",
    "switch", "template", "this", "throw", "true", "try", "typedef", "typename", "union", "unsigned", "using",
    "virtual", "void", "volatile", "while", "xor", "arguments", "next", "begin", "end", "chunk", "scratch", "grid",
))  # fmt: skip


def header(manifest: Mapping[str, Any]) -> str:
    name = manifest["kernel"]
    arrays = {a["name"]: a for a in manifest["arrays"]}
    declared = [_declaration(p, arrays) for p in manifest["parameters"]]
    dims = [d for d, p in zip(declared, manifest["parameters"]) if p["kind"] == "dim"]
    guard = f"MOSAIC_{name.upper()}_H"
    about = f"{name}, compiled by Mosaic Compile for {manifest['target']}."
    lines = [
        f"/* {about}",
        *_comment(manifest["doc"]),
        *_comment("\n".join(_facts(manifest))),
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Runs the programs [begin, end) of the grid; scratch is this thread's own. */",
        _function("void", f"{name}_run", [*declared, "int64_t begin", "int64_t end", "void *scratch"]),
        "",
        "/* The number of programs on each axis of the grid; begin and end count to their product. */",
        _function("void", f"{name}_grid", [*dims, "int64_t grid[3]"]),
        "",
        "/* The bytes that scratch must have, aligned to 64; with 0 it may be null. */",
        _function("int64_t", f"{name}_scratch_bytes", []),
        "",
        "/* Takes chunks of programs off the counter *next until it reaches end, and runs them. Each argument of",
        f"   {name}_run up to begin has 8 bytes of arguments, in order. */",
        _function(
            "void",
            f"{name}_share",
            ["const void *arguments", "int64_t *next", "int64_t end", "int64_t chunk", "void *scratch"],
        ),
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _declaration(parameter: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    match parameter["kind"]:
        case "pointer":
            array = arrays[parameter["array"]]
            const = "const " if array["access"] == "in" else ""
            return f"{const}{C_TYPES[array['dtype']]} *{_identifier(array['name'])}"
        case "stride":
            return f"int64_t {parameter['array']}_stride_{parameter['axis']}"
        case "dim":
            return f"int64_t {_identifier(parameter['name'])}"
        case _:
            return f"{C_TYPES[parameter['dtype']]} {_identifier(parameter['name'])}"


def _identifier(name: str) -> str:
    return f"{name}_" if name in _TAKEN else name


def _facts(manifest: Mapping[str, Any]) -> list[str]:
    """What callers must keep to, an array a line."""
    lines = []
    for array in manifest["arrays"]:
        dims = ", ".join(map(str, array["dims"]))
        facts = [
            f"{array['name']}: {array['dtype']}[{dims}], {array['access']}, aligned to {array['align']} bytes"
        ]
        for axis, (size, stride) in enumerate(zip(array["sizes"], array["strides"])):
            fixed = [f"size {size}"] if size is not None else []
            if array["dim_multiples"][axis] > 1 and size is None:
                fixed.append(f"size a multiple of {array['dim_multiples'][axis]}")
            if stride is not None:
                fixed.append(f"stride {stride}")
            elif array["stride_multiples"][axis] > 1:
                fixed.append(f"stride a multiple of {array['stride_multiples'][axis]}")
            facts += [f"dimension {axis} has {' and '.join(fixed)}"] if fixed else []
        lines.append("; ".join(facts))
    return [*lines, f"grid: ({', '.join(manifest['grid'])})", "Sizes and strides count elements."]


def _comment(text: str) -> list[str]:
    if not text:
        return []
    safe = text.replace("*/", "* /")
    wrapped = [w for line in safe.split("\n") for w in textwrap.wrap(line, 116) or [""]]
    return [" *", *(f" * {line}".rstrip() for line in wrapped)]


def _function(result: str, name: str, parameters: Sequence[str]) -> str:
    listed = ",\n    ".join(parameters)
    return (
        f"{result} {name}(\n    {listed});"
        if len(parameters) > 1
        else f"{result} {name}({listed or 'void'});"
    )
