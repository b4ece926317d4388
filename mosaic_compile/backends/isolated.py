"""Functions of the LLVM back end in a process of their own, because LLVM may end the process that it runs in.

One process serves all calls, one after the other, and is started again when it has ended. Requests and answers are pickled,
each behind its length.
"""

from __future__ import annotations

import atexit
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from typing import IO, Any

from mosaic_compile.errors import BackendError, MosaicError

_LENGTH = struct.Struct("<Q")
_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None
_log: IO[bytes] | None = None


def call(module: str, function: str, *arguments: Any) -> Any:
    """What `module.function(*arguments)` gives in the other process.

    Raises the MosaicError that it raises, and BackendError with LLVM's last words where the process ends.
    """
    with _lock:
        process, log = _started()
        log.seek(0)
        log.truncate(0)
        try:
            assert process.stdin is not None and process.stdout is not None
            _write(process.stdin, (module, function, arguments))
            kind, value = _read(process.stdout)
        except (EOFError, BrokenPipeError):
            _stop()
            raise BackendError(
                f"LLVM ended its process: {_last_words(log)}",
                "the IR before it is shown by --dump-ir; if it is not an edited one, please report this",
            ) from None
        except BaseException:  # an interrupt: the next answer would be this one's
            _stop()
            raise
    if kind == "error":
        raise value
    return value


def _started() -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    global _process, _log
    if _process is None or _process.poll() is not None:
        _log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        _process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=_log, bufsize=-1
        )
    assert _log is not None
    return _process, _log


def _stop() -> None:
    global _process
    if _process is not None:
        _process.kill()
        _process.communicate()
        _process = None


def _forget() -> None:
    """A forked process has no other process of its own yet."""
    global _process
    _process = None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _last_words(log: IO[bytes]) -> str:
    """The line of the log that says what went wrong; LLVM prints a stack trace behind it."""
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return next(
        (line for line in lines if "ERROR" in line or "error:" in line), [*lines, "it said nothing"][-1]
    )


def _write(stream: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def serve() -> None:
    """The other process: answers requests until its input ends."""
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may stand between the answers
    while True:
        try:
            module, function, arguments = _read(source)
        except EOFError:
            return
        try:
            answer = ("value", getattr(import_module(module), function)(*arguments))
        except MosaicError as error:
            answer = ("error", error)
        _write(answers, answer)
