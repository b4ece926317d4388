"""The bindings of the dialects below `tile`, apart from mlir.py because importing them takes time that no GPU kernel needs."""

from torch_mlir._mlir_libs._mlirDialectsLinalg import fill_builtin_region
from torch_mlir.dialects import bufferization, memref, tensor, vector

__all__ = ["bufferization", "fill_builtin_region", "memref", "tensor", "vector"]
