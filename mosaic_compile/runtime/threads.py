"""The threads that share a kernel's programs on a CPU.

The programs of a grid are handed out in chunks by a counter that compiled code moves (docs/c-abi.md, NAME_share): a thread
asks Python for nothing until the grid is done. The caller works too, so a grid is finished whether or not helpers come in time.
How they wait for each other is in team.py.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any

import numpy as np

from mosaic_compile.errors import ArgumentError, UsageError

from .team import SPINS, WORDS, Share, team

__all__ = ["Share", "get_num_threads", "run", "scratch", "set_num_threads"]

CHUNKS = 8  # for each thread: programs that differ in length even out
ALIGNMENT = 64  # bytes: what compiled code expects of scratch memory

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


class _Pool:
    """Helpers, which start when they are first needed, spin while jobs come, and sleep when none does."""

    def __init__(self) -> None:
        self.words = (ctypes.c_int64 * WORDS)()  # of the team: see team.py
        self.leading = threading.Lock()
        self.helpers: list[threading.Thread] = []
        self.asleep: deque[SimpleQueue[None]] = deque()
        self.stopped = False

    def run(self, share: Any, arguments: bytes, programs: int, scratch_bytes: int, threads: int) -> bool:
        """Runs a grid with helpers; False where another thread's grid has them."""
        if not self.leading.acquire(blocking=False):
            return False
        try:
            lead = team().lead  # made before helpers ask for it
            self._wake(threads - 1)
            chunk = max(1, programs // (threads * CHUNKS))
            memory = scratch(scratch_bytes)
            lead(self.words, share, arguments, programs, chunk, scratch_bytes, memory, threads - 1)
        finally:
            self.leading.release()
        return True

    def _wake(self, helpers: int) -> None:
        for _ in range(helpers - len(self.helpers)):
            helper = threading.Thread(target=self._help, name="mosaic-compile", daemon=True)
            self.helpers.append(helper)
            helper.start()
        spinning = len(self.helpers) - len(self.asleep)
        for _ in range(helpers - spinning):
            try:
                self.asleep.pop().put(None)
            except IndexError:  # it woke up meanwhile
                return

    def _help(self) -> None:
        serve, bed = team().serve, SimpleQueue[None]()
        seen, size = ctypes.c_int64(), 0
        while not self.stopped:
            try:
                memory = scratch(size)
            except MemoryError:  # the others do the work
                size = 0
                memory = 0
            wanted = serve(self.words, ctypes.byref(seen), memory, size, SPINS)
            if wanted:
                size = wanted
            else:
                self.asleep.append(bed)
                if not self.stopped:
                    bed.get()

    def stop(self) -> None:
        """Ends the helpers: what they run would go away under them when the process ends."""
        self.stopped = True
        self.words[WORDS - 1] = 1
        while self.asleep:
            self.asleep.pop().put(None)
        for helper in self.helpers:
            helper.join()


_pool = _Pool()


def _start_anew() -> None:
    """In a forked process the helpers' threads are gone."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
atexit.register(lambda: _pool.stop())


def run(share: Any, arguments: bytes, programs: int, scratch_bytes: int, threads: int) -> None:
    """Runs the programs of a grid on some threads; the last has ended when it returns. `share` is a Share."""
    if threads <= 1 or not _pool.run(share, arguments, programs, scratch_bytes, threads):
        counter = ctypes.c_int64()
        share(arguments, ctypes.byref(counter), programs, programs, scratch(scratch_bytes))


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
