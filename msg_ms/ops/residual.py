"""The sum of a residual branch and its input."""

from __future__ import annotations

from mindspore import Tensor, mint, nn

from .backend import has_fused


class Residual(nn.Cell):
    """The sum of a tensor and a residual branch that stochastic depth scales."""

    def __init__(self):
        super().__init__()
        self.fused = has_fused("residual")

    def construct(self, x: Tensor, branch: Tensor, drop_path_scale: Tensor | None) -> Tensor:
        """Compute x + drop_path_scale * branch.

        Args:
            x: (B*R, G, N, C), shape letters as in ``windows.py``.
            branch: output of the branch, with as many elements as ``x``.
            drop_path_scale: (B,), a factor for each image's branch; None for 1.

        Returns:
            Tensor with the shape and precision of ``x``.
        """
        y = branch.astype(x.dtype)
        if drop_path_scale is None:
            return x + y.reshape(x.shape)
        rows = (drop_path_scale.shape[0], -1)
        scale = drop_path_scale.reshape(-1, 1).astype(x.dtype)
        if self.fused:
            return mint.addcmul(x.reshape(rows), y.reshape(rows), scale).reshape(x.shape)
        return x + (y.reshape(rows) * scale).reshape(x.shape)
