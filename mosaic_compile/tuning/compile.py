"""Compiling candidates side by side, in processes of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from time import perf_counter, sleep
from typing import Any

from mosaic_compile import cache, driver
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import BackendError, MosaicError
from mosaic_compile.frontend import trace
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.targets import Target

Done = Callable[[int, "Artifact | MosaicError", float], None]


def compile_all(
    kernel: Kernel, specs: Sequence[Specialization], target: Target, done: Done, workers: int | None = None
) -> None:
    """Compiles a kernel's specializations through the cache; `done` gets the number of each, its artifact or what is wrong
    with it, and the seconds, as soon as it is known.

    Kernels are traced here, and go to the other processes as MLIR. workers: processes; None: one a core. A process that ends
    is a failure of the specialization that it was at.
    """
    compilation, waiting = driver.Compilation(target), {}
    for number, spec in enumerate(specs):
        begin = perf_counter()
        try:
            traced = trace(kernel, spec)
            name = driver.cache_key(kernel, spec, compilation, traced)
            found = cache.look_up(name)
        except MosaicError as error:
            done(number, error, perf_counter() - begin)
            continue
        if found is not None:
            done(number, found, perf_counter() - begin)
        else:
            waiting[number] = (name, traced.operation.get_asm(enable_debug_info=True))

    def finish(number: int, task: Future[Any]) -> None:
        name, _ = waiting[number]
        try:
            compiled, seconds = task.result()
            artifact = cache.get_or_make(
                name, lambda: driver.artifact_of(kernel, specs[number], compilation, compiled)
            )
            done(number, artifact, seconds)
        except MosaicError as error:
            done(number, error, float("nan"))

    if not waiting:
        return
    from loky import cpu_count, get_reusable_executor

    def started(count: int) -> Any:
        return get_reusable_executor(
            count, env=driver.backend_settings(), initializer=_end_with, initargs=(os.getpid(),)
        )

    executor = started(min(workers or cpu_count(), len(waiting)))
    tasks = {
        executor.submit(_timed, text, specs[number].options, target): number
        for number, (_, text) in waiting.items()
    }
    alone = []  # what was under way when a process ended: the one that ended it is among them
    try:
        for task in as_completed(tasks):
            try:
                finish(tasks[task], task)
            except BrokenProcessPool:
                alone.append(tasks[task])
        for number in sorted(alone):
            task = started(1).submit(_timed, waiting[number][1], specs[number].options, target)
            try:
                finish(number, task)
            except BrokenProcessPool:
                done(number, _ended(), float("nan"))
    except BaseException:  # the user wants to stop
        executor.shutdown(wait=True, kill_workers=True)
        raise


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, which may be killed."""

    def watch() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ended() -> BackendError:
    return BackendError(
        "the back end ended its process", "mosaic-compile with --set and these settings shows its last words"
    )


def _timed(text: str, options: dict[str, Any], target: Target) -> tuple[driver.Compiled, float]:
    begin = perf_counter()
    return driver.compile_text(text, options, target), perf_counter() - begin
