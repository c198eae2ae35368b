"""The overlapped patch convolutions (7x7 embedding, 3x3 merging)."""

from __future__ import annotations

from mindspore import Tensor, ops


def patch_conv(x: Tensor, weight: Tensor, stride: int, padding: int, unfold: bool) -> Tensor:
    """Convolve images, without a bias.

    Args:
        x: (B, C, H, W), in the precision of ``weight``.
        weight: (O, C, k, k), as in ``nn.Conv2d``.
        stride: of both axes.
        padding: zeros on all four sides.
        unfold: use patch unfolding and one matrix product in place of the convolution operator. On CPU that operator
            runs a reference loop for kernels above 1x1, about a hundred times slower.

    Returns:
        (B, O, Ho, Wo), with Ho = (H + 2*padding - k) // stride + 1 and Wo likewise.
    """
    batch, _, height, width = x.shape
    out_channels, _, kernel, _ = weight.shape
    if not unfold:
        return ops.conv2d(x, weight, None, stride, "pad", padding)
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    patches = ops.unfold(x, kernel, 1, padding, stride)  # (B, C*k*k, Ho*Wo)
    return ops.matmul(weight.reshape(out_channels, -1), patches).reshape(batch, out_channels, rows, columns)
