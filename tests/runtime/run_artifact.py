"""Run as a process of its own: loads an artifact for a GPU, calls it, and prints what the driver saw and what was imported."""

import json
import sys

import mosaic_compile as mc
from runtime.fake_cuda import FakeDriver

folder, major, minor, parameters = sys.argv[1], *map(int, sys.argv[2:5])
driver = FakeDriver((major, minor)).install()
driver.parameters = parameters


class Array:
    def __init__(self, address: int, shape: tuple[int, ...]):
        self.__cuda_array_interface__ = {
            "typestr": sys.argv[5], "shape": shape, "data": (address, False), "version": 3
        }  # fmt: skip


kernel = mc.load(folder)
shapes = [tuple(shape) for shape in json.loads(sys.argv[6])]
for _ in range(2):
    kernel(*(Array(0x10_0000 * (n + 1), shape) for n, shape in enumerate(shapes)))
seen = [[done.grid, [int.from_bytes(v, "little") for v in done.values]] for done in driver.launches]
print(json.dumps([seen, sorted(sys.modules), str(kernel)]))
