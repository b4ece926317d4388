"""Calls like one before: what decides how a call is prepared, without looking at more of it.

A call's form has the types, shapes, strides, devices and the alignment of its arrays, and its constants. Preparations are kept by
form; addresses and scalars are filled in for each call.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.dtypes import i4
from mosaic_compile.language.specialization import ALIGNMENT, OPTIONS

from . import streams, threads
from .arguments import Bound, check_scalar
from .arrays import NUMPY, TORCH, describe, library_of

REMEMBERED = 4096  # calls whose preparation is kept

_ARRAY, _SCALAR, _CONSTANT = "array", "scalar", "constant"


@functools.cache
def _parameters(
    kernel: Any,
) -> tuple[tuple[tuple[str, str, Any], ...], Mapping[str, tuple[str, str, Any]]]:
    kinds = {ArrayParam: _ARRAY, ScalarParam: _SCALAR, ConstParam: _CONSTANT}
    listed = tuple((p.name, kinds[type(p)], p) for p in kernel.signature.params)
    by_name = {p[0]: p for p in listed} | {name: (name, _CONSTANT, None) for name in OPTIONS}
    return listed, by_name


class CloserLook(Exception):
    """What a form does not say: arrays that are packed first, and mistakes."""


# What an array's place in the form is: its address, and what decides the preparation.

Part = tuple[Hashable, ...]


def _read_torch(value: Any) -> tuple[int, Part]:
    address = value.data_ptr()
    if not address and value.numel():  # its memory is given back
        raise CloserLook
    return address, (
        address % ALIGNMENT,
        value.shape,
        value.stride(),
        value.dtype,
        value.get_device(),  # -1 for the host; of GPUs a process has one kind
        value.is_neg(),
    )


def _read_numpy(value: Any) -> tuple[int, Part]:
    if value.dtype == i4.numpy:
        raise CloserLook
    address = value.__array_interface__["data"][0]
    return address, (address % ALIGNMENT, value.shape, value.strides, value.dtype, value.flags.writeable)


Reader = Callable[[Any], tuple[int, Part]]
_readers: dict[type, Reader | None] = {}


def reader_of(value: Any) -> Reader | None:
    """What reads arrays of this type; None for those of other libraries than NumPy and PyTorch, and subclasses of theirs."""
    kind = type(value)
    if kind not in _readers:
        library = library_of(value)
        own = kind.__module__.partition(".")[0] == library and kind.__name__ in (
            "ndarray",
            "Tensor",
            "Parameter",
        )
        _readers[kind] = {NUMPY: _read_numpy, TORCH: _read_torch}[library] if own else None
    return _readers[kind]


@dataclass(slots=True)
class Form:
    """key: what decides how a call is prepared; addresses, scalars: what does not.

    streams: CUDA streams that compute arrays, where arrays say so. owners: what keeps arrays of other libraries alive.
    """

    key: tuple[Hashable, ...]
    addresses: dict[str, int]
    scalars: dict[str, Any]
    streams: Sequence[int]
    owners: Sequence[Any]


def form_of(kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Form | None:
    """A call's form; None where that takes a closer look.

    kernel: what has the signature of one.
    """
    listed, by_name = _parameters(kernel)
    if len(args) > len(listed):
        return None
    given: Iterable[tuple[tuple[str, str, Any], Any]] = zip(listed, args)
    key: list[Any] = [kernel, threads.get_num_threads()]
    if kwargs:
        if not kwargs.keys() <= by_name.keys():
            return None
        given = itertools.chain(given, ((by_name[name], value) for name, value in kwargs.items()))
        key.append((len(args), *kwargs))
    addresses: dict[str, int] = {}
    scalars: dict[str, Any] = {}
    producers: Sequence[int] = ()
    owners: Sequence[Any] = ()
    try:
        for (name, kind, declared), value in given:
            if kind is _ARRAY:
                read = _readers.get(type(value)) or reader_of(value)
                if read is not None:
                    addresses[name], part = read(value)
                    key.append(part)
                elif value is None:
                    key.append(None)
                else:
                    info = describe(value, name)
                    addresses[name] = info.address
                    key += (info.address % ALIGNMENT, info.shape, info.strides, info.dtype.name)
                    key += (info.device, info.device_index, info.writable)
                    owners = (*owners, info.owner)
                    if info.stream is not None:
                        producers = (*producers, info.stream)
            elif kind is _SCALAR:
                scalars[name] = check_scalar(declared, value)
                key.append(_SCALAR)
            else:
                key += (type(value), value)
    except (CloserLook, ArgumentError, RuntimeError, AttributeError):
        return None
    return Form(tuple(key), addresses, scalars, producers, owners)


_prepared: dict[Hashable, Any] = {}


def forget() -> None:
    """Lets the next call of each form be prepared anew."""
    _prepared.clear()


def prepared_for(form: Form) -> Any:
    """The preparation of a call like one before; None where there was none."""
    try:
        return _prepared.get(form.key)
    except TypeError:  # a constant that cannot be hashed
        return None


def run(prepared: Any, form: Form) -> None:
    """Runs a preparation on the arrays of a call; raises ArgumentError and LaunchError."""
    if not form.streams:
        prepared.run(form.addresses, form.scalars)
        return
    with streams.meeting(form.streams, prepared.launcher.device) as stream:
        prepared.run(form.addresses, form.scalars, stream)


def run_bound(prepared: Any, bound: Bound, form: Form | None = None) -> None:
    """Runs a preparation on a call's arguments, and keeps it for calls of that form."""
    if form is not None:
        if len(_prepared) >= REMEMBERED:
            _prepared.clear()
        with suppress(TypeError):  # a constant that cannot be hashed
            _prepared[form.key] = prepared
    run(prepared, of_bound(bound))


def of_bound(bound: Bound) -> Form:
    """A form that only runs: without a key."""
    infos = bound.arrays
    addresses = {name: info.address for name, info in infos.items()}
    producers = [info.stream for info in infos.values() if info.stream is not None]
    return Form((), addresses, dict(bound.scalars), producers, [info.owner for info in infos.values()])
