"""Checking a kernel: what each step of compilation makes of it, compared with the interpreter.

    report = kernel.check(a, b, c)
    print(report)

case.py holds the call, rounding.py derives the tolerances, executors.py lists what is run and compared,
difference.py measures, writes.py finds who wrote an element, picture.py draws where errors lie, report.py
says it all; inputs.py and command.py are for the command line.
"""

from .difference import Difference, Element
from .report import CheckReport, Row
from .run import check

__all__ = ["CheckReport", "Difference", "Element", "Row", "check"]
