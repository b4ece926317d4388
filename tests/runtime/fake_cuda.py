"""libcuda.so.1 that is not there: every function notes its arguments and succeeds, unless it is told to fail."""

from __future__ import annotations

import ctypes
import threading
from typing import Any, NamedTuple

from mosaic_compile.runtime import cuda, cuda_launch, launch

ADDRESS = 0x7F12_3456_7800  # more than 32 bits
ALLOCATED = ADDRESS + 0x1000
OUTER_CONTEXT, FIRST_CONTEXT = 111, 222  # of the thread before, of device 0 (device 1 has 223)

ERRORS = {
    1: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
    2: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
    3: (b"CUDA_ERROR_NOT_INITIALIZED", b"initialization error"),
    209: (b"CUDA_ERROR_NO_BINARY_FOR_GPU", b"no kernel image is available for execution on the device"),
    700: (b"CUDA_ERROR_ILLEGAL_ADDRESS", b"an illegal memory access was encountered"),
    701: (b"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", b"too many resources requested for launch"),
    900: (b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", b"operation not permitted when stream is capturing"),
}


class Launched(NamedTuple):
    """A launch as the driver sees it. values: each parameter's first 8 bytes, or 128 where it may be a descriptor."""

    context: int
    function: int
    grid: list[int]
    block: list[int]
    shared: int
    stream: int
    attributes: list[tuple[int, list[int]]]
    values: list[bytes]
    pointers: list[int]


class FakeDriver:
    """fails: the error code of a function. counts: parameters of a function by its name, 6 where it is not there."""

    def __init__(self, capability: tuple[int, int] = (9, 0), devices: int = 2) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.fails: dict[str, int] = {}
        self.launches: list[Launched] = []
        self.capability, self.devices = capability, devices
        self.parameters = 6
        self.capturing: dict[int, int] = {}  # streams and the numbers of their captures
        self.modes: list[int] = []
        self._thread = threading.local()
        self._capture_mode = 0
        self._memory = ALLOCATED

    @property
    def current(self) -> int:
        return getattr(self._thread, "current", OUTER_CONTEXT)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            if self.fails.get(name):
                return self.fails[name]
            handler = getattr(type(self), f"_{name}", None)
            if handler is not None:
                handler(self, *arguments)
            return 0

        self.__dict__[name] = function
        return function

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]

    def _cuDeviceGetCount(self, count):
        count._obj.value = self.devices

    def _cuDeviceGet(self, handle, device):
        handle._obj.value = device

    def _cuDevicePrimaryCtxRetain(self, context, handle):
        context._obj.value = FIRST_CONTEXT + handle.value

    def _cuCtxGetCurrent(self, context):
        ctypes.c_void_p.from_address(context).value = self.current

    def _cuCtxSetCurrent(self, context):
        self._thread.current = context.value

    def _cuPointerGetAttribute(self, value, attribute, address):
        value._obj.value = 0

    def _cuMemAlloc_v2(self, address, size):
        address._obj.value, self._memory = self._memory, self._memory + max(512, size.value)

    def _cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: self.capability[0], 76: self.capability[1]}.get(attribute, 132)

    def _cuGetErrorString(self, code, text):
        text._obj.value = ERRORS[code][1]

    def _cuGetErrorName(self, code, text):
        text._obj.value = ERRORS[code][0]

    def _cuModuleGetFunction(self, function, module, name):
        function._obj.value = 333 + len(self.of("cuModuleGetFunction"))

    def _cuFuncGetAttribute(self, value, attribute, function):
        value._obj.value = {0: 1024, 1: 16, 3: 8, 4: 42}[attribute]

    def _cuThreadExchangeStreamCaptureMode(self, mode):
        self._capture_mode, mode._obj.value = mode._obj.value, self._capture_mode
        self.modes.append(self._capture_mode)

    def _cuStreamGetCaptureInfo_v2(self, stream, status, number, *rest):
        number._obj.value = self.capturing.get(stream.value or 0, 0)
        status._obj.value = int(bool(number._obj.value))

    def _cuStreamGetId(self, stream, number):
        number._obj.value = (stream.value or 0) + 7

    def _cuTensorMapEncodeTiled(self, result, kind, rank, address, *rest):
        # What the driver writes is its own affair; the address is enough to tell them apart.
        ctypes.memmove(result.value, bytes(ctypes.c_uint64(address.value)) * 16, 128)

    def _cuLaunchKernelEx(self, config, function, pointers, extra):
        assert extra is None
        config = cuda_launch.LaunchConfig.from_address(config)
        count = self.parameters
        pointers = [p or 0 for p in (ctypes.c_void_p * count).from_address(pointers)]
        attributes = [config.attributes[i] for i in range(config.attribute_count)]
        self.launches.append(
            Launched(
                self.current,
                function,
                [*config.grid],
                [*config.block],
                config.shared,
                config.stream or 0,
                [(a.id, list(a.value[:3])) for a in attributes],
                [ctypes.string_at(p, 8) for p in pointers],
                pointers,
            )
        )

    def install(self, set_: Any = setattr) -> FakeDriver:
        """Takes the driver's place; `set_` is monkeypatch.setattr where it is to be undone."""
        set_(cuda, "driver", lambda: self)
        set_(cuda, "_contexts", {})
        set_(launch, "_scratch", {})
        launch.stand_in.cache_clear()
        cuda_launch.encode.cache_clear()
        return self
