"""The machine code of `direct`: it checks a call's arguments and starts the kernel, without Python's interpreter.

    launch(table, arguments, count, names) -> True or False

is a function of Python's C interface (METH_FASTCALL | METH_KEYWORDS). A table is the number of its plans and their addresses;
a plan (`direct_records`) says what a call must look like, and what is handed to the CUDA driver if it does. False where no plan
fits, where the kernel's context is not the current one, and where the driver refuses: nothing has happened then, and Python
does it all again, with its errors.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir

from .arrays import DLTensor
from .cuda_launch import ENCODING, MAP_ALIGN, MAP_BYTES, LaunchAttribute, LaunchConfig
from .direct_records import (
    MOST_ARGUMENTS,
    MOST_BYTES,
    MOST_PARAMETERS,
    Argument,
    Kind,
    Map,
    Pair,
    Plan,
    Record,
    Store,
)

ENTRY = "launch"

_BYTE, _I32, _I64, _F32, _F64, _PTR, _BOOL = (
    ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType(), ir.PointerType(), ir.IntType(1),
)  # fmt: skip
_TYPE_OFFSET = object.__basicsize__ - struct.calcsize("P")  # of a Python object's type

# Functions of Python's C interface: result, parameters.
_PYTHON: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "PyErr_Clear": (ir.VoidType(), ()),
    "PyErr_Occurred": (_PTR, ()),
    "PyEval_RestoreThread": (ir.VoidType(), (_PTR,)),
    "PyEval_SaveThread": (_PTR, ()),
    "PyFloat_AsDouble": (_F64, (_PTR,)),
    "PyLong_AsLongLongAndOverflow": (_I64, (_PTR, _PTR)),
    "PyLong_AsVoidPtr": (_PTR, (_PTR,)),
    "PyObject_CallOneArg": (_PTR, (_PTR, _PTR)),
    "PyObject_RichCompareBool": (_I32, (_PTR, _PTR, _I32)),
    "PyTuple_GetItem": (_PTR, (_PTR, _I64)),
    "PyTuple_Size": (_I64, (_PTR,)),
    "Py_DecRef": (ir.VoidType(), (_PTR,)),
    "Py_IncRef": (ir.VoidType(), (_PTR,)),
}
_EQUAL = 2  # Py_EQ


def _constant(value: int, type_: Any = _I64) -> Any:
    return ir.Constant(type_, value)


class _Function(ir.IRBuilder):  # type: ignore[misc]
    """A function that is being written: it gives 1 where all that is demanded holds, and 0 at the first that does not."""

    def __init__(self, module: Any, name: str, parameters: tuple[Any, ...], result: Any = _BOOL):
        written = ir.Function(module, ir.FunctionType(result, parameters), name)
        written.linkage = "external" if name == ENTRY else "internal"
        super().__init__(written.append_basic_block("entry"))
        self.arguments = written.args

    @functools.cached_property
    def _no(self) -> Any:
        """Where the function ends that is refused something."""
        block = self.append_basic_block("no")
        with self.goto_block(block):
            self.ret(_constant(0, _BOOL))
        return block

    def demand(self, holds: Any) -> None:
        """Goes on where this is true."""
        on = self.append_basic_block("on")
        self.cbranch(holds, on, self._no)
        self.position_at_end(on)

    def demand_equal(self, left: Any, right: Any) -> None:
        self.demand(self.icmp_signed("==", left, right))

    def agree(self) -> Any:
        self.ret(_constant(1, _BOOL))
        return self.function

    def refuse(self) -> None:
        self.branch(self._no)

    def room(self, count: int, type_: Any = _I64, align: int = 8) -> Any:
        """Memory on the stack."""
        with self.goto_entry_block():
            place = self.alloca(ir.ArrayType(type_, count))
        place.align, place.type = align, _PTR
        return place

    def at(self, base: Any, index: Any, type_: Any = _I64) -> Any:
        """The address of the element of a list."""
        place = index if isinstance(index, ir.Value) else _constant(index)
        return self.gep(base, [place], source_etype=type_)

    def word(self, record: Any, index: Any, type_: Any = _I64) -> Any:
        """A word of a record or list."""
        return self.load(self.at(record, index), typ=type_)

    def field(self, structure: Any, field: Any, type_: Any) -> Any:
        """A field of a C structure, described by ctypes."""
        return self.load(self.at(structure, field.offset, _BYTE), typ=type_)

    def object_of(self, value: Any) -> Any:
        """A Python object that lives as long as the process."""
        return self.inttoptr(_constant(id(value)), _PTR)

    def call_at(self, address: Any, *arguments: Any) -> Any:
        """Calls the function at an address, which gives an error code."""
        address.type = ir.PointerType(ir.FunctionType(_I32, [a.type for a in arguments]))
        return self.call(address, arguments)

    def python(self, name: str, *arguments: Any) -> Any:
        """Calls a function of Python's C interface."""
        known = self.module.globals.get(name)
        return self.call(known or ir.Function(self.module, ir.FunctionType(*_PYTHON[name]), name), arguments)

    def copy(self, target: Any, source: Any, count: Any) -> None:
        """Copies bytes."""
        memcpy = self.module.declare_intrinsic("llvm.memcpy", [_PTR, _PTR, _I64])
        self.call(memcpy, [target, source, count, _constant(0, _BOOL)])

    @contextmanager
    def each(self, count: Any) -> Iterator[Any]:
        """For each index below the count."""
        place = self.room(1)
        self.store(_constant(0), place)
        head, body, end = (self.append_basic_block(name) for name in ("head", "body", "end"))
        self.branch(head)
        self.position_at_end(head)
        index = self.load(place, typ=_I64)
        self.cbranch(self.icmp_signed("<", index, count), body, end)
        self.position_at_end(body)
        yield index
        self.store(self.add(index, _constant(1)), place)
        self.branch(head)
        self.position_at_end(end)

    @contextmanager
    def each_record(self, plan: Any, count: Plan, words: type[Record]) -> Iterator[Any]:
        """For each record of one of a plan's lists."""
        records = self.word(plan, count + 1, _PTR)
        with self.each(self.word(plan, count)) as index:
            yield self.at(records, self.mul(index, _constant(len(words))))


def _names(module: Any) -> Any:
    """(plan, names): whether the call gives these arguments by name, in this order."""
    f = _Function(module, "names", (_PTR, _PTR))
    plan, names = f.arguments
    count = f.word(plan, Plan.NAMES)
    listed = f.word(plan, Plan.NAMES_AT, _PTR)
    some = f.icmp_signed("!=", f.ptrtoint(names, _I64), _constant(0))
    f.demand_equal(some, f.icmp_signed("!=", count, _constant(0)))
    with f.if_then(some):
        f.demand_equal(f.python("PyTuple_Size", names), count)
        with f.each(count) as i:
            name = f.python("PyTuple_GetItem", names, i)
            f.demand_equal(f.ptrtoint(name, _I64), f.word(listed, i))
    return f.agree()


def _array(module: Any) -> Any:
    """(record, object, place): whether a tensor is as the record says; its address is written to the place."""
    f = _Function(module, "array", (_PTR, _PTR, _PTR))
    record, value, place = f.arguments
    tensor = f.room(ctypes.sizeof(DLTensor), _BYTE)
    read = f.word(record, Argument.READ, _PTR)
    with f.if_then(f.icmp_signed("!=", f.call_at(read, value, tensor), _constant(0, _I32))):
        f.python("PyErr_Clear")
        f.refuse()
    f.demand_equal(f.field(tensor, DLTensor.device, _I64), f.word(record, Argument.DEVICE))
    f.demand_equal(f.field(tensor, DLTensor.dtype, _I32), f.trunc(f.word(record, Argument.DTYPE), _I32))
    rank = f.word(record, Argument.SHAPE)
    f.demand_equal(f.sext(f.field(tensor, DLTensor.ndim, _I32), _I64), rank)
    for found, wanted in ((DLTensor.shape, Argument.SHAPE_AT), (DLTensor.strides, Argument.STRIDES_AT)):
        numbers, expected = f.field(tensor, found, _PTR), f.word(record, wanted, _PTR)
        with f.each(rank) as axis:
            f.demand_equal(f.word(numbers, axis), f.word(expected, axis))
    address = f.add(f.field(tensor, DLTensor.data, _I64), f.field(tensor, DLTensor.byte_offset, _I64))
    f.demand(f.icmp_signed("!=", address, _constant(0)))
    f.demand_equal(f.and_(address, _constant(15)), f.word(record, Argument.RESIDUE))
    is_neg = f.word(record, Argument.IS_NEG, _PTR)
    with f.if_then(f.icmp_signed("!=", f.ptrtoint(is_neg, _I64), _constant(0))):
        answer = f.python("PyObject_CallOneArg", is_neg, value)
        with f.if_then(f.icmp_signed("==", f.ptrtoint(answer, _I64), _constant(0))):
            f.python("PyErr_Clear")
            f.refuse()
        f.python("Py_DecRef", answer)
        f.demand_equal(answer, f.object_of(False))
    f.store(address, place)
    return f.agree()


def _constant_like(module: Any) -> Any:
    """(record, object): whether it is the constant, or equal to it and of its type."""
    f = _Function(module, "constant", (_PTR, _PTR))
    record, value = f.arguments
    wanted = f.word(record, Argument.OBJECT, _PTR)
    with f.if_then(f.icmp_signed("!=", f.ptrtoint(value, _I64), f.ptrtoint(wanted, _I64))):
        f.demand_equal(_type_of(f, value), f.word(record, Argument.TYPE))
        equal = f.python("PyObject_RichCompareBool", value, wanted, _constant(_EQUAL, _I32))
        with f.if_then(f.icmp_signed("<", equal, _constant(0, _I32))):
            f.python("PyErr_Clear")
        f.demand_equal(equal, _constant(1, _I32))
    return f.agree()


def _type_of(f: Any, value: Any) -> Any:
    return f.load(f.at(value, _TYPE_OFFSET, _BYTE), typ=_I64)


def _scalar(module: Any) -> Any:
    """(record, object, place): whether a number is of the record's type and in its bounds; its bits go to the place."""
    f = _Function(module, "scalar", (_PTR, _PTR, _PTR))
    record, value, place = f.arguments
    kind = f.word(record, Argument.KIND)
    with f.if_then(f.icmp_signed("==", kind, _constant(Kind.INTEGER))):
        overflow = f.room(1, _I32)
        number = f.python("PyLong_AsLongLongAndOverflow", value, overflow)
        f.demand_equal(f.load(overflow, typ=_I32), _constant(0, _I32))
        f.demand(f.icmp_signed(">=", number, f.word(record, Argument.LOW)))
        f.demand(f.icmp_signed("<=", number, f.word(record, Argument.HIGH)))
        f.store(number, place)
    with f.if_then(f.icmp_signed("==", kind, _constant(Kind.BOOL))):
        true = f.icmp_signed("==", f.ptrtoint(value, _I64), _constant(id(True)))
        f.store(f.zext(true, _I64), place)
    for floats, type_ in ((Kind.DOUBLE, _F64), (Kind.SINGLE, _F32)):
        with f.if_then(f.icmp_signed("==", kind, _constant(floats))):
            number = f.python("PyFloat_AsDouble", value)
            with f.if_then(f.icmp_signed("!=", f.ptrtoint(f.python("PyErr_Occurred"), _I64), _constant(0))):
                f.python("PyErr_Clear")  # an integer beyond all f64
                f.refuse()
            # Numbers beyond the largest f32 become infinity, as IEEE 754 rounds them.
            f.store(number if type_ is _F64 else f.fptrunc(number, type_), place)
    return f.agree()


def _read(module: Any) -> Any:
    """(plan, arguments, values): whether all arguments are as the plan says; values gets their addresses and bits."""
    array, scalar, constant = _array(module), _scalar(module), _constant_like(module)
    f = _Function(module, "read", (_PTR, _PTR, _PTR))
    plan, arguments, values = f.arguments
    records = f.word(plan, Plan.ARGUMENTS_AT, _PTR)
    with f.each(f.word(plan, Plan.ARGUMENTS)) as i:
        record, value, place = (
            f.at(records, f.mul(i, _constant(len(Argument)))),
            f.word(arguments, i, _PTR),
            f.at(values, i),
        )
        is_constant = f.icmp_signed("==", f.word(record, Argument.KIND), _constant(Kind.CONSTANT))
        with f.if_else(is_constant) as (then, otherwise):
            with then:
                f.demand(f.call(constant, [record, value]))
            with otherwise:
                f.demand_equal(_type_of(f, value), f.word(record, Argument.TYPE))
                is_array = f.icmp_signed("==", f.word(record, Argument.KIND), _constant(Kind.ARRAY))
                with f.if_else(is_array) as (for_array, for_scalar):
                    with for_array:
                        f.demand(f.call(array, [record, value, place]))
                    with for_scalar:
                        f.demand(f.call(scalar, [record, value, place]))
    return f.agree()


def _apart(module: Any) -> Any:
    """(plan, values): whether no array that is written overlaps another, as `arguments.check_apart`."""
    f = _Function(module, "apart", (_PTR, _PTR))
    plan, values = f.arguments
    with f.each_record(plan, Plan.PAIRS, Pair) as pair:
        first, other = (f.word(values, f.word(pair, which)) for which in (Pair.FIRST, Pair.OTHER))
        distance = f.sub(other, first)
        after = f.icmp_signed(">", distance, f.word(pair, Pair.BELOW))
        before = f.icmp_signed("<", distance, f.word(pair, Pair.ABOVE))
        with f.if_then(f.and_(after, before)):
            period, start = f.word(pair, Pair.PERIOD), f.add(f.word(pair, Pair.ROW_BELOW), _constant(1))
            f.demand(f.icmp_signed("!=", period, _constant(0)))
            rest = f.srem(f.sub(distance, start), period)
            negative = f.icmp_signed("<", rest, _constant(0))
            rest = f.add(rest, f.select(negative, period, _constant(0)))
            f.demand(f.icmp_signed(">=", f.add(start, rest), f.word(pair, Pair.ROW_ABOVE)))
    return f.agree()


def _fill(module: Any) -> Any:
    """(plan, values, block): writes the parameters; whether the driver makes the TMA descriptors."""
    f = _Function(module, "fill", (_PTR, _PTR, _PTR))
    plan, values, block = f.arguments
    f.copy(block, f.word(plan, Plan.BLOCK_AT, _PTR), f.word(plan, Plan.BLOCK_BYTES))
    with f.each_record(plan, Plan.STORES, Store) as store:
        value = f.at(values, f.word(store, Store.ARGUMENT))  # little-endian: its low bytes come first
        f.copy(f.at(block, f.word(store, Store.OFFSET), _BYTE), value, f.word(store, Store.BYTES))
    with f.each_record(plan, Plan.MAPS, Map) as map_:
        address, encoded = f.word(values, f.word(map_, Map.ARGUMENT)), f.word(map_, Map.MAP_AT, _PTR)
        with f.if_then(f.icmp_signed("!=", address, f.word(map_, Map.ADDRESS))):
            f.store(_constant(0), f.at(map_, Map.ADDRESS))
            interleave, swizzle, promotion, fill = (
                _constant(ENCODING.interleave, _I32), f.trunc(f.word(map_, Map.SWIZZLE), _I32),
                _constant(ENCODING.l2_promotion, _I32), _constant(ENCODING.fill, _I32),
            )  # fmt: skip
            result = f.call_at(
                f.word(plan, Plan.ENCODE, _PTR), encoded,
                *(f.trunc(f.word(map_, word), _I32) for word in (Map.ELEMENT_TYPE, Map.RANK)),
                address, *(f.word(map_, word) for word in (Map.SIZES_AT, Map.STRIDES_AT, Map.BOX_AT, Map.STEPS_AT)),
                interleave, swizzle, promotion, fill,
            )  # fmt: skip
            f.demand_equal(result, _constant(0, _I32))
            f.store(address, f.at(map_, Map.ADDRESS))
        f.copy(f.at(block, f.word(map_, Map.OFFSET), _BYTE), encoded, _constant(MAP_BYTES))
    return f.agree()


def _start(module: Any) -> Any:
    """(plan, arguments, count, names): whether the plan fits the call, and its kernel is started."""
    same_names, read, apart, fill = _names(module), _read(module), _apart(module), _fill(module)
    f = _Function(module, "start", (_PTR, _PTR, _I64, _PTR))
    plan, arguments, count, names = f.arguments
    f.demand_equal(count, f.word(plan, Plan.POSITIONAL))
    f.demand(f.call(same_names, [plan, names]))
    values = f.room(MOST_ARGUMENTS)
    f.demand(f.call(read, [plan, arguments, values]))
    f.demand(f.call(apart, [plan, values]))

    current, stream = f.room(1, _PTR), f.room(1, _PTR)
    f.demand_equal(f.call_at(f.word(plan, Plan.CURRENT_CONTEXT, _PTR), current), _constant(0, _I32))
    f.demand_equal(f.load(current, typ=_I64), f.word(plan, Plan.CONTEXT))
    device = f.word(plan, Plan.DEVICE)
    kind, number = f.trunc(device, _I32), f.trunc(f.lshr(device, _constant(32)), _I32)
    asked = f.call_at(f.word(plan, Plan.CURRENT_STREAM, _PTR), kind, number, stream)
    with f.if_then(f.icmp_signed("!=", asked, _constant(0, _I32))):
        f.python("PyErr_Clear")
        f.refuse()

    block = f.room(MOST_BYTES, _BYTE, MAP_ALIGN)
    f.demand(f.call(fill, [plan, values, block]))
    parameters, offsets = f.room(MOST_PARAMETERS, _PTR), f.word(plan, Plan.OFFSETS_AT, _PTR)
    with f.each(f.word(plan, Plan.OFFSETS)) as i:
        f.store(f.at(block, f.word(offsets, i), _BYTE), f.at(parameters, i))

    # Other threads may launch by this plan at the same time: each stream stands in a copy.
    config = f.room(ctypes.sizeof(LaunchConfig), _BYTE)
    f.copy(config, f.word(plan, Plan.CONFIG, _PTR), _constant(ctypes.sizeof(LaunchConfig)))
    f.store(f.load(stream, typ=_PTR), f.at(config, LaunchConfig.stream.offset, _BYTE))
    count = f.field(config, LaunchConfig.attribute_count, _I32)
    with f.if_then(f.icmp_signed("!=", count, _constant(0, _I32))):
        attribute = f.room(ctypes.sizeof(LaunchAttribute), _BYTE)
        given = f.field(config, LaunchConfig.attributes, _PTR)
        f.copy(attribute, given, _constant(ctypes.sizeof(LaunchAttribute)))
        f.store(attribute, f.at(config, LaunchConfig.attributes.offset, _BYTE))
    launch, function = f.word(plan, Plan.LAUNCH, _PTR), f.word(plan, Plan.FUNCTION, _PTR)
    thread = f.python("PyEval_SaveThread")
    result = f.call_at(launch, config, function, parameters, f.inttoptr(_constant(0), _PTR))
    f.python("PyEval_RestoreThread", thread)
    f.demand_equal(result, _constant(0, _I32))
    return f.agree()


def _first(module: Any) -> Any:
    """(table, arguments, count, names): whether one of the plans starts a kernel."""
    start = _start(module)
    f = _Function(module, "first", (_PTR, _PTR, _I64, _PTR))
    table, *given = f.arguments
    with f.each(f.word(table, 0)) as i:
        plan = f.word(f.at(table, 1), i, _PTR)
        owner = f.word(plan, Plan.OWNER, _PTR)
        f.python("Py_IncRef", owner)  # is_neg and the launch let other threads run, which may drop the plan
        started = f.call(start, [plan, *given])
        f.python("Py_DecRef", owner)
        with f.if_then(started):
            f.ret(_constant(1, _BOOL))
    f.refuse()
    return f.function


def _launch(module: Any) -> None:
    """(table, arguments, count, names): what Python calls; the table's address is a Python number."""
    first = _first(module)
    f = _Function(module, ENTRY, (_PTR, _PTR, _I64, _PTR), _PTR)
    table, *given = f.arguments
    started = f.call(first, [f.python("PyLong_AsVoidPtr", table), *given])
    answer = f.select(started, f.object_of(True), f.object_of(False))
    f.python("Py_IncRef", answer)
    f.ret(answer)


@functools.cache
def _code() -> Any:
    """The loaded machine code, which takes some 20 ms to make."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = ir.Module("direct")
    module.triple = binding.get_process_triple()
    _launch(module)
    builder = binding.JITLibraryBuilder().add_ir(str(module)).export_symbol(ENTRY)
    for name in _PYTHON:
        address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        builder.import_symbol(name, address)
    return builder.link(binding.create_lljit_compiler(), "direct")


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL, _KEYWORDS = 0x80, 0x02  # METH_FASTCALL, METH_KEYWORDS


@functools.cache
def _method() -> _Method:
    return _Method(b"launch", _code()[ENTRY], _FASTCALL | _KEYWORDS, None)


def launcher(table: int, owner: object) -> Callable[..., bool]:
    """The function that launches by the table at this address. It keeps the owner alive, to which the table belongs."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes, make.restype = (ctypes.c_void_p, ctypes.py_object, ctypes.py_object), ctypes.py_object
    function: Callable[..., bool] = make(ctypes.addressof(_method()), table, owner)
    return function
