"""From a kernel's Python text to the `tile` dialect."""

from .trace import trace

__all__ = ["trace"]
