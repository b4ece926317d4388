"""On which CUDA stream a kernel runs: PyTorch's current one where PyTorch uses the GPU, else the arrays', else the default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from . import cuda

DEFAULT = 0

_torch_stream: Callable[[int], int] | None = None  # PyTorch's, once it uses a GPU


def current_stream(device: int) -> int:
    """PyTorch's current stream of a GPU in this thread, where PyTorch uses GPUs; else the default stream."""
    return _torch_stream(device) if _torch_stream or _find_torch() else DEFAULT  # type: ignore[misc]


def _find_torch() -> bool:
    """Whether PyTorch uses GPUs in this process."""
    global _torch_stream
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return False
    _torch_stream = torch._C._cuda_getCurrentRawStream
    return True


@contextmanager
def meeting(streams: Sequence[int], device: int) -> Iterator[int]:
    """The stream for a kernel on arrays that are computed on these streams: before and after it, they wait for each other.

    Nothing waits on the host.
    """
    own = current_stream(device) if _torch_stream or _find_torch() else streams[0]
    others = {*streams} - {own}
    with cuda.using_device(device):
        for stream in others:
            cuda.order(stream, own)
        yield own
        for stream in others:
            cuda.order(own, stream)
