"""The sanitizer: finds what hardware hides, by running a kernel through the interpreter and watching.

    report = kernel.sanitize(x, out)
    print(report)

tainted.py holds values that remember where they went wrong, births.py says where arithmetic does, words.py how
that is told; shadow.py is what is remembered of each element of an array, memory.py checks accesses against it;
entries.py is the registry of watched entries, watch.py their state, report.py what comes out.
"""

from .report import KINDS, Clipped, Finding, Kind, Report
from .run import sanitize

__all__ = ["KINDS", "Clipped", "Finding", "Kind", "Report", "sanitize"]
