"""The sum of a residual branch."""

from __future__ import annotations

from mindspore import Tensor


def residual(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """x + keep * branch: (B*R, G, N, C), as many values, (B,) -> as ``x``, in its precision.

    ``keep`` is a factor for every image's branch, None for one.
    """
    y = branch.astype(x.dtype)
    if keep is not None:
        y = y.reshape(keep.shape[0], -1) * keep.reshape(-1, 1).astype(x.dtype)
    return x + y.reshape(x.shape)
