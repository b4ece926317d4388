"""The threads that share a kernel's programs on a CPU.

The programs of a grid are handed out in chunks by a counter that compiled code moves (docs/c-abi.md, NAME_share): a thread
asks Python for nothing until the grid is done. The caller works too, so a grid is finished whether or not helpers come in time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from mosaic_compile.errors import ArgumentError, UsageError

CHUNKS = 8  # for each thread: programs that differ in length even out
ALIGNMENT = 64  # bytes: what compiled code expects of scratch memory

Share = Callable[..., None]  # (arguments, counter, end, chunk, scratch)

_local = threading.local()


def scratch(size: int) -> int:
    """The address of this thread's memory for programs, of at least `size` bytes; it grows and stays."""
    if size == 0:
        return 0
    if getattr(_local, "size", 0) < size:
        _local.memory = np.empty(
            size + ALIGNMENT, np.uint8
        )  # kept here: the address alone keeps nothing alive
        start = _local.memory.ctypes.data
        _local.address, _local.size = start + -start % ALIGNMENT, size
    return _local.address


@dataclass
class _Job:
    """One grid that several threads work on."""

    share: Share
    arguments: bytes
    end: int
    chunk: int
    scratch_bytes: int
    counter: ctypes.c_int64 = field(default_factory=ctypes.c_int64)
    lock: threading.Lock = field(default_factory=threading.Lock)
    helping: int = 0
    closed: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    def work(self) -> None:
        memory = scratch(self.scratch_bytes)
        self.share(self.arguments, ctypes.byref(self.counter), self.end, self.chunk, memory)

    def help(self) -> None:
        """A helper's part; nothing where it comes too late."""
        with self.lock:
            if self.closed:
                return
            self.helping += 1
        try:
            self.work()
        except BaseException as error:  # no memory for scratch: the caller hears of it
            self.failure = error
        finally:
            with self.lock:
                self.helping -= 1
                if self.closed and not self.helping:
                    self.done.set()

    def finish(self) -> None:
        """Waits for the helpers that have begun; those that have not find nothing to do."""
        with self.lock:
            self.closed = True
            if not self.helping:
                return
        self.done.wait()


class _Pool:
    """Helpers that wait for jobs; they start when they are first needed, and end with the process."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.lock = threading.Lock()
        self.started = 0

    def call_for_help(self, job: _Job, helpers: int) -> None:
        with self.lock:
            while self.started < helpers:
                threading.Thread(target=self._serve, name="mosaic-compile", daemon=True).start()
                self.started += 1
        for _ in range(helpers):
            self.jobs.put(job)

    def _serve(self) -> None:
        while True:
            self.jobs.get().help()


_pool = _Pool()


def _start_anew() -> None:
    """In a forked process the helpers' threads are gone."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def run(share: Share, arguments: bytes, programs: int, scratch_bytes: int, threads: int) -> None:
    """Runs the programs of a grid on some threads; the last has ended when it returns."""
    if threads <= 1:
        counter = ctypes.c_int64()
        share(arguments, ctypes.byref(counter), programs, programs, scratch(scratch_bytes))
        return
    job = _Job(share, arguments, programs, max(1, programs // (threads * CHUNKS)), scratch_bytes)
    _pool.call_for_help(job, threads - 1)
    try:
        job.work()
    finally:
        job.finish()
    if job.failure is not None:
        raise job.failure


def _default_threads() -> int:
    """MOSAIC_NUM_THREADS, or the cores that this process may use; raises UsageError."""
    text = os.environ.get("MOSAIC_NUM_THREADS")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"MOSAIC_NUM_THREADS is '{text}', not a number of threads", "set it to 1 or more")
    return int(text)


_threads: int | None = None


def get_num_threads() -> int:
    """How many threads run a kernel's programs on this machine's CPU."""
    global _threads
    if _threads is None:
        _threads = _default_threads()
    return _threads


def set_num_threads(count: int) -> None:
    """Sets how many threads run a kernel's programs on this machine's CPU, from the next call on.

    Raises ArgumentError for what is no positive number. Without it, MOSAIC_NUM_THREADS or the number of cores counts.
    """
    global _threads
    if type(count) is not int or count < 1:
        raise ArgumentError(f"{count!r} is not a number of threads", "give 1 or more")
    _threads = count
