"""Arrays on a GPU that is not there, as a launch sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .fake_cuda import ADDRESS


@dataclass(frozen=True)
class Device:
    type: str
    index: int

    def __str__(self) -> str:
        return f"{self.type}:{self.index}"


class Tensor:
    """A PyTorch tensor: taken for one because its class says that it is PyTorch's."""

    __module__ = "torch"

    def __init__(
        self, *shape, offset=0, strides=None, dtype="float32", device=0, negative=False, base=ADDRESS
    ):
        self.shape, self.dtype = shape, f"torch.{dtype}"
        self.device = Device("cuda", device)
        self.layout = "torch.strided"
        self._address, self._negative = base + offset, negative
        self._strides = strides or tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))

    def data_ptr(self) -> int:
        return self._address

    def stride(self) -> tuple[int, ...]:
        return self._strides

    def get_device(self) -> int:
        return self.device.index

    def numel(self) -> int:
        return math.prod(self.shape)

    def is_neg(self) -> bool:
        return self._negative


class Sparse(Tensor):
    __module__ = "torch"

    def data_ptr(self) -> int:
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")


class CudaArray:
    """An f32 array of the CUDA array interface, version 3."""

    def __init__(
        self, size: int, offset: int = 0, stream: int | None = None, read_only: bool = False, **others: Any
    ):
        self.__cuda_array_interface__ = {
            "typestr": "<f4", "shape": (size,), "data": (ADDRESS + offset, read_only), "version": 3, "strides": None,
            "stream": stream, **others,
        }  # fmt: skip
