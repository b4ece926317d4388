"""Every operation, operator and method of the language is tested in this folder."""

from __future__ import annotations

import importlib
import pathlib

import mosaic_compile as mc
from mosaic_compile import api
from mosaic_compile.language.op import OPS
from mosaic_compile.language.tile import Array, Tile

from .registry import CHECKED

# Python's protocol, with nothing to compute: errors for what a tile is not, and how it prints.
PROTOCOL = {
    "__array_ufunc__",
    "__bool__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__delattr__",
    "__doc__",
    "__float__",
    "__hash__",
    "__index__",
    "__init__",
    "__int__",
    "__iter__",
    "__len__",
    "__match_args__",
    "__module__",
    "__annotations__",
    "__repr__",
    "__replace__",
    "__setattr__",
    "__slots__",
    "__dict__",
    "__weakref__",
    "value",
}


def members(kind: type) -> set[str]:
    return {f"{kind.__name__}.{name}" for name in vars(kind).keys() - PROTOCOL}


def test_everything_is_checked():
    for file in pathlib.Path(__file__).parent.glob("test_*.py"):
        if file.stem != "test_registry":
            importlib.import_module(f".{file.stem}", __package__)
    public = {f"mc.{name}" for name, f in vars(api).items() if getattr(f, "__mosaic_op__", False)}
    public -= {f"mc.{name}" for name, op in OPS.items() if getattr(mc, name, None) is op.function}
    # An array's operators only say that it is no tile; its data are the fields of a parameter.
    array = {f"Array.{name}" for name in ("T", "permute", "__getitem__", "shape", "ndim", "dtype")}
    assert array <= {f"Array.{name}" for name in (*vars(Array), *Array.__annotations__)}
    wanted = OPS.keys() | public | members(Tile) | array
    assert wanted - CHECKED == set()
    assert CHECKED - wanted == set()
