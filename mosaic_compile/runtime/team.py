"""The part of the thread pool that runs without Python: how threads wait for a grid, join it, and end it.

A helper spins for a while before it goes back to Python and sleeps: to wake a sleeping thread takes longer than many kernels.
Because helpers may spin while Python runs elsewhere, this is machine code, made by LLVM when a second thread is first needed.

    team: sequence, job, active, stop    what all threads share; sequence counts the jobs
    job:  share, arguments, counter, end, chunk, scratch_bytes, helpers

A helper counts itself as active before it looks for the job; the leader takes the job away before it waits for active helpers
to end: whoever comes in between sees that there is none. All of it is sequentially consistent.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any, NamedTuple

SPINS = 20_000  # of about 20 ns: how long a helper waits for the next job before it sleeps
WORDS = 4  # of a team

# (arguments, counter, end, chunk, scratch): docs/c-abi.md, NAME_share
Share = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)

_TEXT = """
declare void @{pause}({pause_type})
declare i32 @{give_way}()

define i64 @serve(ptr %team, ptr %seen, ptr %scratch, i64 %size, i64 %spins) {{
entry:
  %place = getelementptr i64, ptr %team, i64 1
  %active = getelementptr i64, ptr %team, i64 2
  %stop = getelementptr i64, ptr %team, i64 3
  br label %wait
wait:
  %left = phi i64 [ %spins, %entry ], [ %fewer, %idle ], [ %spins, %done ]
  %sequence = load atomic i64, ptr %team seq_cst, align 8
  %last = load i64, ptr %seen
  %is_seen = icmp eq i64 %sequence, %last
  br i1 %is_seen, label %idle, label %join
idle:
  call void @{pause}({pause_argument})
  %fewer = sub i64 %left, 1
  %is_over = icmp sle i64 %fewer, 0
  %stopped = load atomic i64, ptr %stop seq_cst, align 8
  %is_stopped = icmp ne i64 %stopped, 0
  %leaves = or i1 %is_over, %is_stopped
  br i1 %leaves, label %leave, label %wait
join:
  %before = atomicrmw add ptr %active, i64 1 seq_cst
  %job = load atomic ptr, ptr %place seq_cst, align 8
  %is_late = icmp eq ptr %job, null
  br i1 %is_late, label %done, label %open
open:
  %helpers_place = getelementptr i64, ptr %job, i64 6
  %helpers = load i64, ptr %helpers_place
  %is_needed = icmp slt i64 %before, %helpers
  br i1 %is_needed, label %needed, label %done
needed:
  %bytes_place = getelementptr i64, ptr %job, i64 5
  %bytes = load i64, ptr %bytes_place
  %fits = icmp sle i64 %bytes, %size
  br i1 %fits, label %work, label %grow
work:
  call void @work(ptr %job, ptr %scratch)
  br label %done
done:
  store i64 %sequence, ptr %seen
  %others = atomicrmw sub ptr %active, i64 1 seq_cst
  br label %wait
grow:
  %rest = atomicrmw sub ptr %active, i64 1 seq_cst
  ret i64 %bytes
leave:
  ret i64 0
}}

define internal void @work(ptr %job, ptr %scratch) {{
  %share = load ptr, ptr %job
  %arguments_place = getelementptr i64, ptr %job, i64 1
  %arguments = load ptr, ptr %arguments_place
  %counter_place = getelementptr i64, ptr %job, i64 2
  %counter = load ptr, ptr %counter_place
  %end_place = getelementptr i64, ptr %job, i64 3
  %end = load i64, ptr %end_place
  %chunk_place = getelementptr i64, ptr %job, i64 4
  %chunk = load i64, ptr %chunk_place
  call void %share(ptr %arguments, ptr %counter, i64 %end, i64 %chunk, ptr %scratch)
  ret void
}}

define void @lead(ptr %team, ptr %share, ptr %arguments, i64 %end, i64 %chunk, i64 %bytes, ptr %scratch, i64 %helpers) {{
entry:
  %counter = alloca [8 x i64], align 64
  store i64 0, ptr %counter
  %job = alloca [8 x i64], align 64
  store ptr %share, ptr %job
  %arguments_place = getelementptr i64, ptr %job, i64 1
  store ptr %arguments, ptr %arguments_place
  %counter_place = getelementptr i64, ptr %job, i64 2
  store ptr %counter, ptr %counter_place
  %end_place = getelementptr i64, ptr %job, i64 3
  store i64 %end, ptr %end_place
  %chunk_place = getelementptr i64, ptr %job, i64 4
  store i64 %chunk, ptr %chunk_place
  %bytes_place = getelementptr i64, ptr %job, i64 5
  store i64 %bytes, ptr %bytes_place
  %helpers_place = getelementptr i64, ptr %job, i64 6
  store i64 %helpers, ptr %helpers_place
  %place = getelementptr i64, ptr %team, i64 1
  %active = getelementptr i64, ptr %team, i64 2
  store atomic ptr %job, ptr %place seq_cst, align 8
  %before = atomicrmw add ptr %team, i64 1 seq_cst
  call void @work(ptr %job, ptr %scratch)
  store atomic ptr null, ptr %place seq_cst, align 8
  br label %wait
wait:
  %spun = phi i64 [ 0, %entry ], [ %more, %again ]
  %others = load atomic i64, ptr %active seq_cst, align 8
  %is_done = icmp eq i64 %others, 0
  br i1 %is_done, label %leave, label %idle
idle:
  call void @{pause}({pause_argument})
  %more = add i64 %spun, 1
  %is_long = icmp sgt i64 %more, {patience}
  br i1 %is_long, label %give_way, label %again
give_way:
  %given = call i32 @{give_way}()
  br label %again
again:
  br label %wait
leave:
  ret void
}}
"""
PATIENCE = 1000  # of a leader, before it lets other threads have its core


class Team(NamedTuple):
    """serve(team, seen, scratch, size, spins): a helper's part. 0 where no job came for so many spins or the team stops, else
    how many bytes of scratch memory a job needs. lead(team, share, arguments, end, chunk, scratch_bytes, scratch, helpers): runs
    a grid with at most so many helpers; its programs have ended when it returns.
    """

    serve: Any
    lead: Any
    code: Any  # what the two lie in


@functools.cache
def team() -> Team:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    give_way, library = ("SwitchToThread", "kernel32") if sys.platform == "win32" else ("sched_yield", None)
    pause = ("llvm.x86.sse2.pause", "", "") if _is_x86(binding) else ("llvm.aarch64.hint", "i32", "i32 1")
    text = _TEXT.format(
        pause=pause[0], pause_type=pause[1], pause_argument=pause[2], give_way=give_way, patience=PATIENCE
    )
    address = ctypes.cast(getattr(ctypes.CDLL(library), give_way), ctypes.c_void_p).value or 0
    builder = binding.JITLibraryBuilder().add_ir(text).import_symbol(give_way, address)
    linked = builder.export_symbol("serve").export_symbol("lead").link(_linker(), "team")
    pointer, i64 = ctypes.c_void_p, ctypes.c_int64
    serve = ctypes.CFUNCTYPE(i64, pointer, pointer, pointer, i64, i64)(linked["serve"])
    lead = ctypes.CFUNCTYPE(None, pointer, Share, ctypes.c_char_p, i64, i64, i64, pointer, i64)(
        linked["lead"]
    )
    return Team(serve, lead, linked)


def _is_x86(binding: Any) -> bool:
    return binding.get_process_triple().startswith("x86_64")


@functools.cache
def _linker() -> Any:
    from llvmlite import binding

    return binding.create_lljit_compiler()
