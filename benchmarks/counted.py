"""Instructions of the f32 rows of benchmarks/cpu.py: our code for x86-64-v3, the peer's for AVX2, since valgrind knows no more.

Sizes are smaller than those that are timed, as valgrind takes its time: counts are for each product of two numbers, or for each
element where there are none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import callgrind

import mosaic_compile as mc
from mosaic_compile import kernels

_LOAD = """
import sys
from mosaic_compile.runtime.load import load_artifact
ours = load_artifact({folder!r})
"""


@dataclass(frozen=True)
class Counted:
    """A row. given: for mc.compile. arrays: makes NumPy arrays; call: of `ours`. peer: further set-up; peer_call: its call.

    numbers: products of two numbers, or elements, of a call.
    """

    kernel: Any
    given: Mapping[str, Any]
    arrays: str
    call: str
    peer: str
    peer_call: str
    numbers: int


def counted(row: Counted) -> tuple[float, float]:
    """Instructions for each number, ours and the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        mc.compile(row.kernel, "x86-64-v3", **row.given).save(Path(folder))
        ours = callgrind.instructions(row.arrays + _LOAD.format(folder=folder), row.call)
    peers = callgrind.instructions(row.arrays + row.peer, row.peer_call)
    return ours / row.numbers, peers / row.numbers


def _normal(*lines: str) -> str:
    drawn = "import numpy as np\nrandom = lambda *s: np.random.default_rng(0).standard_normal(s).astype(np.float32)\n"
    return drawn + "\n".join(lines) + "\n"


_TORCH = "import torch\nfrom torch.nn import functional as F\n"
_SQUARE = 512
_ROWS, _WIDTH = 64, 1024

COUNTED = {
    "matmul": Counted(
        kernels.matmul,
        dict(T="f32", U="f32", BM=256, BN=128, BK=256),
        _normal(*(f"{x} = random({_SQUARE}, {_SQUARE})" for x in "abc")),
        "ours(a, b, c)",
        "",
        "np.matmul(a, b, out=c)",
        _SQUARE**3,
    ),
    **{
        f"attention {d}": Counted(
            kernels.flash_attention,
            dict(E="f32", dims={"D": d}, BM=64, BN=64),
            _normal(*(f"{x} = random(1, 1, 512, {d})" for x in ("q", "k", "v", "out"))),
            f"ours(q, k, v, out, {d**-0.5})",
            _TORCH + "q, k, v = map(torch.from_numpy, (q, k, v))\n",
            "F.scaled_dot_product_attention(q, k, v)",
            2 * 512 * 512 * d,
        )
        for d in (64, 128)
    },
    "softmax": Counted(
        kernels.softmax,
        dict(T="f32", dims={"N": _WIDTH}, BM=1, BN=_WIDTH),
        _normal(f"x, out = random({_ROWS}, {_WIDTH}), random({_ROWS}, {_WIDTH})"),
        "ours(x, out)",
        _TORCH + "x = torch.from_numpy(x)\n",
        "torch.softmax(x, 1)",
        _ROWS * _WIDTH,
    ),
    "rms_norm": Counted(
        kernels.rms_norm,
        dict(T="f32", W="f32", dims={"N": _WIDTH}, BM=1, BN=_WIDTH),
        _normal(f"x, w, out = random({_ROWS}, {_WIDTH}), random({_WIDTH}), random({_ROWS}, {_WIDTH})"),
        "ours(x, w, out, 1e-5)",
        _TORCH + "x, w = map(torch.from_numpy, (x, w))\n",
        f"F.rms_norm(x, ({_WIDTH},), w, 1e-5)",
        _ROWS * _WIDTH,
    ),
    "rope": Counted(
        kernels.rope,
        dict(T="f32"),
        _normal(
            "x, out = random(64, 8, 128), random(64, 8, 128)", "cos, sin = random(64, 64), random(64, 64)"
        ),
        "ours(x, cos, sin, out)",
        _TORCH
        + "x, cos, sin = map(torch.from_numpy, (x, cos, sin))\n"
        + "cos, sin = (torch.cat((t, t), 1)[:, None] for t in (cos, sin))\n",
        "first, second = x.chunk(2, -1); x * cos + torch.cat((-second, first), -1) * sin",
        64 * 8 * 128,
    ),
}
