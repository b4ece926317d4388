"""What benchmarks/gpu.py measures: shapes, our kernels, their peers, and the error of our results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mosaic_compile import kernels
from mosaic_compile.kernels.paged_attention import number_of_splits

Set = Sequence[Tensor]  # the arrays of a call; the last one is where the result goes
Call = Callable[[Set], Any]
EPS = 1e-5


@dataclass(frozen=True)
class Row:
    """One measurement. bytes: the fewest that must be moved. goals: what to reach, as ratios to peers or to the copy.

    ours: tunes and compiles for a set, and gives a call and the constants that were chosen. error: of a part of the
    result, relative to float64. pallas: arguments for gpu_pallas.py, where it has this row.
    """

    group: str
    name: str
    flops: float
    bytes: float
    inputs: Callable[[], Set]
    ours: Callable[[Set], tuple[Call, str]]
    peers: dict[str, Call]
    goals: dict[str, float]
    error: Callable[[Set], float]
    pallas: dict[str, Any] = field(default_factory=dict)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * scale


def result(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Poisoned: what is not written shows."""
    return torch.full(shape, float("nan"), device="cuda", dtype=dtype)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def tuned(kernel: Any, *arguments: Any, **constants: Any) -> tuple[Callable[..., None], str]:
    """The kernel with the fastest of its candidates for these arguments, and their constants."""
    kernel.autotune(*arguments, progress=False, **constants)
    run = kernel.compile(*arguments, **constants)
    shown = {k: v for k, v in run.constants.items() if any(k in c for c in kernel.tune["gpu"])}
    return run, f"{kernel.name} " + " ".join(f"{k}={v}" for k, v in shown.items())


def simple(kernel: Any, *scalars: Any, **constants: Any) -> Callable[[Set], tuple[Call, str]]:
    """Ours, for a kernel whose arguments are the set's arrays and then scalars."""

    def ours(s: Set) -> tuple[Call, str]:
        run, chosen = tuned(kernel, *s, *scalars, **constants)
        return lambda s: run(*s, *scalars), chosen

    return ours


@cache
def inductor(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function through torch.compile, which tries what Triton templates it has; cuBLAS is left out."""
    options = {"max_autotune": True, "max_autotune_gemm_backends": "TRITON", "triton.cudagraphs": False}
    return torch.compile(function, options=options, dynamic=False, fullgraph=True)


# Products


def product(n: int) -> Row:
    return Row(
        group="matmul",
        name=f"{n}³",
        flops=2 * n**3,
        bytes=3 * 2 * n * n,
        inputs=lambda: (normal(n, n), normal(n, n), result(n, n)),
        ours=simple(kernels.persistent_matmul),
        peers={
            "cuBLAS": lambda s: torch.mm(s[0], s[1], out=s[2]),
            "Inductor": lambda s: inductor(torch.mm)(s[0], s[1]),
        },
        goals={"cuBLAS": 0.92, "Inductor": 1.0},
        error=lambda s: relative(s[2][:64], s[0][:64].double() @ s[1].double()),
        pallas=dict(kind="matmul", n=n),
    )


def few_rows(m: int, n: int, k: int) -> Row:
    return Row(
        group="linear",
        name=f"{m} x {k} by {k} x {n}",
        flops=2 * m * n * k,
        bytes=2 * (m * k + n * k + m * n),
        inputs=lambda: (normal(m, k), normal(n, k), result(m, n)),
        ours=simple(kernels.linear),
        peers={"cuBLAS": lambda s: F.linear(s[0], s[1])},
        goals={"cuBLAS": 1.0},
        error=lambda s: relative(s[2][:, :256], s[0].double() @ s[1][:256].double().T),
    )


# Attention


def scores_softmax(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """One head of attention in float64."""
    scores = q.double() @ k.double().T / math.sqrt(q.shape[1])
    if causal:
        rows, keys = torch.arange(len(q), device="cuda")[:, None], torch.arange(len(k), device="cuda")
        scores = scores.masked_fill(keys > rows + len(k) - len(q), -math.inf)
    return scores.softmax(1) @ v.double()


def sdpa(backend: SDPBackend, causal: bool) -> Call:
    def run(s: Set) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(s[0], s[1], s[2], is_causal=causal)

    return run


@cache
def flex(causal: bool, S: int) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, S, S, device="cuda") if causal else None
    return partial(torch.compile(flex_attention, dynamic=False), block_mask=mask)


def attention(B: int, H: int, S: int, D: int, causal: bool) -> Row:
    return Row(
        group="attention",
        name=f"B={B} H={H} S={S} D={D}" + (" causal" if causal else ""),
        flops=4 * B * H * S * S * D / (2 if causal else 1),
        bytes=4 * 2 * B * H * S * D,
        inputs=lambda: (*(normal(B, H, S, D) for _ in range(3)), result(B, H, S, D)),
        ours=simple(kernels.flash_attention, D**-0.5, causal=causal),
        peers={
            "cuDNN": sdpa(SDPBackend.CUDNN_ATTENTION, causal),
            "flash": sdpa(SDPBackend.FLASH_ATTENTION, causal),
            "flex": lambda s: flex(causal, S)(s[0], s[1], s[2]),
        },
        goals={"flex": 1.0, "cuDNN": 0.75} if D == 128 else {},
        error=lambda s: relative(s[3][-1, -1], scores_softmax(*(x[-1, -1] for x in s[:3]), causal)),
        pallas=dict(kind="attention", B=B, H=H, S=S, D=D, causal=causal),
    )


def decode(B: int, HK: int, G: int, S: int, page: int, D: int = 128) -> Row:
    """One new token for each of B sequences of S tokens, whose pages lie in any order."""
    pages = B * S // page

    def inputs() -> Set:
        table = torch.randperm(pages, device="cuda").to(torch.int32).view(B, -1)
        lengths = torch.full((B,), S, dtype=torch.int32, device="cuda")
        caches = (normal(pages, page, HK, D), normal(pages, page, HK, D))
        return (normal(B, HK, G, D), *caches, table, lengths, result(B, HK, G, D))

    def ours(s: Set) -> tuple[Call, str]:
        splits = number_of_splits(B, HK, S, torch.cuda.get_device_properties(0).multi_processor_count)
        if splits == 1:
            run, chosen = tuned(kernels.paged_attention, *s[:5], s[5][None], D**-0.5)
            return lambda s: run(*s[:5], s[5][None], D**-0.5), chosen
        parts = result(splits, B, HK, G, D, dtype=torch.float32)
        lses = result(splits, B, HK, G, dtype=torch.float32)
        run, chosen = tuned(kernels.paged_attention, *s[:5], parts, D**-0.5, lses)
        flat = (parts.view(splits, -1, D), lses.view(splits, -1))
        merge, _ = tuned(kernels.merge_attention, *flat, s[5].view(-1, D))

        def both(s: Set) -> None:
            run(*s[:5], parts, D**-0.5, lses)
            merge(*flat, s[5].view(-1, D))

        return both, f"{chosen} splits={splits}"

    def error(s: Set) -> float:
        q, k_cache, v_cache, table, _, out = s
        k, v = (cache[table[-1].long()].flatten(0, 1)[:, -1] for cache in (k_cache, v_cache))
        return relative(out[-1, -1], scores_softmax(q[-1, -1], k, v, causal=False))

    return Row(
        group="decode",
        name=f"B={B} heads={HK * G}/{HK} S={S} D={D} pages of {page}",
        flops=4 * B * HK * G * S * D,
        bytes=2 * (2 * B * S * HK * D + 2 * B * HK * G * D),
        inputs=inputs,
        ours=ours,
        peers={},
        goals={"copy": 0.9},
        error=error,
    )


# Rows


def rowwise(
    name: str,
    inputs: Callable[[], Set],
    ours: Callable[[Set], tuple[Call, str]],
    eager: Callable[..., Tensor],
    moved: float,
    goal: float | None,
) -> Row:
    def error(s: Set) -> float:
        expected = eager(*(x.double() if x.is_floating_point() else x for x in s[:-1]))
        return relative(s[-1][:512], expected[:512])

    return Row(
        group="rows",
        name=name,
        flops=0.0,
        bytes=moved,
        inputs=inputs,
        ours=ours,
        peers={"eager": lambda s: eager(*s[:-1]), "Inductor": lambda s: inductor(eager)(*s[:-1])},
        goals={} if goal is None else {"copy": goal},
        error=error,
    )


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, EPS)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, EPS)


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, 1)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.to(cos.dtype).chunk(2, 2)
    c, s = cos[:, None], sin[:, None]
    return torch.cat((a * c - b * s, a * s + b * c), 2).to(x.dtype)


def cumsum(x: Tensor) -> Tensor:
    return x.cumsum(1)


def embedding(table: Tensor, indices: Tensor) -> Tensor:
    return F.embedding(indices, table)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="none"
    )


def rows(M: int, N: int) -> list[Row]:
    H, D, V = N // 128, 128, 128_256
    few = 4096  # rows of logits, one for each word of a vocabulary

    def tables() -> Set:
        angles = torch.rand(M, D // 2, device="cuda") * 6.28
        return normal(M, H, D), angles.cos(), angles.sin(), result(M, H, D)

    def logits() -> Set:
        return normal(few, V), torch.randint(V, (few,), device="cuda"), result(few, dtype=torch.float32)

    def with_bias(s: Set) -> tuple[Call, str]:
        run, chosen = tuned(kernels.layer_norm, s[0], s[1], s[3], EPS, s[2])
        return lambda s: run(s[0], s[1], s[3], EPS, s[2]), chosen

    array = 2 * M * N
    size = f"{M} x {N}"
    norm = (lambda: (normal(M, N), normal(N), result(M, N)), simple(kernels.rms_norm, EPS))
    with_shift = (lambda: (normal(M, N), normal(N), normal(N), result(M, N)), with_bias)
    probabilities = (lambda: (normal(M, N), result(M, N)), simple(kernels.softmax))
    halves = (lambda: (normal(M, N), normal(M, N), result(M, N)), simple(kernels.gated))
    sums = (lambda: (normal(M, N), result(M, N)), simple(kernels.cumsum))
    lookup = (
        lambda: (normal(V, N), torch.randint(V, (M,), device="cuda"), result(M, N)),
        simple(kernels.gather_rows),
    )
    return [
        rowwise(f"RMSNorm {size}", *norm, rms_norm, 2 * array, 0.9),
        rowwise(f"LayerNorm {size}", *with_shift, layer_norm, 2 * array, None),
        rowwise(f"softmax {size}", *probabilities, softmax, 2 * array, 0.9),
        rowwise(f"RoPE {M} x {H} x {D}", tables, simple(kernels.rope), rope, 2 * array + 4 * M * D, 0.9),
        rowwise(f"SwiGLU {size}", *halves, swiglu, 3 * array, None),
        rowwise(f"running sums {size}", *sums, cumsum, 2 * array, None),
        rowwise(f"embedding {M} of {V} x {N}", *lookup, embedding, 2 * array, None),
        rowwise(
            f"cross-entropy {few} x {V}",
            logits,
            simple(kernels.cross_entropy),
            cross_entropy,
            2 * few * V,
            None,
        ),
    ]


# Outputs and inputs of the projections of Llama 3 8B and 70B: attention's inputs together, its output, the two halves
# of the gated unit together, and what follows it.
LLAMA_8B = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
LLAMA_70B = [(10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672)]

GROUPS: dict[str, Callable[[], list[Row]]] = {
    "matmul": lambda: [product(4096), product(8192)],
    "square": lambda: [few_rows(m, 8192, 8192) for m in (1, 2, 4, 8, 16, 32, 64, 128)],
    "linear": lambda: [few_rows(m, n, k) for n, k in LLAMA_8B + LLAMA_70B for m in (1, 8, 32, 64, 128)],
    "attention": lambda: [
        attention(B, 16, S, D, causal)
        for B, S, D in ((4, 4096, 128), (2, 8192, 128), (1, 16384, 128), (4, 4096, 64))
        for causal in (False, True)
    ],
    "decode": lambda: [
        decode(B, 8, G, S, page)
        for B, G, S, page in ((64, 4, 4096, 64), (64, 4, 4096, 16), (16, 8, 8192, 64), (1, 4, 131072, 64))
    ],
    "rows": lambda: rows(32768, 4096),
}
