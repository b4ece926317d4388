"""Every kernel file compiles to the binary for every GPU, with no GPU present."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosaic_compile import cli

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ["sm80", "sm89", "sm90", "sm100", "sm120", "gfx942", "gfx950"]

DEFAULTS = [
    "kernels/vector_add.py",
    "kernels/softmax.py",
    "kernels/rms_norm.py",
    "kernels/matmul.py",
    "kernels/flash_attention.py",
    "kernels/varlen_attention.py",
    "kernels/paged_attention.py",
    "kernels/activations.py",
    "kernels/batched_matmul.py",
    "kernels/cross_entropy.py",
    "kernels/cumsum.py",
    "kernels/gather_rows.py",
    "kernels/histogram.py",
    "kernels/layer_norm.py",
    "kernels/persistent_matmul.py",
    "kernels/quantize_rows.py",
    "kernels/quantized_matmul.py",
    "kernels/rope.py",
    "kernels/split_k_matmul.py",
    "kernels/linear.py",
    "kernels/stream_k_matmul.py",
    "examples/swiglu.py",
]
VARIANTS = [
    "kernels/softmax.py --set BM=16 BN=128 num_warps=4 T=f32",
    "kernels/softmax.py --shape N=1024",
    "kernels/softmax.py --shape N=100000",
    "kernels/rms_norm.py --set W=f32 --shape N=4096",
    "kernels/matmul.py --with bias residual --set activation=gelu",
    "kernels/matmul.py --with bias --set activation=silu T=f16 U=f16 --shape N=%16 K=%16",
    "kernels/matmul.py --set T=f32 U=f32 BM=64 BN=64 BK=32",
    "kernels/matmul.py --set T=f32 U=f32 precision=tf32",
    "kernels/matmul.py --set T=f8e5m2",
    "kernels/matmul.py --set T=f8e4m3",
    "kernels/activations.py --kernel gated --set activation=gelu_tanh T=f32",
    "kernels/batched_matmul.py --with bias residual --set activation=gelu T=f8e4m3",
    "kernels/cross_entropy.py --with lse --set label_smoothing=0.1 L=i32 --shape V=%1",
    "kernels/cumsum.py --set T=bf16 S=bf16 exclusive=true reverse=true",
    "kernels/cumsum.py --set T=u8 S=i32 BM=16 BN=128",
    "kernels/gather_rows.py --set T=f8e4m3 Index=i64 BM=16 BN=128",
    "kernels/histogram.py --set T=u8",
    "kernels/histogram.py --set T=i64",
    "kernels/layer_norm.py --with bias mean rstd --set W=f32",
    "kernels/layer_norm.py --with bias --shape N=4096",
    "kernels/linear.py --with bias residual --set activation=silu BM=1 BN=8 BK=512",
    "kernels/linear.py --set T=f8e4m3",
    "kernels/persistent_matmul.py --with bias residual --set activation=silu",
    "kernels/persistent_matmul.py --with bias --set PARTS=2 BM=64 BN=64 BK=32",
    "kernels/quantize_rows.py --set T=f32 G=128",
    "kernels/quantized_matmul.py --set BITS=8 L=128 BM=8 BN=16",
    "kernels/rope.py --with positions --set interleaved=true",
    "kernels/rope.py --with positions --shape D=80 R=20",
    "kernels/split_k_matmul.py --set T=f8e4m3",
    "kernels/split_k_matmul.py --set T=f32 precision=tf32 BM=64 BN=64 BK=32",
    "kernels/flash_attention.py --with lse --set causal=true --shape D=64",
    "kernels/flash_attention.py --with lse --set causal=true --shape D=128",
    "kernels/flash_attention.py --set causal=true --shape D=256",
    "kernels/flash_attention.py --set D=64 E=f16",
    "kernels/flash_attention.py --set D=256",
    "kernels/flash_attention.py --with lse --set causal=true window=1024 softcap=50.0",
    "kernels/varlen_attention.py --with lse --set causal=true window=1024 softcap=50.0 D=64",
    "kernels/varlen_attention.py --set E=f32 D=64 BM=32 BN=32 num_warps=4",
    "kernels/paged_attention.py --kernel paged_attention --with lse --set PAGE=64 window=1024 softcap=50.0",
    "kernels/paged_attention.py --kernel paged_attention --set P=bf16 PAGE=256 D=64",
    "kernels/paged_attention.py --kernel paged_attention --set E=f32 D=256",
    "kernels/paged_attention.py --kernel merge_attention --with lse --set E=f32 D=80",
    "kernels/flash_attention.py --set E=f32 precision=tf32x3 D=64",
    "kernels/flash_attention.py --set E=f32 D=64 BM=32 BN=32 num_warps=4",
]


def compile_file(command: str, target: str, capsys: pytest.CaptureFixture[str]) -> str:
    file, *options = command.split()
    code = cli.main([str(ROOT / file), "--target", target, *options])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("command", DEFAULTS)
def test_defaults(command, target, capsys):
    """Without options, the first entry of `tune` that fits the target is taken."""
    assert f"for {target}" in compile_file(command, target, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("command", VARIANTS)
def test_variants(command, target, capsys):
    compile_file(command, target, capsys)
