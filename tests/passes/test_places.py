"""From locations in the IR to the user's text."""

import pytest

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes.places import frames_of

LINES = [
    "x = mc.load(a[i], (f(1), 2), B)[0] + y",
    "    for k in range(n):  # over all blocks",
    "y = x.T @ w",
    "é = mc.sum(b)  # the é is two bytes",
    "z = mc.load(a,",
]


@pytest.mark.parametrize(
    "line, column, text",
    [
        (1, 5, "mc.load(a[i], (f(1), 2), B)[0]"),
        (1, 38, "y"),
        (2, 5, "for k in range(n)"),
        (3, 5, "x.T"),
        (4, 6, "mc.sum(b)"),
        (5, 5, "mc.load(a,"),
        (9, 5, ""),  # not in the file
    ],
)
def test_what_is_underlined(tmp_path, line, column, text):
    file = tmp_path / "kernel.py"
    file.write_text("\n".join(LINES))
    with new_context():
        (span,) = frames_of(ir.Location.file(str(file), line, column))
    assert (span.line, span.column, span.end_line) == (line, column - 1, line)
    assert span.source_line().encode()[span.column : span.end_column].decode() == text


def test_frames_lead_from_the_kernel_to_the_helper():
    with new_context():
        kernel, outer, inner = (ir.Location.file(f"{name}.py", 1, 1) for name in ("kernel", "outer", "inner"))
        place = ir.Location.callsite(inner, [outer, kernel])
        named = ir.Location.name("x", place)
        merged = ir.Location.fused([ir.Location.unknown(), named, kernel])
        for location in (place, named, merged):
            assert [span.file for span in frames_of(location)] == ["kernel.py", "outer.py", "inner.py"]
        assert frames_of(ir.Location.unknown()) == ()
