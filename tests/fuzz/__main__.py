"""More random kernels than the tests run: `python -m tests.fuzz --count 100000 --seed 7`, or `--seconds 600`."""

from __future__ import annotations

import argparse
import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mosaic_compile import targets

from .check import Mismatch, check, check_native
from .program import Program
from .search import search

CHUNK = 200  # programs drawn from one seed


class OutOfTime(Exception):
    """The time that was given is over."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="programs to try")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of the first programs; the tests' seeds are below 100"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after that time")
    parser.add_argument(
        "--target",
        default="sm90",
        choices=(*targets.GPUS, targets.HOST),
        help="whose passes are run; cpu: runs compiled",
    )
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    columns = (TextColumn("random kernels"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=given.count)

        def try_(program: Program) -> None:
            if time.monotonic() > end:
                raise OutOfTime
            if given.target == targets.HOST:
                check_native(program)
            else:
                check(program, given.target)
            progress.advance(task)

        try:
            for start in range(0, given.count, CHUNK):
                search(try_, count=min(CHUNK, given.count - start), seed=given.seed + start // CHUNK)
        except OutOfTime:
            pass
        except Mismatch as error:
            progress.stop()
            print(f"seed {given.seed + start // CHUNK}: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
