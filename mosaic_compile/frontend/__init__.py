"""From a kernel's Python text to the `tile` dialect.

Which question is answered where:

    entry.py        trace(): a kernel becomes a module with one function
    arguments.py    its parameters
    statements.py   assignments, assert, return; branches.py: if; loops.py: for and while
    expressions.py  names, attributes, subscripts, displays; operators.py: + < and not …
    calls.py        operations, functions of the user (inlined), Python's own; python.py: what counts as those
    scope.py        what a name stands for, and the places that errors and operations carry
    liveness.py     which variables are read later
    values.py       what a loop or a branch can hand on
    source.py       a function's text
"""

from .entry import trace

__all__ = ["trace"]
