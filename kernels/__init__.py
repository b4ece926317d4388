"""The kernel library: one family a file, written in the DSL only, each with its meaning in NumPy."""

from .flash_attention import flash_attention
from .matmul import matmul
from .rms_norm import rms_norm
from .softmax import softmax
from .vector_add import vector_add

__all__ = ["flash_attention", "matmul", "rms_norm", "softmax", "vector_add"]
