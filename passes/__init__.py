"""The compiler's passes, one file each, named as the pass is. `ALL` is the list that the command line shows."""

from .base import Pass, Upstream

ALL: tuple[type[Pass], ...] = ()

__all__ = ["ALL", "Pass", "Upstream"]
