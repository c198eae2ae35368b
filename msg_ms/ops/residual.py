"""The sum of a residual branch and its input."""

from __future__ import annotations

from mindspore import Tensor


def residual(x: Tensor, branch: Tensor, drop_path_scale: Tensor | None) -> Tensor:
    """Compute x + drop_path_scale * branch.

    Args:
        x: (B*R, G, N, C), shape letters as in ``windows.py``.
        branch: output of the branch, with as many elements as ``x``.
        drop_path_scale: (B,), a factor for each image's branch; None for 1.

    Returns:
        Tensor with the shape and precision of ``x``.
    """
    y = branch.astype(x.dtype)
    if drop_path_scale is not None:
        y = y.reshape(drop_path_scale.shape[0], -1) * drop_path_scale.reshape(-1, 1).astype(x.dtype)
    return x + y.reshape(x.shape)
