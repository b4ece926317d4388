"""place-buffers: buffers that are needed at the same time never overlap, others share their place."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes.place_buffers import ALIGNMENT, PlaceBuffers
from mosaic_compile.passes.walk import defining_op, operations

from .helpers import check, run_passes

HEAD = """
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %v = arith.constant 1 : i8"""


def kernel(body: str) -> str:
    return f'func.func @kernel(%n: index {{tile.name = "n"}}, %p: i1 {{tile.name = "p"}}) attributes {{tile.kernel}} {{{HEAD}\n{body}\n  return\n}}'


def places(text: str) -> tuple[dict[int, int], int]:
    """Where each buffer begins, by its size in bytes, and the size of the scratch memory."""
    with new_context(), ir.Location.unknown():
        module = run_passes(ir.Module.parse(text), PlaceBuffers())
        found = {}
        for op in operations(module.operation):
            assert op.name != "memref.alloc"
            if op.name == "memref.view":
                start = defining_op(op.operands[1]).attributes["value"].value
                assert start % ALIGNMENT == 0
                found[op.results[0].type.shape[0]] = start
        (function,) = module.body.operations
        *_, scratch = function.arguments
        return found, scratch.type.shape[0]


def test_the_argument_for_scratch_memory():
    check(
        """
        // CHECK: func.func @kernel(%{{.*}}: i32 {tile.name = "n"}, %[[SCRATCH:.*]]: memref<128xi8> {mosaic.role = "scratch"})
        // CHECK-NOT: memref.alloc
        // CHECK: arith.constant 1.0
        // CHECK: %[[PLACE:.*]] = arith.constant 0 : index
        // CHECK: memref.view %[[SCRATCH]][%[[PLACE]]][] : memref<128xi8> to memref<17xf32>
        // CHECK-NOT: memref.alloc
        func.func @kernel(%n: i32 {tile.name = "n"}) attributes {tile.kernel} {
          %c0 = arith.constant 0 : index
          %v = arith.constant 1.0 : f32
          %a = memref.alloc() : memref<17xf32>
          memref.store %v, %a[%c0] : memref<17xf32>
          return
        }
        """,
        PlaceBuffers(),
    )


def test_a_kernel_without_buffers_takes_no_memory():
    assert places(kernel("")) == ({}, 0)


def alloc(size: int) -> str:
    return f"%b{size} = memref.alloc() : memref<{size}xi8>"


def use(size: int) -> str:
    return f"memref.store %v, %b{size}[%c0] : memref<{size}xi8>"


def test_one_after_the_other_share_a_place():
    found, size = places(kernel("\n".join([alloc(100), use(100), alloc(101), use(101)])))
    assert found == {100: 0, 101: 0} and size == 128


def test_at_once_do_not():
    found, size = places(kernel("\n".join([alloc(100), alloc(101), use(100), use(101)])))
    assert sorted(found.values()) == [0, 128] and size == 256


def test_a_small_one_fills_a_gap():
    """300 and 200 live at once, then 300 and 50: it takes the place of 200."""
    body = [alloc(300), alloc(200), use(200), alloc(50), use(50), use(300)]
    found, size = places(kernel("\n".join(body)))
    assert found == {300: 0, 200: 320, 50: 320} and size == 576


def test_what_a_loop_reads_lives_until_it_ends():
    body = [alloc(100), "scf.for %i = %c0 to %n step %c1 {", use(100), alloc(101), use(101), "}"]
    found, _ = places(kernel("\n".join(body)))
    assert found[100] != found[101]


def test_through_views():
    body = f"""
  {alloc(100)}
  %s = memref.subview %b100[1] [5] [2] : memref<100xi8> to memref<5xi8, strided<[2], offset: 1>>
  %d = memref.cast %s : memref<5xi8, strided<[2], offset: 1>> to memref<5xi8, strided<[?], offset: ?>>
  {alloc(101)}
  {use(101)}
  memref.store %v, %d[%c0] : memref<5xi8, strided<[?], offset: ?>>"""
    found, _ = places(kernel(body))
    assert found[100] != found[101]


def test_through_the_results_of_branches():
    body = f"""
  %r = scf.if %p -> memref<?xi8> {{
    {alloc(100)}
    {use(100)}
    %x = memref.cast %b100 : memref<100xi8> to memref<?xi8>
    scf.yield %x : memref<?xi8>
  }} else {{
    {alloc(101)}
    {use(101)}
    %x = memref.cast %b101 : memref<101xi8> to memref<?xi8>
    scf.yield %x : memref<?xi8>
  }}
  {alloc(102)}
  {use(102)}
  memref.store %v, %r[%c0] : memref<?xi8>"""
    found, _ = places(kernel(body))
    assert found[102] not in (found[100], found[101])


def test_through_what_a_loop_carries():
    body = f"""
  {alloc(100)}
  %x = memref.cast %b100 : memref<100xi8> to memref<?xi8>
  %r = scf.for %i = %c0 to %n step %c1 iter_args(%y = %x) -> memref<?xi8> {{
    {alloc(101)}
    {use(101)}
    memref.store %v, %y[%c0] : memref<?xi8>
    scf.yield %y : memref<?xi8>
  }}
  {alloc(102)}
  {use(102)}
  memref.store %v, %r[%c0] : memref<?xi8>"""
    found, _ = places(kernel(body))
    assert found[100] not in (found[101], found[102])


# Random nests, run step by step: at every moment, buffers between their allocation and their last use lie apart.


@dataclass(frozen=True)
class Alloc:
    size: int


@dataclass(frozen=True)
class Use:
    size: int


@dataclass(frozen=True)
class Loop:
    body: list


@dataclass(frozen=True)
class Branch:
    then: list
    otherwise: list


@st.composite
def nests(draw, seen=(), depth=0, sizes=None):
    """Statements that allocate buffers and use those of the blocks around."""
    sizes = sizes if sizes is not None else itertools.count(100)
    here, statements = list(seen), []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(
            st.sampled_from(["alloc", "use", "use", "loop", "branch"] if depth < 3 else ["alloc", "use"])
        )
        if kind == "alloc":
            here.append(next(sizes) + draw(st.sampled_from([0, 1000, 2000])))
            statements.append(Alloc(here[-1]))
        elif kind == "use" and here:
            statements.append(Use(draw(st.sampled_from(here))))
        elif kind == "loop":
            statements.append(Loop(draw(nests(tuple(here), depth + 1, sizes))))
        elif kind == "branch":
            parts = [draw(nests(tuple(here), depth + 1, sizes)) for _ in range(2)]
            statements.append(Branch(*parts))
    return statements


def text_of(statements: list) -> str:
    lines = []
    for s in statements:
        match s:
            case Alloc(size):
                lines.append(alloc(size))
            case Use(size):
                lines.append(use(size))
            case Loop(body):
                lines += [f"scf.for %i{id(s)} = %c0 to %n step %c1 {{", text_of(body), "}"]
            case Branch(then, otherwise):
                lines += ["scf.if %p {", text_of(then), "} else {", text_of(otherwise), "}"]
    return "\n".join(lines)


def steps_of(statements: list, taken: bool) -> list[Alloc | Use]:
    """What happens when loops run three times and branches go one way."""
    steps: list[Alloc | Use] = []
    for s in statements:
        match s:
            case Loop(body):
                steps += steps_of(body, taken) * 3
            case Branch(then, otherwise):
                steps += steps_of(then if taken else otherwise, taken)
            case _:
                steps.append(s)
    return steps


def lives(steps: list[Alloc | Use]) -> list[tuple[int, int, int]]:
    """(size, first step, last step) of each buffer, one for every time that it is allocated."""
    current: dict[int, list[int]] = {}
    found = []
    for number, step in enumerate(steps):
        if isinstance(step, Alloc):
            current[step.size] = [step.size, number, number]
            found.append(current[step.size])
        else:
            current[step.size][2] = number
    return [tuple(life) for life in found]


@given(nests(), st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_random_nests(statements, taken):
    found, total = places(kernel(text_of(statements)))
    alive = lives(steps_of(statements, taken))
    for size, start in found.items():
        assert start >= 0 and start + size <= total
    for (a, first, last), (b, other_first, other_last) in itertools.combinations(alive, 2):
        if a != b and first <= other_last and other_first <= last:
            assert found[a] + a <= found[b] or found[b] + b <= found[a], (a, b)
