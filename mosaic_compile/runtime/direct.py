"""Calls on a GPU like ones before, launched by machine code: what Python does for each takes longer than the driver does.

A plan (`direct_plan`) says what a call looks like whose preparation is known, and what it launches. A kernel's calls try the
plans of its latest forms (`direct_code`); where none fits, Python does what it did before. Calls on PyTorch tensors have plans,
but not those of kernels with scratch memory, nor while each launch is waited for.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import forms
from .direct_plan import Plan, plan_of
from .launch import Prepared

MOST_PLANS = 16  # that a kernel's calls try

LAUNCHES: dict[Any, Callable[..., bool]] = {}  # by kernel: launches a call like one before, or gives False


class Table:
    """Plans that are tried one after the other. launch: the function that does so, and says if one has launched."""

    def __init__(self, *plans: Plan) -> None:
        from .direct_code import launcher  # LLVM takes its time to load

        self._words = (ctypes.c_int64 * (1 + MOST_PLANS))()
        self._plans: list[Plan] = []
        self._lock = threading.Lock()
        self.launch: Callable[..., bool] = launcher(ctypes.addressof(self._words), self)
        self.put_first(*plans)

    def put_first(self, *plans: Plan) -> None:
        """Lets these be tried before the others; the last ones may fall out."""
        with self._lock:
            now = list(dict.fromkeys((*plans, *self._plans)))[:MOST_PLANS]
            # Calls of other threads come in between: each word is the address of a plan at any time.
            for i, plan in enumerate(now, 1):
                self._words[i] = plan.address
            self._words[0] = len(now)
            self._plans = now


_tables: dict[Any, Table] = {}  # by kernel
_plans: dict[Any, Plan | None] = {}  # by form; None for a form that has none


def learn(
    kernel: Any, form: forms.Form, prepared: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Lets the next call of this form be launched directly, where it can be."""
    if not isinstance(prepared, Prepared):
        return
    if form.key not in _plans:
        if len(_plans) >= forms.REMEMBERED:
            _plans.clear()
        _plans[form.key] = plan_of(kernel, prepared, args, kwargs)
    plan = _plans[form.key]
    if plan is not None:
        table = _tables.get(kernel) or _tables.setdefault(kernel, Table())
        table.put_first(plan)
        LAUNCHES[kernel] = table.launch


def forget() -> None:
    """Lets the next call of each form be prepared anew."""
    LAUNCHES.clear()
    _tables.clear()
    _plans.clear()
