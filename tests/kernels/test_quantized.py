"""quantize_rows, quantized_matmul."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.errors import LaunchError, MosaicError
from mosaic_compile.kernels import quantize_rows, quantized_matmul
from mosaic_compile.kernels.quantized_matmul import LANES, expanded, integers, quantized

from .helpers import (
    FLOATS,
    TARGETS,
    U32,
    assert_within,
    examples,
    launch,
    least,
    numpy_type,
    on_targets,
    random,
    roundoff,
    unwritten,
)
from .helpers import (
    integers as integers_of,
)

GROUPS = [32, 64, 128]


def activations(m, k, group):
    """Rows in the layout that the kernel takes, by quantize_rows's definition."""
    values, scales, sums = quantize_rows.reference(random(3, (m, k), "f32", 2), G=group)
    return np.ascontiguousarray(values).view(np.int32), scales, sums


def check_quantized_matmul(m, n, k, bits=4, group=32, out="f32", scales="f16", target=None, **constants):
    x, x_scales, x_sums = map(np.ascontiguousarray, activations(m, k, group))
    w, w_scales = quantized(random(4, (n, k), "f32"), bits, group, numpy_type(scales))
    c = unwritten((m, n), out)
    given = dict(x=x, x_scales=x_scales, x_sums=x_sums, w=w, w_scales=w_scales)
    launch(quantized_matmul, **given, out=c, BITS=bits, **{"BM": 2, "BN": 4} | constants, target=target)
    # Sums of groups are exact. A block's are scaled by two roundings and added by one, the lanes added at the end.
    rows, columns = expanded(x.swapaxes(0, 1), x_scales.swapaxes(0, 1), 8), expanded(w, w_scales, bits)
    bound = (w.shape[1] + LANES + 3) * U32 * (abs(rows) @ abs(columns).T)
    wanted = quantized_matmul.reference(**given, BITS=bits)
    assert_within(c, wanted, bound + roundoff(c.dtype) * (abs(wanted) + bound) + least(c.dtype))


@on_targets
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("m,n,k", [(1, 4, 512), (2, 8, 600), (3, 5, 1), (0, 3, 40), (3, 0, 40), (5, 3, 0)])
def test_quantized_matmul_shapes(m, n, k, bits, target):
    check_quantized_matmul(m, n, k, bits, target=target)


@on_targets
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", GROUPS)
def test_quantized_matmul_groups(group, bits, target):
    check_quantized_matmul(3, 6, 2100, bits, group, target=target)


@on_targets
@pytest.mark.parametrize("out", FLOATS)
@pytest.mark.parametrize("scales", ["f16", "f32"])
def test_quantized_matmul_types(out, scales, target):
    check_quantized_matmul(3, 6, 700, 4, 32, out, scales, target)


@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 1500)),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from(GROUPS),
    tiles=st.sampled_from([dict(BM=1, BN=1), dict(BM=1, BN=16), dict(BM=8, BN=16)]),
    target=st.sampled_from(TARGETS),
)
@examples(25)
def test_quantized_matmul_of_any_shape(sizes, bits, group, tiles, target):
    check_quantized_matmul(*sizes, bits, group, target=target, **tiles)


@on_targets
@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_numbers(bits, target):
    """Every byte at the end of its range, of either sign, where a sum of 16 bits would overflow."""
    m, n, group = 2, 4, 128
    x = np.empty((1, m, 4 * group), np.int32)
    x.view(np.int8)[:, 0], x.view(np.int8)[:, 1] = 127, -128
    w = np.empty((n, 1, LANES * group * bits // 32), np.uint32)
    w[...] = np.array([0, 2**32 - 1, 0x80808080, 0x7F7F7F7F], np.uint32)[:, None, None]
    ones = [np.ones((1, m, LANES), np.float32), np.ones((n, 1, LANES), np.float32)]
    sums = np.broadcast_to(np.array([[[127], [-128]]], np.int32) * group, (1, m, LANES)).copy()
    c, given = unwritten((m, n), "f32"), dict(x=x, x_scales=ones[0], x_sums=sums, w=w, w_scales=ones[1])
    launch(quantized_matmul, **given, out=c, BITS=bits, BM=2, BN=4, target=target)
    np.testing.assert_array_equal(c, quantized_matmul.reference(**given, BITS=bits))  # whole numbers


def test_the_layout():
    """Element i of group g is where the documentation says."""
    k = LANES * 32
    weights = np.random.default_rng(0).integers(-7, 8, (2, k)).astype(np.float32)
    weights[:, ::32] = 7  # so that each group's scale is 1
    for bits in (4, 8):
        words, scales = quantized(weights * (127 / 7 if bits == 8 else 1), bits, 32, np.float32)
        wanted = np.rint(weights * (127 / 7)) if bits == 8 else weights
        np.testing.assert_allclose(scales, 1, rtol=2 * U32)
        for g in range(LANES):
            for i in range(32):
                half, place = (i // 16, i % 16) if bits == 4 else (0, i)
                byte = words.view(np.uint8)[1, 0, (place // 4 * LANES + g) * 4 + place % 4]
                value = (byte >> 4 * half & 15) - 8.0 if bits == 4 else byte.view(np.int8)
                assert value == wanted[1, 32 * g + i]


@pytest.mark.parametrize("bits,largest", [(4, 7), (8, 127)])
@pytest.mark.parametrize("group", GROUPS)
def test_what_quantizing_costs(bits, largest, group):
    """Each number is off by half a step at most, the product by what that makes of it."""
    w = random(5, (6, 700), "f32")
    w[2, :200] = 0
    words, scales = quantized(w, bits, group)
    blocks = words.shape[1]
    padded = np.zeros((6, blocks * LANES * group))
    padded[:, :700] = w
    steps = np.repeat(scales.astype(np.float64).reshape(6, -1), group, axis=1)
    # The largest one is off by the rounding of its scale too.
    assert (abs(expanded(words, scales, bits) - padded) <= steps * (0.5 + largest * 2.0**-11)).all()
    q = integers(words, LANES, bits) - (8 if bits == 4 else 0)
    assert abs(q).max() == largest


def check_quantize_rows(k, group, dtype, target=None):
    m, blocks = 3, -(-k // (LANES * group))
    x = random(6, (m, k), dtype, 3)
    x[1, : k // 2] = 0  # groups of zeros
    q = unwritten((blocks, m, LANES * group), "i8")
    scales, sums = unwritten((blocks, m, LANES), "f32"), unwritten((blocks, m, LANES), "i32")
    launch(quantize_rows, x=x, q=q, scales=scales, sums=sums, G=group, target=target)
    numbers = integers(q.view(np.int32).swapaxes(0, 1), LANES, 8)
    np.testing.assert_array_equal(sums.swapaxes(0, 1), numbers.sum(-1))
    assert abs(numbers).max() == 127
    groups = np.zeros((m, blocks * LANES * group))
    groups[:, :k] = x.astype(np.float64)
    groups = groups.reshape(numbers.shape)
    step = abs(groups).max(-1) / 127
    assert_within(scales.swapaxes(0, 1), step, U32 * step)
    # x / scale is off by three roundings of at most 127, and so is where it is rounded.
    assert (abs(numbers * step[..., None] - groups) <= (0.5 + 4 * 128 * U32) * step[..., None]).all()


@on_targets
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k,group", [(1, 32), (512, 32), (700, 64), (2100, 128)])
def test_quantize_rows(k, group, dtype, target):
    check_quantize_rows(k, group, dtype, target)


@on_targets
@pytest.mark.parametrize("m", [0, 1, 5])
def test_rows_end_to_end(m, target):
    """Numbers in f32, and what two quantizations make of their product."""
    k, n, group = 600, 5, 32
    x, weights = random(7, (m, k), "f32"), random(8, (n, k), "f32")
    w, w_scales = quantized(weights, 8, group)
    blocks = w.shape[1]
    q = unwritten((blocks, m, LANES * group), "i8")
    x_scales, sums = unwritten((blocks, m, LANES), "f32"), unwritten((blocks, m, LANES), "i32")
    launch(quantize_rows, x=x, q=q, scales=x_scales, sums=sums, G=group, target=target)
    out = unwritten((m, n), "f32")
    given = dict(x=q.view(np.int32), x_scales=x_scales, x_sums=sums, w=w, w_scales=w_scales)
    launch(quantized_matmul, **given, out=out, BITS=8, BM=2, BN=4, target=target)
    steps = [
        np.repeat(s.astype(np.float64).reshape(len(s), blocks * LANES), group, axis=1)[:, :k]
        for s in (x_scales.swapaxes(0, 1), w_scales)
    ]
    off_x, off_w = 0.51 * steps[0], (0.5 + 127 * 2.0**-11) * steps[1]
    bound = off_x @ abs(weights).T + (abs(x) + off_x) @ off_w.T
    assert_within(out, x.astype(np.float64) @ weights.T.astype(np.float64), 1.001 * bound)


@mc.kernel
def bytes_by_bytes(
    a: mc.i32["N"],
    u: mc.u32["N"],
    b: mc.i32["N"],
    signed: mc.InOut[mc.i32["N"]],
    unsigned: mc.InOut[mc.i32["N"]],
    small: mc.InOut[mc.i32["N"]],
):
    for i in range(mc.cdiv(a.shape[0], 64)):
        left, right, other = mc.load(a, i, 64), mc.load(b, i, 64), mc.load(u, i, 64)
        mc.store(signed, i, mc.dot4(left, right, mc.dot4(right, left, mc.load(signed, i, 64))))
        mc.store(unsigned, i, mc.dot4(other, right, mc.load(unsigned, i, 64)))
        mc.store(small, i, mc.dot4(other & 0x7F7F7F7F, right, mc.load(small, i, 64)))


def check_bytes(run):
    """Signed, unsigned, and those that are both; each extreme by each, and sums that wrap."""
    extremes = np.array([0, -1, 127, -128], np.int8)
    pairs = np.repeat(np.stack(np.meshgrid(extremes, extremes), -1).reshape(-1, 2).T, 4, axis=1)
    a, b = (np.concatenate((pairs[i].copy().view(np.int32), integers_of(i, (84,), "i32"))) for i in (0, 1))
    before = integers_of(2, a.shape, "i32")
    results = {name: before.copy() for name in ("signed", "unsigned", "small")}
    run(a=a, u=a.view(np.uint32), b=b, **results)
    left, right = (x.view(np.int8).reshape(-1, 4).astype(np.int64) for x in (a, b))
    sums = {"signed": 2 * left * right, "unsigned": (left & 255) * right, "small": (left & 127) * right}
    for name, products in sums.items():
        wanted = (products.sum(1) + before).astype(np.int32)
        np.testing.assert_array_equal(results[name], wanted, err_msg=name)


@on_targets
def test_bytes(target):
    check_bytes(lambda **arrays: launch(bytes_by_bytes, **arrays, target=target))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs x86-64")
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_bytes_without_vnni(target, tmp_path):
    mc.compile(bytes_by_bytes, target).save(tmp_path)
    try:
        loaded = mc.load(tmp_path)
    except LaunchError as error:
        pytest.skip(str(error))
    check_bytes(loaded)


def test_words_that_do_not_fit_the_bits():
    """Weights of 4 bits taken for some of 8, and bits that there are not."""
    x, x_scales, x_sums = map(np.ascontiguousarray, activations(2, 600, 32))
    w, w_scales = quantized(random(4, (3, 600), "f32"), 4, 32)
    for bits, message in (
        (8, "64 words of 8 bits in w do not fit 128"),
        (2, "weights have 4 or 8 bits, not 2"),
    ):
        with pytest.raises(MosaicError, match=message):
            quantized_matmul(x, x_scales, x_sums, w, w_scales, np.zeros((2, 3), np.float32), BITS=bits)
