"""A case: a small kernel, its arguments and what it must make of them. Cases are run by the interpreter, by the
`tt` evaluator, and compiled by Triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mosaic_compile import targets
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import run, tt
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Layout, Specialization
from mosaic_compile.language.symbolic import evaluate
from mosaic_compile.mlir import ir
from mosaic_compile.stages import Session

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """arguments: made anew for each run; wanted: the arrays afterwards, by name, from the arguments before.

    choices go to Kernel.specialize; layouts replace those of arrays. ulps: units in the last place that results may be off.
    """

    name: str
    kernel: Kernel
    arguments: Callable[[], Arguments]
    wanted: Callable[..., Mapping[str, Any]]
    choices: Mapping[str, Any] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    ulps: float = 0
    tolerance: float = 0

    def __str__(self) -> str:
        return self.name

    @property
    def specialization(self) -> Specialization:
        spec = self.kernel.specialize(**self.choices)
        spec.layouts.update(self.layouts)  # type: ignore[attr-defined]
        return spec


def lowered(case: Case, target: str, stages: int) -> ir.Module:
    """The case's module after the first stages of a target: "tile", then "tt"."""
    spec = case.specialization
    module = trace(case.kernel, spec)
    session = Session(targets.find(target), spec.options)
    for stage in targets.stages(session.target)[:stages]:
        module = stage.run(module, session)
        assert module.operation.verify()
    return module


def dims_of(kernel: Kernel, arguments: Arguments) -> dict[str, int]:
    return {
        dim: size
        for p in kernel.signature.arrays
        if p.name in arguments
        for dim, size in zip(p.spec.dims, arguments[p.name].shape)
        if isinstance(dim, str)
    }


def interpreted(case: Case, module: ir.Module) -> Arguments:
    arguments = case.arguments()
    dims = dims_of(case.kernel, arguments)
    texts = case.kernel.grid_text(case.specialization)
    given = [arguments[p.name] for p in case.kernel.signature.params if p.name in arguments]
    run(module, given, tuple(evaluate(t, {**dims, "num_sms": 3}) for t in texts))
    return arguments


def launched(case: Case, module: ir.Module) -> Arguments:
    arguments = case.arguments()
    tt.launch(module, arguments, dims_of(case.kernel, arguments))
    return arguments


def assert_wanted(case: Case, actual: Arguments) -> None:
    """The arrays that the case names are as wanted, all others unchanged."""
    before = case.arguments()
    with np.errstate(all="ignore"):
        wanted = case.wanted(**before)
    for name, array in case.arguments().items():
        if not isinstance(array, np.ndarray):
            continue
        expected = np.broadcast_to(np.asarray(wanted.get(name, array)), array.shape)
        if name not in wanted or expected.dtype == array.dtype or array.dtype.kind in "biu":
            expected = expected.astype(array.dtype)
        _assert_close(name, actual[name], expected, case)


def _assert_close(name: str, actual: np.ndarray, wanted: np.ndarray, case: Case) -> None:
    if actual.dtype.kind in "biu" or actual.dtype.name == "int4":
        np.testing.assert_array_equal(actual, wanted, name)
        return
    with np.errstate(all="ignore"):
        rounded = wanted.astype(actual.dtype)
        a, w = actual.astype(np.float64), rounded.astype(np.float64)
        off = (
            case.ulps * np.abs(np.spacing(rounded).astype(np.float64)) + case.tolerance
            if case.ulps or case.tolerance
            else 0
        )
        same = (a == w) | (np.isnan(a) & np.isnan(w)) | (np.abs(a - w) <= off)
        same &= (
            (a != 0) | (w != 0) | (np.signbit(a) == np.signbit(w)) | (case.ulps > 0) | (case.tolerance > 0)
        )
    assert same.all(), (
        f"{name}: {a[~same][:6]} instead of {w[~same][:6]} at {np.argwhere(~same)[:3].tolist()}"
    )
