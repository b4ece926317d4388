"""The part of Triton's `tt` dialect that we emit (Triton, include/triton/Dialect/Triton/IR/TritonOps.td)."""
from mosaic_compile.mlir import ext
class TT(ext.Dialect, name="tt"):
    pass
