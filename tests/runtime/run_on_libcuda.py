"""Run as a process of its own, with a libcuda.so.1 that copies on the host: `mc.load`, without the compiler."""

import sys

import numpy as np

import mosaic_compile as mc


class OnGpu:
    """A NumPy array whose memory is taken for a GPU's."""

    def __init__(self, array: np.ndarray):
        self.array = array
        address = array.__array_interface__["data"][0]
        self.__cuda_array_interface__ = {
            "typestr": "<f4", "shape": array.shape, "data": (address, False), "version": 3
        }  # fmt: skip


kernel = mc.load(sys.argv[1])
memory = np.zeros(1 << 16, np.float32)
start = -memory.__array_interface__["data"][0] % 16 // 4
for n in (1024, 64, 0, 1024):
    x, out = memory[start:][:n], memory[start + 4096 :][:n]
    x[:] = np.random.default_rng(n).standard_normal(n)
    out[:] = 0
    kernel(OnGpu(x), OnGpu(out))
    np.testing.assert_array_equal(out, x)
heavy = {"torch", "triton", "torch_mlir", "llvmlite", "jax"} & sys.modules.keys()
assert not heavy, heavy
print("copied")
