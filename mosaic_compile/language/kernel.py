"""`@mc.kernel`: a function whose text the compiler reads."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from mosaic_compile.errors import GridError, MosaicError, SignatureError, Span, user_span

from .arrays import Signature, read_signature
from .op import kind_of
from .specialization import OPTIONS, Specialization, ahead_of_time
from .symbolic import Symbol

if TYPE_CHECKING:
    from mosaic_compile.check import CheckReport
    from mosaic_compile.runtime.launchable import Launchable
    from mosaic_compile.sanitizer import Report
    from mosaic_compile.tuning.report import TuningReport

Grid = tuple[int, ...] | Callable[..., Any]
Candidate = Mapping[str, Any]  # constants and compiler options worth trying together
Tune = Sequence[Candidate] | Mapping[str, Sequence[Candidate]]  # as they are written: an entry may say `when`

MACHINES = ("gpu", "cpu")  # the kinds of machines that `tune` may have lists for


class Kernel:
    """A kernel: its function, its signature, its grid, the constants worth trying.

    `kernel(a, b, c)` runs it on arrays, compiling it on first use; `kernel.specialize(...)` decides what
    ahead-of-time compilation needs; `reference` is its meaning in NumPy, if its author gave one.
    """

    def __init__(
        self,
        function: FunctionType,
        grid: Grid,
        tune: Tune = (),
        reference: Callable[..., Any] | None = None,
    ):
        from mosaic_compile.frontend.source import definition_span

        functools.update_wrapper(self, function)
        self.function = function
        self.name = function.__name__
        self.span: Span = definition_span(function)
        self.signature: Signature = read_signature(function, self.span)
        self.grid = grid
        lists = self._read_tune(tune)
        self._when = {machine: tuple(e.pop("when", None) for e in lists[machine]) for machine in MACHINES}
        self.tune: Mapping[str, tuple[Candidate, ...]] = lists
        self.reference = reference
        known = {c.name for c in self.signature.constants} | OPTIONS.keys()
        for candidate in itertools.chain(*self.tune.values()):
            for name in candidate.keys() - known:
                raise SignatureError(
                    f"`tune` sets '{name}', which is not a constant of '{self.name}'",
                    f"there are: {', '.join(sorted(known))}",
                    (self.span,),
                )
        for when in itertools.chain(*self._when.values()):
            self._check_when(when)
        if not callable(grid) and not (
            isinstance(grid, tuple) and all(type(n) is int and n > 0 for n in grid) and 1 <= len(grid) <= 3
        ):
            raise GridError(
                f"the grid of '{self.name}' is {grid!r}",
                "give a tuple of up to three positive numbers, or a function of dimensions and constants: "
                "grid=lambda N, BLOCK: (mc.cdiv(N, BLOCK),)",
                (self.span,),
            )

    def _read_tune(self, tune: Tune) -> dict[str, tuple[dict[str, Any], ...]]:
        """The candidates for each kind of machine; one list is for all."""
        lists = tune if isinstance(tune, Mapping) else dict.fromkeys(MACHINES, tune)
        if not lists.keys() <= {*MACHINES} or not all(
            isinstance(candidates, list | tuple) and all(isinstance(c, Mapping) for c in candidates)
            for candidates in lists.values()
        ):
            raise SignatureError(
                f"`tune` of '{self.name}' is no list of dicts",
                "write tune=[dict(BLOCK=64, num_warps=4)], or lists by machine: tune=dict(gpu=[…], cpu=[…])",
                (self.span,),
            )
        return {machine: tuple(map(dict, lists.get(machine, ()))) for machine in MACHINES}

    def _check_when(self, when: Any) -> None:
        if when is None:
            return
        if not callable(when):
            raise SignatureError(
                f"an entry of `tune` has when={when!r}, not a function of dimensions",
                "write when=lambda M: M <= 16",
                (self.span,),
            )
        for name in inspect.signature(when).parameters:
            if name not in self.signature.dims:
                raise SignatureError(
                    f"`when` in an entry of `tune` asks for '{name}', which is no dimension of '{self.name}'",
                    f"there are: {', '.join(self.signature.dims)}",
                    (self.span,),
                )

    def __repr__(self) -> str:
        return f"<kernel {self.name} at {self.span}>"

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._call(self, args, kwargs)

    @functools.cached_property
    def _call(self) -> Callable[..., None]:
        from mosaic_compile.runtime.call import call

        return call

    def compile(self, *args: Any, **kwargs: Any) -> Launchable:
        """Compiles for these arguments and loads the code, without running it: `run = kernel.compile(a, b, c)`.

        `run(a, b, c)` launches it on arrays of the same types, shapes, strides, devices and alignment, in less time
        than a call of the kernel, and never compiles. It has `constants`, `resources`, `artifact` and `manifest`.
        Raises ArgumentError, LaunchError and the compiler's errors.
        """
        from mosaic_compile.runtime.launchable import compile_for

        return compile_for(self, args, kwargs)

    def __getitem__(self, grid: Any) -> NoReturn:
        """`kernel[grid](…)`, as other languages launch."""
        first = self.signature.params[0].name if self.signature.params else ""
        raise GridError(
            f"'{self.name}[…]' gives a grid to a call, but the grid belongs to the kernel",
            f"call {self.name}({first}, …); @mc.kernel(grid=…) says how many programs run",
            user_span(),
        )

    def interpret(
        self,
        *args: Any,
        after: str | None = None,
        arithmetic: str = "hardware",
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Runs the kernel through the interpreter, program by program and op by op, whatever the machine has.

        Arrays on a GPU are copied to the host and back. `breakpoint()` and mc.device_print work.

        after: run what this pass of the `tile` stage leaves, rather than the kernel as it is traced.
        arithmetic: "hardware" rounds every operation to its element type and adds up tile by tile; "exact"
        carries floats in float64 and rounds in conversions and in memory only, which shows what rounding does
        to the result. workers: processes that share the programs; None: as many as save time. The result is
        the same for all numbers.
        Raises ArgumentError, the compiler's errors, and InterpreterError for a program that fails.
        """
        from mosaic_compile.runtime.arguments import bind
        from mosaic_compile.runtime.interpret import interpret

        interpret(self, bind(self, args, kwargs), after=after, arithmetic=arithmetic, workers=workers)

    def sanitize(
        self, *args: Any, uninitialized: Sequence[str] = (), after: str | None = None, **kwargs: Any
    ) -> Report:
        """Runs the kernel as `interpret` does, and reports what hardware hides: races, reads of elements that
        nothing has written, NaN and infinity made from finite numbers, integers that overflow.

        uninitialized: arrays whose contents count as not written yet; those declared mc.Out do anyway.
        after: run what this pass of the `tile` stage leaves; integer overflow is then not looked for, since
        passes reorder sums.
        Raises ArgumentError, the compiler's errors, and InterpreterError for a program that fails.
        """
        from mosaic_compile.runtime.arguments import bind
        from mosaic_compile.sanitizer import sanitize

        return sanitize(self, bind(self, args, kwargs), uninitialized=uninitialized, after=after)

    def check(self, *args: Any, target: str | None = None, **kwargs: Any) -> CheckReport:
        """Compares the kernel's reference, each step of its compilation, and the machine with the interpreter.

        Runs the kernel on copies of these arguments: the caller's arrays stay as they are. A row of the report
        is an output after one of: the `reference`; the passes on the `tile` dialect; the lowering to Triton's
        dialect; the machine itself, where it is this one. The first that differs says where the mistake is
        made. What all are compared with, and the tolerances, come from the interpreter: see mosaic_compile/check/rounding.py.

        target: a name that `mosaic-compile --list-targets` shows; without it this machine's GPU, or else its CPU.
        Raises ArgumentError, the compiler's errors, and InterpreterError for a program that fails.
        """
        from mosaic_compile.check import check
        from mosaic_compile.runtime.arguments import bind

        return check(self, bind(self, args, kwargs), target)

    def autotune(
        self, *args: Any, candidates: Sequence[Candidate] = (), progress: bool | None = None, **kwargs: Any
    ) -> TuningReport:
        """Finds the fastest entry of `tune` for these arguments on the machine that holds them, and keeps it.

        Works on copies of what the kernel writes: the caller's arrays stay as they are. Calls whose dimensions round up to
        the same powers of two, with arrays of the same types and layouts, take the kept entry from now on, in other
        processes too; docs/tuning.md says more. print(report) shows a table.

        candidates: entries to try beside those of `tune`. progress: whether to show on standard error what happens; None:
        where that is a terminal.
        Raises ArgumentError, and TuningError where no candidate can be compiled and run.
        """
        from mosaic_compile.tuning.autotune import autotune

        return autotune(self, args, kwargs, candidates, progress)

    @property
    def defaults(self) -> dict[str, Any]:
        """The constants where nothing else is said, nor for which machine: the first entry of `tune` for any size."""
        return dict(next(itertools.chain(*(self._for_any_size(machine) for machine in MACHINES)), {}))

    def _for_any_size(self, machine: str) -> list[Candidate]:
        """The entries of `tune` that say no `when`; all where each says one."""
        entries = self.tune[machine]
        return [e for e, when in zip(entries, self._when[machine]) if when is None] or list(entries)

    def candidates(self, machine: str, given: Iterable[str] = ()) -> tuple[Candidate, ...]:
        """What to try on a "gpu" or a "cpu": the entries of `tune` that set nothing of what is given.

        Where that leaves none, the first for any size, which what is given then overrides.
        """
        names = {*given}
        free = tuple(c for c in self.tune[machine] if not c.keys() & names)
        return free or ([*self._for_any_size(machine), self.defaults][0],)

    def first_choices(
        self, machine: str, given: Iterable[str], sizes: Mapping[str, int]
    ) -> tuple[Candidate, ...]:
        """What to take where nothing has been tuned, best first: `candidates` without those whose `when` says no.

        sizes: the dimensions that are known. A `when` that asks for another one says no.
        """
        holds = {
            id(entry): when is None or self._holds(when, sizes)
            for entry, when in zip(self.tune[machine], self._when[machine])
        }
        found = self.candidates(machine, given)
        return tuple(entry for entry in found if holds.get(id(entry), True)) or found

    def _holds(self, when: Callable[..., bool], sizes: Mapping[str, int]) -> bool:
        names = inspect.signature(when).parameters.keys()
        if not names <= sizes.keys():
            return False
        asked = {name: sizes[name] for name in names}
        try:
            return bool(when(**asked))
        except Exception as error:
            words = ", ".join(f"{name}={size}" for name, size in asked.items())
            raise SignatureError(
                f"`when` in an entry of `tune` of '{self.name}' fails for {words}: {error}",
                "compare dimensions with numbers: when=lambda M: M <= 16",
                (self.span,),
            ) from None

    def specialize(
        self,
        *,
        dims: Mapping[str, int] | None = None,
        multiples: Mapping[str, int] | None = None,
        arrays: frozenset[str] | set[str] = frozenset(),
        tuned: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> Specialization:
        """The choices for ahead-of-time compilation.

        dims: dimensions to fix. multiples: what others are multiples of. arrays: optional arrays to compile
        with. tuned: an entry of `tune` instead of the first.
        given: constants, compiler options (num_warps …) and element types. Raises ArgumentError.
        """
        try:
            defaults = self.defaults if tuned is None else tuned
            return ahead_of_time(
                self.signature,
                defaults,
                given=given,
                dims=dims,
                multiples=multiples,
                arrays=frozenset(arrays),
            )
        except MosaicError as error:
            raise error.at((self.span,)) from None

    def grid_text(self, spec: Specialization) -> tuple[str, ...]:
        """The grid as expressions over the dimension names that `spec` leaves open; raises GridError."""
        from mosaic_compile.frontend.source import definition_span

        if not callable(self.grid):
            return tuple(map(str, self.grid))
        known: dict[str, Any] = {name: spec.dims.get(name, Symbol(name)) for name in self.signature.dims}
        known |= spec.constants
        known["num_sms"] = Symbol("num_sms")  # multiprocessors of the device, for persistent kernels
        place = definition_span(self.grid) if isinstance(self.grid, FunctionType) else self.span
        wanted = list(inspect.signature(self.grid).parameters)
        for name in wanted:
            if name not in known:
                raise GridError(
                    f"the grid of '{self.name}' asks for '{name}', neither a dimension nor a constant",
                    f"there are: {', '.join(known)}",
                    (place,),
                )
        try:
            result = self.grid(*(known[name] for name in wanted))
        except MosaicError as error:
            raise error.at((place,)) from None
        except Exception as error:
            raise GridError(
                f"the grid of '{self.name}' cannot be computed: {error}",
                "use + - * // %, mc.cdiv, min and max of numbers",
                (place,),
            ) from None
        items = result if isinstance(result, tuple) else (result,)
        if not 1 <= len(items) <= 3 or not all(
            isinstance(i, int | Symbol) and not isinstance(i, bool) for i in items
        ):
            raise GridError(
                f"the grid of '{self.name}' is {result!r}",
                "return a tuple of one to three whole numbers",
                (place,),
            )
        return tuple(map(str, items))


def kernel(
    function: Callable[..., Any] | None = None,
    *,
    grid: Grid = (1,),
    tune: Tune = (),
    reference: Callable[..., Any] | None = None,
) -> Any:
    """Marks a function as a kernel.

    grid: the number of programs, as up to three numbers or a function of dimension names and constants (and
    `num_sms`).
    tune: constants and compiler options worth trying, best first; the first entry is the default. One list, or
    one for each kind of machine: dict(gpu=[…], cpu=[…]). An entry with when=lambda M: M <= 16, a function of
    dimensions, is the default for such sizes only.
    reference: the kernel's meaning in NumPy: takes the inputs by name, returns the outputs in the order of
    the signature.
    """
    if function is not None:
        if isinstance(function, Kernel):
            raise SignatureError(
                f"'{function.name}' is a kernel already", "write @mc.kernel once", (function.span,)
            )
        if not isinstance(function, FunctionType):
            raise SignatureError(
                f"@mc.kernel marks functions, not {kind_of(function)}",
                "write @mc.kernel(grid=…) above a def",
                user_span(),
            )
        return Kernel(function, grid, tune, reference)
    return lambda fn: kernel(fn, grid=grid, tune=tune, reference=reference)
