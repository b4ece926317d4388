"""The matmul of compile_time.py in Triton: descriptors passed from the host, as our compiler passes them."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m, n = tl.program_id(0), tl.program_id(1)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(tl.cdiv(K, BK)):
        acc = tl.dot(a.load([m * BM, k * BK]), b.load([k * BK, n * BN]), acc)
    c.store([m * BM, n * BN], acc.to(tl.bfloat16))


def main() -> None:
    constants = {"BM": 128, "BN": 256, "BK": 64}
    signature = {
        "a": "tensordesc<bf16[128,64]>",
        "b": "tensordesc<bf16[64,256]>",
        "c": "tensordesc<bf16[128,256]>",
        "M": "i32",
        "N": "i32",
        "K": "i32",
        **dict.fromkeys(constants, "constexpr"),
    }
    source = ASTSource(matmul, signature, constants)
    options = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert len(compiled.asm["cubin"]) > 1000


if __name__ == "__main__":
    main()
