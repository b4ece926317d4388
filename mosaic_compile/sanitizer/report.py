"""What the sanitizer tells: findings with the kernel's line, in the form of the compiler's messages."""

from __future__ import annotations

from dataclasses import dataclass

from mosaic_compile.errors import Span, place


@dataclass(frozen=True)
class Kind:
    """A kind of mistake: how messages call it, and what is to be done."""

    title: str
    help: str


KINDS: dict[str, Kind] = {
    "race": Kind(
        "race",
        "programs run in any order and at once: let one program own each element, add with mc.atomic_add, or use "
        "two kernels",
    ),
    "lanes": Kind("race", "any of them may win: give each index once, or add with mc.scatter_add"),
    "pipelined": Kind(
        "race",
        "loads may be issued before an earlier iteration's store: carry the value in a variable, or take "
        "num_stages, flatten and warp_specialize off the loop",
    ),
    "overwritten": Kind(
        "race",
        "stores of iterations that overlap may arrive in either order: store once, behind the loop, or take "
        "num_stages, flatten and warp_specialize off the loop",
    ),
    "uninitialized": Kind(
        "uninitialized read",
        "write the element before it is read: fill the array before the kernel, or mask the load",
    ),
    "unwritten": Kind(
        "never written",
        "an mc.Out array is written completely: let the grid cover it, or declare it mc.InOut where the rest is kept",
    ),
    "nan": Kind(
        "NaN",
        "keep operands in the function's domain, and numbers in the range of the type they are converted to: "
        "mc.where, mc.maximum or mc.clamp before it",
    ),
    "infinity": Kind("infinity", "scale the operands, compute in a wider type, or limit them with mc.clamp"),
    "overflow": Kind(
        "integer overflow",
        "compute in i64, or in u32 where wrapping is meant; an index stays below 2**31: split the array",
    ),
    "division": Kind(
        "division by zero", "what it gives differs from machine to machine: exclude 0 with mc.where before it"
    ),
    "shift": Kind("shift", "shift by 0 to the width less 1: what else gives differs from machine to machine"),
    "conversion": Kind(
        "conversion", "limit the number with mc.clamp first: what it gives differs from machine to machine"
    ),
}


Program = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """A mistake at a place of the kernel, with the first example of it.

    kind: a key of KINDS. message: the example in words. frames: where, from the kernel down to the helper.
    other, other_note: the second place, if there is one, and what happens there. array, element: the element
    of an array that the example is about, in the array's own coordinates; None for a branch. program: the one
    that makes the mistake; other_program: the one that it races with. lane: the tile's element. count: how many
    elements (for address, branch and loop bound: how many times).
    """

    kind: str
    message: str
    frames: tuple[Span, ...]
    other_note: str | None = None
    other: tuple[Span, ...] = ()
    array: str | None = None
    element: tuple[int, ...] | None = None
    program: Program | None = None
    other_program: Program | None = None
    lane: tuple[int, ...] | None = None
    count: int = 1

    def render(self) -> str:
        """The whole message: what, where with a caret, the second place, how often, and what to do."""
        kind = KINDS[self.kind]
        lines = [f"{kind.title}: {self.message}", *place(self.frames)]
        if self.other and self.other != self.frames:
            lines += [f"note: {self.other_note}", *place(self.other)]
        if self.count > 1:
            lines.append(f"note: and {self.count - 1} more like this")
        lines.append(f"help: {kind.help}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


@dataclass(frozen=True)
class Clipped:
    """An access of which some elements lay outside the array: `outside` of `total`, over all programs."""

    frames: tuple[Span, ...]
    array: str
    outside: int
    total: int

    def render(self) -> str:
        where = f"{self.frames[-1]}: " if self.frames else ""
        return f"{where}{self.outside} of {self.total} elements of this access lie outside {self.array}"


@dataclass(frozen=True)
class Report:
    """What a run with the sanitizer found; `clipped` has an entry for each access to memory, also those that
    always stay inside."""

    kernel: str
    programs: int
    findings: tuple[Finding, ...]
    clipped: tuple[Clipped, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    def render(self, clipped: bool = False) -> str:
        """The findings one after the other; with `clipped`, also how much was accessed outside arrays."""
        ran = f"{self.programs} program{'s' * (self.programs != 1)} of {self.kernel}"
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)} in {ran}"
        parts = [*(f.render() for f in self.findings), found if self.findings else f"nothing found in {ran}"]
        if clipped:
            parts.append("\n".join(c.render() for c in self.clipped if c.outside) or "nothing was clipped")
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.render()
