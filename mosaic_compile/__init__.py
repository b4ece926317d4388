"""Mosaic Compile: a small tile DSL in Python, compiled through MLIR to GPUs, CPUs, phones and browsers.

    import mosaic_compile as mc

docs/language.md lists everything that is here. The names come from api.py when the first of them is used, so that a process
that only runs artifacts, by `mc.load(DIR)`, never imports the compiler.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

__version__ = "0.1.0"

if _TYPE_CHECKING:
    from .api import *
else:
    import importlib as _importlib
    import importlib.util as _util
    import sys as _sys

    def _load_names():
        from . import api

        names = {name: value for name, value in vars(api).items() if not name.startswith("_")}
        globals().update(names)
        return names

    def __getattr__(name):
        """A public name, or a module of this package; for what is neither: what to write instead."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        if _util.find_spec(f"{__name__}.{name}") is not None:
            return _importlib.import_module(f"{__name__}.{name}")
        if name == "load" and f"{__name__}.api" not in _sys.modules:
            from .runtime.load import load

            return load
        names = _load_names()
        if name == "__all__":
            return sorted(names)
        if name in names:
            return names[name]
        from .language.habits import in_module

        help = None if name.startswith("_") else in_module(name, list(names))
        raise AttributeError(f"mc has no '{name}'" + (f": {help}" if help else ""))

    def __dir__():
        return sorted({*globals(), *_load_names()})
