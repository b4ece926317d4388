"""The kernel library: one family a file, written in the DSL only, each with its meaning in NumPy."""

from .activations import gated, gelu
from .batched_matmul import batched_matmul
from .cross_entropy import cross_entropy
from .cumsum import cumsum
from .flash_attention import flash_attention
from .gather_rows import gather_rows
from .histogram import histogram
from .layer_norm import layer_norm
from .linear import linear
from .matmul import matmul
from .paged_attention import merge_attention, paged_attention
from .persistent_matmul import persistent_matmul
from .quantize_rows import quantize_rows
from .quantized_matmul import quantized_matmul
from .rms_norm import rms_norm
from .rope import rope
from .softmax import softmax
from .split_k_matmul import split_k_matmul
from .stream_k_matmul import stream_k_matmul
from .varlen_attention import varlen_attention
from .vector_add import vector_add

__all__ = [
    "batched_matmul",
    "cross_entropy",
    "cumsum",
    "flash_attention",
    "gated",
    "gather_rows",
    "gelu",
    "histogram",
    "layer_norm",
    "linear",
    "matmul",
    "merge_attention",
    "paged_attention",
    "persistent_matmul",
    "quantize_rows",
    "quantized_matmul",
    "rms_norm",
    "rope",
    "softmax",
    "split_k_matmul",
    "stream_k_matmul",
    "varlen_attention",
    "vector_add",
]
