"""The overlapped patch convolutions (7x7 embedding, 3x3 merging) with channels-last output."""

from __future__ import annotations

from mindspore import Tensor, ops

from .transpose import Transpose


def patch_conv(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, unfold: bool, transpose: Transpose
) -> Tensor:
    """Convolve images and return channels-last maps.

    Args:
        x: (B, C, H, W), in the precision of ``weight``.
        weight: (O, C, k, k), as in ``nn.Conv2d``.
        bias: (O,); the sum is computed in its precision.
        stride: of both axes.
        padding: zeros on all four sides.
        unfold: use patch unfolding and one matrix product in place of the convolution operator. On CPU that operator
            runs a reference loop for kernels above 1x1, about a hundred times slower.
        transpose: the operator to reorder the axes.

    Returns:
        (B, Ho, Wo, O) in the precision of ``bias``, with Ho = (H + 2*padding - k) // stride + 1 and Wo likewise.
    """
    batch, _, height, width = x.shape
    out_channels, _, kernel, _ = weight.shape
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    if unfold:
        patches = ops.unfold(x, kernel, 1, padding, stride)  # (B, C*k*k, Ho*Wo)
        y = transpose(ops.matmul(weight.reshape(out_channels, -1), patches), (0, 2, 1))
    else:
        y = ops.conv2d(x, weight, None, stride, "pad", padding).transpose(0, 2, 3, 1)
    y = ops.bias_add(y.reshape(-1, out_channels).astype(bias.dtype), bias)
    return y.reshape(batch, rows, columns, out_channels)
