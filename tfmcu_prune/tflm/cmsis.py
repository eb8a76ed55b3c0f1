"""Scratch buffers of CMSIS-NN's kernels, from shapes.

`k` is the number of filter positions, `c` the input channels; gcc builds (armclang asks for 4*c more in one case).

Source: ARM-software/CMSIS-NN 4ab83cc3, Source/*/arm_*_get_buffer_sizes_*.c and Include/arm_nnsupportfunctions.h
(the functions arm_nn_is_convolve_1x1 and arm_nn_is_convolve_1_x_n, the constants).
"""

from __future__ import annotations

from math import fmod

from .prepare import Prepare

_MVE_CHANNELS = 124  # CH_IN_BLOCK_MVE
_REVERSE_ABOVE = 16  # REVERSE_TCOL_EFFICIENT_THRESHOLD
_SAME = 0


def conv(at: Prepare) -> int:
    """Return the scratch bytes of a convolution (arm_convolve_wrapper_s8 and _s16)."""
    source = at.dims(at.input(0), 4)
    weights = at.dims(at.input(1), 4)
    if at.input(0).type == "int16":
        return _conv16(source[3] * weights[1] * weights[2], at.mve)
    if _is_1x1(at, source, weights):
        return 0
    if at.mve and _is_1xn(at, source, weights):
        return _conv_1xn(at, source, weights)
    return _conv8(source[3] * weights[1] * weights[2], at.mve)


def _conv8(column: int, mve: bool) -> int:
    return 64 * ((column + 15) // 16) if mve else 4 * ((column + 3) // 4 * 4)


def _conv16(column: int, mve: bool) -> int:
    return 64 * ((column + 7) // 8) if mve else 4 * column


def padding(at: Prepare, axis: int, source: int, kernel: int) -> int:
    """Return the padding before an axis ("h" = 1, "w" = 2) as TFLM computes it, from the output's size."""
    letter = "hw"[axis - 1]
    stride, dilation = max(at.option(f"stride_{letter}"), 1), at.option(f"dilation_{letter}")
    reach = (kernel - 1) * dilation + 1
    same = at.option("padding") == _SAME
    size = (source + stride - 1) // stride if same else (source + stride - reach) // stride
    return max(((size - 1) * stride + reach - source) // 2, 0)


def _is_1x1(at: Prepare, source: tuple[int, ...], weights: tuple[int, ...]) -> bool:
    return (
        weights[1] == weights[2] == 1
        and at.option("dilation_h") == at.option("dilation_w") == 1
        and source[3] == weights[3]
        and padding(at, 1, source[1], 1) == padding(at, 2, source[2], 1) == 0
    )


def _is_1xn(at: Prepare, source: tuple[int, ...], weights: tuple[int, ...]) -> bool:
    return (
        source[1] == weights[1] == 1
        and at.option("dilation_w") == 1
        and at.option("stride_w") * source[3] % 4 == 0
        and source[3] == weights[3]
    )


def _conv_1xn(at: Prepare, source: tuple[int, ...], weights: tuple[int, ...]) -> int:
    channels, stride, width = source[3], max(at.option("stride_w"), 1), at.dims(at.output(0), 4)[2]
    left = padding(at, 2, source[2], weights[2])
    odd = int(fmod((width - 1) * stride + weights[2] - source[2], 2))
    padded_right = max(1, (left + odd + stride - 1) // stride) if left + odd else 0
    padded_left = max(1, (left + stride - 1) // stride) if left else 0
    if padded_right + max(width - padded_right - padded_left, 0) + padded_left != width:
        return _conv8(channels * weights[1] * weights[2], True)
    row = weights[2] * channels
    right = padded_right * channels if odd else left * channels
    return max(row + left * channels, row - channels + right)


def depthwise(at: Prepare) -> int:
    """Return the scratch bytes of a depthwise convolution (arm_depthwise_conv_wrapper_s8 and _s4)."""
    source, weights = at.dims(at.input(0), 4), at.dims(at.input(1), 4)
    result = at.dims(at.output(0), 4)
    k, int4 = weights[1] * weights[2], at.input(1).type == "int4"
    if at.mve and source[3] == 1 and result[3] > 1 and not int4:
        as_conv = (result[3], weights[1], weights[2], 1)
        if _is_1x1(at, source, as_conv):
            column = 0
        else:
            column = _conv_1xn(at, source, as_conv) if _is_1xn(at, source, as_conv) else _conv8(k, True)
        return column + result[3] * k
    if source[3] != result[3] or source[0] != 1 or at.option("dilation_h") != 1 or at.option("dilation_w") != 1:
        return 0
    if at.mve:
        return 4 * _MVE_CHANNELS * k
    small = weights[1] == weights[2] == 3 and all(
        padding(at, axis, source[axis], weights[axis]) <= 1 for axis in (1, 2)
    )
    if int4:
        return 2 * source[3] * k
    return 0 if small or not at.dsp else 2 * source[3] * k


def transpose_conv(at: Prepare) -> tuple[int, int]:
    """Return both scratch buffers of a transposed convolution (arm_transpose_conv_s8); the second may be empty."""
    source, weights = at.dims(at.input(2), 4), at.dims(at.input(1), 4)
    result = at.dims(at.output(0), 4)
    stride_h, stride_w = at.option("stride_h"), at.option("stride_w")
    k = weights[1] * weights[2]
    if stride_h <= 2 and stride_w <= 2 and source[3] > _REVERSE_ABOVE:
        return _conv8(source[3] * k, at.mve), source[3] * k * weights[0]
    # The width takes the larger of the kernel's width and the stride's *height*: so stands it in CMSIS-NN.
    row = ((source[2] - 1) * stride_w + max(weights[2], stride_h)) * result[3]
    return 4 * row * max(weights[1], stride_h), 0
