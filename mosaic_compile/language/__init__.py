"""The DSL: element types, arrays, kernels and operations."""
