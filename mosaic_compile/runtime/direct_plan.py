"""What a call looks like that is launched directly, and what it launches, as records for `direct_code`."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from struct import calcsize
from typing import Any, NamedTuple

from mosaic_compile.language.arrays import ArrayParam, ScalarParam
from mosaic_compile.language.dtypes import DTYPES, DType, DTypeVar
from mosaic_compile.language.specialization import ALIGNMENT

from . import cuda
from . import direct_records as records
from .arrays import DLTensor, capsule_pointer
from .cuda_launch import MAP_ALIGN, MAP_BYTES, TensorMap
from .direct_records import Kind
from .launch import Prepared
from .scalars import code_of


class Plan:
    """address: of a record that lives as long as this."""

    def __init__(self, record: list[int], memory: Memory):
        record[records.Plan.OWNER] = id(self)
        self.address = memory.numbers(record)
        self._memory = memory


class Memory:
    """What a plan's addresses point to."""

    def __init__(self, *parts: Any) -> None:
        self._parts: list[Any] = [*parts]

    def place(self, part: Any) -> int:
        """The address of what ctypes made."""
        self._parts.append(part)
        return ctypes.addressof(part)

    def object(self, value: Any) -> int:
        """The address of a Python object."""
        self._parts.append(value)
        return id(value)

    def numbers(self, values: Iterable[int]) -> int:
        """The address of a list of words."""
        listed = [*values]
        return self.place((ctypes.c_int64 * max(len(listed), 1))(*listed))

    def records(self, found: Iterable[Sequence[int]]) -> int:
        return self.numbers(itertools.chain.from_iterable(found))


class NoPlan(Exception):
    """A call that machine code does not launch."""


def plan_of(kernel: Any, prepared: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Plan | None:
    """The plan of a call that has been prepared so; None where Python must launch it.

    kernel: what has the signature of one. kwargs may hold constants and compiler options, too.
    """
    if (
        not isinstance(prepared, Prepared)
        or prepared.scratch
        or prepared.launcher.waits
        or 0 in prepared.grid
    ):
        return None
    params = {p.name: p for p in kernel.signature.params}
    arguments = [(name, params.get(name), value) for name, value in (*zip(params, args), *kwargs.items())]
    try:
        return _plan(prepared, arguments, [*kwargs])
    except NoPlan:
        return None


# An argument's name, its parameter (None for a compiler option) and its value.
Given = tuple[str, Any, Any]


def _plan(prepared: Prepared, arguments: Sequence[Given], names: Sequence[str]) -> Plan:
    launcher, offsets = prepared.launcher, prepared.offsets
    if (
        not _one_thread_at_a_time()
        or len(arguments) > records.MOST_ARGUMENTS
        or len(offsets) > records.MOST_PARAMETERS
        or prepared.block.size > records.MOST_BYTES
    ):
        raise NoPlan
    arrays = {n: v for n, p, v in arguments if isinstance(p, ArrayParam) and v is not None}
    exchange = _common_exchange(arrays.values())
    tensors = {name: exchange.read(value) for name, value in arrays.items()}
    dtypes = {p["name"]: DTYPES[p["dtype"]] for p in launcher.manifest["parameters"] if p["kind"] == "scalar"}
    memory, launch = Memory(prepared), prepared.new_launch()
    read: list[list[int]] = []
    for name, param, value in arguments:
        memory.object(value if name not in tensors else type(value))
        if name in tensors:
            read.append(_array(value, tensors[name], exchange, memory))
        elif isinstance(param, ScalarParam):
            read.append(_scalar(value, dtypes.get(name, param.dtype)))
        else:
            read.append(records.Argument.of(KIND=Kind.CONSTANT, TYPE=id(type(value)), OBJECT=id(value)))
    at = {name: i for i, (name, _, _) in enumerate(arguments)}
    stores = [(at[name], offsets[slot], 8) for name, slot in prepared.arrays]
    stores += [
        (at[name], offsets[slot], calcsize(code_of(dtypes[name].name)[0]))
        for name, slot, _ in prepared.scalars
        if name in at
    ]
    maps = [_map(at[name], offsets[slot], map_, memory) for name, slot, map_ in prepared.descriptors]
    later = {slot for _, slot, _ in prepared.descriptors}
    block = prepared.block.pack(*(b"" if i in later else value for i, value in enumerate(prepared.values)))
    record = records.Plan.of(
        POSITIONAL=len(arguments) - len(names),
        NAMES=len(names),
        NAMES_AT=memory.numbers(memory.object(sys.intern(name)) for name in names),
        ARGUMENTS=len(read),
        ARGUMENTS_AT=memory.records(read),
        PAIRS=len(prepared.apart),
        PAIRS_AT=memory.records((at[pair.first], at[pair.other], *pair[2:]) for pair in prepared.apart),
        CURRENT_CONTEXT=cuda.address_of("cuCtxGetCurrent"),
        CURRENT_STREAM=exchange.current_stream,
        ENCODE=cuda.address_of("cuTensorMapEncodeTiled"),
        LAUNCH=cuda.address_of("cuLaunchKernelEx"),
        CONTEXT=launcher.context,
        DEVICE=_device(next(iter(tensors.values()))),
        FUNCTION=launcher.function,
        CONFIG=ctypes.addressof(launch.config),
        BLOCK_BYTES=len(block),
        BLOCK_AT=memory.place(ctypes.create_string_buffer(block, len(block))),
        STORES=len(stores),
        STORES_AT=memory.records(stores),
        MAPS=len(maps),
        MAPS_AT=memory.records(maps),
        OFFSETS=len(offsets),
        OFFSETS_AT=memory.numbers(offsets),
    )
    memory.object(launch)
    return Plan(record, memory)


def _one_thread_at_a_time() -> bool:
    """Whether Python has its lock, on which the machine code relies."""
    return sys.implementation.name == "cpython" and bool(getattr(sys, "_is_gil_enabled", lambda: True)())


# Arrays, through the exchange API of DLPack 1.3: https://dmlc.github.io/dlpack/latest/c_api.html


class Exchange(NamedTuple):
    """Functions of an array library: from_object(object, DLTensor) and current_stream(device type, number, stream).

    Both give 0, or -1 and a Python error.
    """

    from_object: int
    current_stream: int

    def read(self, value: Any) -> DLTensor:
        """The tensor as the library describes it, for as long as it lives; raises NoPlan."""
        tensor = DLTensor()
        function = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(self.from_object)
        try:
            function(value, ctypes.addressof(tensor))
        except Exception:
            raise NoPlan from None
        return tensor


class _ExchangeApi(ctypes.Structure):
    """DLPackExchangeAPI."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("before", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("managed_from_object", ctypes.c_void_p),
        ("object_from_managed", ctypes.c_void_p),
        ("from_object", ctypes.c_void_p),
        ("current_stream", ctypes.c_void_p),
    )


def exchange_of(kind: type) -> Exchange | None:
    """The exchange API of PyTorch's tensors; None for other types, subclasses of theirs, and before PyTorch 2.10."""
    if kind.__module__.partition(".")[0] != "torch" or kind.__name__ not in ("Tensor", "Parameter"):
        return None
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    api = _ExchangeApi.from_address(capsule_pointer(capsule, b"dlpack_exchange_api"))
    if api.major != 1 or not api.from_object:
        return None
    return Exchange(api.from_object, api.current_stream)


def _common_exchange(arrays: Iterable[Any]) -> Exchange:
    found = {exchange_of(type(array)) for array in arrays}
    exchange = found.pop() if len(found) == 1 else None
    if exchange is None:
        raise NoPlan
    return exchange


def _device(tensor: DLTensor) -> int:
    """A DLDevice as one word."""
    return int(tensor.device.type) | int(tensor.device.index) << 32


_FLOAT = 2  # DLDataTypeCode


def _array(value: Any, tensor: DLTensor, exchange: Exchange, memory: Memory) -> list[int]:
    shape, strides = tensor.shape[: tensor.ndim], tensor.strides[: tensor.ndim]
    address = (tensor.data or 0) + tensor.byte_offset
    if not address:  # without elements
        raise NoPlan
    dtype = tensor.dtype
    return records.Argument.of(
        KIND=Kind.ARRAY,
        TYPE=id(type(value)),
        READ=exchange.from_object,
        DEVICE=_device(tensor),
        DTYPE=dtype.code | dtype.bits << 8 | dtype.lanes << 16,
        RESIDUE=address % ALIGNMENT,
        # Only views of complex numbers' imaginary parts are still to be negated.
        IS_NEG=memory.object(type(value).is_neg) if dtype.code == _FLOAT else 0,
        SHAPE=len(shape),
        SHAPE_AT=memory.numbers(shape),
        STRIDES_AT=memory.numbers(strides),
    )


_SCALARS: Mapping[str, tuple[Kind, type]] = {
    "f64": (Kind.DOUBLE, float), "f32": (Kind.SINGLE, float), "bool": (Kind.BOOL, bool),
    **dict.fromkeys(("i64", "i32", "i16", "i8", "u32", "u8"), (Kind.INTEGER, int)),
}  # fmt: skip


def _scalar(value: Any, dtype: DType | DTypeVar) -> list[int]:
    """Python's numbers, where `arguments.check_scalar` takes them as they are; for floats whole ones if this is one."""
    if not isinstance(dtype, DType) or dtype.name not in _SCALARS:
        raise NoPlan
    kind, type_ = _SCALARS[dtype.name]
    if kind is Kind.INTEGER:
        return records.Argument.of(KIND=kind, TYPE=id(type_), LOW=dtype.min, HIGH=dtype.max)
    return records.Argument.of(KIND=kind, TYPE=id(int if type_ is float and type(value) is int else type_))


def _map(argument: int, offset: int, map_: TensorMap, memory: Memory) -> list[int]:
    encoded = (ctypes.c_uint8 * (MAP_BYTES + MAP_ALIGN))()
    start = memory.place(encoded)
    sizes, strides, box, steps = (memory.place(part) for part in map_.lists)
    return records.Map.of(
        ARGUMENT=argument,
        OFFSET=offset,
        MAP_AT=start + -start % MAP_ALIGN,
        ELEMENT_TYPE=map_.element_type,
        RANK=len(map_.sizes),
        SIZES_AT=sizes,
        STRIDES_AT=strides,
        BOX_AT=box,
        STEPS_AT=steps,
        SWIZZLE=map_.swizzle,
    )
