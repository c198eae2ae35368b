"""The overlapped patch convolutions (7x7 embedding, 3x3 merging) with channels-last output."""

from __future__ import annotations

from mindspore import Tensor, ops


def patch_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, unfold: bool) -> Tensor:
    """Convolve and put the channels last: (B, C, H, W) -> (B, Ho, Wo, O).

    ``weight`` is (O, C, k, k) and ``bias`` (O,), shaped as a Conv2d's; stride and zero padding are the same on
    both sides. Ho = (H + 2*padding - k) // stride + 1, Wo likewise. ``x`` and ``weight`` share a precision, the
    product's; the sum and the result have the bias's. ``unfold`` chooses patch unfolding and one matrix product over
    the convolution operator, which on CPU runs a reference loop for kernels above 1x1 and takes about a hundred
    times as long.
    """
    batch, _, height, width = x.shape
    out_channels, _, kernel, _ = weight.shape
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    if unfold:
        patches = ops.unfold(x, kernel, 1, padding, stride)  # (B, C*k*k, Ho*Wo)
        y = ops.matmul(weight.reshape(out_channels, -1), patches).transpose(0, 2, 1)
    else:
        y = ops.conv2d(x, weight, None, stride, "pad", padding).transpose(0, 2, 3, 1)
    y = ops.bias_add(y.reshape(-1, out_channels).astype(bias.dtype), bias)
    return y.reshape(batch, rows, columns, out_channels)
