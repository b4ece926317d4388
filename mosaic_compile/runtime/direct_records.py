"""What the machine code of `direct_code` reads: records of 64-bit words.

A list in a record is two words: how many records it has, and its address.
"""

from __future__ import annotations

from enum import IntEnum, auto

MOST_ARGUMENTS, MOST_PARAMETERS, MOST_BYTES = 64, 64, 4096  # of a call, of a kernel, of its parameters


class Record(IntEnum):
    """The words of a record, numbered from 0."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:
        return count

    @classmethod
    def of(cls, **words: int) -> list[int]:
        """A record; words that are not named are 0."""
        assert words.keys() <= cls.__members__.keys()
        return [words.get(word.name, 0) for word in cls]


class Plan(Record):
    """What must be given, and what is launched.

    OWNER: the Python object that these records live as long as. POSITIONAL: how many arguments are given by place. NAMES: the
    names of the others, as addresses of Python objects. CURRENT_CONTEXT … LAUNCH: functions of the CUDA driver, and of the
    tensors' library. DEVICE: as DLPack has it, type and number. CONFIG: a CUlaunchConfig. BLOCK: the parameters' bytes, but for
    what STORES and MAPS put in. OFFSETS: where each parameter lies.
    """

    OWNER = auto()
    POSITIONAL, NAMES, NAMES_AT = auto(), auto(), auto()
    ARGUMENTS, ARGUMENTS_AT = auto(), auto()
    PAIRS, PAIRS_AT = auto(), auto()
    CURRENT_CONTEXT, CURRENT_STREAM, ENCODE, LAUNCH = auto(), auto(), auto(), auto()
    CONTEXT, DEVICE, FUNCTION, CONFIG = auto(), auto(), auto(), auto()
    BLOCK_BYTES, BLOCK_AT = auto(), auto()
    STORES, STORES_AT = auto(), auto()
    MAPS, MAPS_AT = auto(), auto()
    OFFSETS, OFFSETS_AT = auto(), auto()


class Kind(IntEnum):
    """What an argument is."""

    ARRAY, DOUBLE, SINGLE, INTEGER, BOOL, CONSTANT = range(6)


class Argument(Record):
    """What an argument must be: of a type, and

    a constant: this OBJECT, or equal to it. An integer: from LOW to HIGH. An array: as READ, the library's function, finds it.
    DEVICE, DTYPE: as DLPack has them. RESIDUE: of its address. IS_NEG: the method that says whether elements are still to be
    negated; 0 where they cannot be.
    """

    KIND, TYPE, OBJECT, LOW, HIGH = auto(), auto(), auto(), auto(), auto()
    READ, DEVICE, DTYPE, RESIDUE, IS_NEG = auto(), auto(), auto(), auto(), auto()
    SHAPE, SHAPE_AT, STRIDES_AT = auto(), auto(), auto()


class Pair(Record):
    """Two arrays that may not overlap, as `arguments.Pair` says it."""

    FIRST, OTHER, BELOW, ABOVE, ROW_BELOW, ROW_ABOVE, PERIOD = (auto() for _ in range(7))


class Store(Record):
    """An argument's address, or its value, among the parameters."""

    ARGUMENT, OFFSET, BYTES = auto(), auto(), auto()


class Map(Record):
    """An array's TMA descriptor among the parameters: MAP_AT, made for ADDRESS, made anew for another one."""

    ARGUMENT, OFFSET, ADDRESS, MAP_AT = auto(), auto(), auto(), auto()
    ELEMENT_TYPE, RANK, SIZES_AT, STRIDES_AT, BOX_AT, STEPS_AT, SWIZZLE = (auto() for _ in range(7))
