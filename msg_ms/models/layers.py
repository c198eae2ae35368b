"""The smallest parts of the model: Linear, LayerNorm, DropPath, Mlp and the overlapped patch convolution.

Layers with a method ``set_compute_dtype(matmul, residual)`` support mixed precision: ``matmul`` is the type of matrix
products, ``residual`` that of the output. ``msg_ms.models.precision.set_precision`` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer, TruncatedNormal, Uniform, initializer

from ..ops import BiasGelu, BiasLayerNorm, MatMul, Transpose, composed_dtype, patch_conv
from ..ops.layer_norm import EPSILON


def truncated_normal() -> Initializer:
    """Return a normal distribution of standard deviation 0.02, cut at -2 and 2 as in the paper's code.

    The cut is a hundred deviations out, so it has no effect in practice.
    """
    return TruncatedNormal(sigma=0.02, mean=0.0, a=-2.0, b=2.0)


class Linear(nn.Cell):
    """Linear layer on the last axis, (..., in) -> (..., out).

    The bias is added in its own precision, float32.

    Args:
        in_features: Input channels.
        out_features: Output channels.
        bias: Add a bias, initialised to zero. The weight (out, in) is initialised by ``truncated_normal``.
        output_float32: Return float32 at every precision level, as a model's last layer should.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, output_float32: bool = False):
        super().__init__()
        self.in_features, self.out_features, self.output_float32 = in_features, out_features, output_float32
        self.weight = Parameter(initializer(truncated_normal(), (out_features, in_features)), name="weight")
        self.bias = Parameter(initializer("zeros", (out_features,)), name="bias") if bias else None
        self.matmul = MatMul()
        self.set_compute_dtype(ms.float32, ms.float32)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the types of the matrix product and of the output."""
        self.matmul_dtype, self.residual_dtype = matmul, residual
        self.matmul.round_operands(matmul)

    def matmul_rows(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the product without the bias, (-1, out) as of ``MatMul``, for operators that add the bias.

        The optional ``scale`` (out,) multiplies the output channels.
        """
        # A two-dimensional product: on CPU a batched one is half as fast.
        weight = self.weight if scale is None else self.weight * scale.reshape(-1, 1)
        return self.matmul(x.reshape(-1, self.in_features), weight)

    def construct(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return x @ weight.T + bias in ``residual_dtype``, times ``scale`` (out,) if there is one."""
        y = self.matmul_rows(x, scale)
        if self.bias is not None:
            bias = self.bias if scale is None else self.bias * scale
            y = ops.bias_add(y.astype(bias.dtype), bias)
        return y.astype(self.residual_dtype).reshape((*x.shape[:-1], self.out_features))


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of the last axis, computed in float32.

    Epsilon is PyTorch's 1e-5; MindSpore's default is 1e-7.

    Args:
        channels: Size C of the last axis.
    """

    def __init__(self, channels: int):
        super().__init__((channels,), epsilon=EPSILON)
        self.residual_dtype = ms.float32
        self.norm = BiasLayerNorm(channels)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the type of the output."""
        self.residual_dtype = residual

    def construct(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Normalise ``x`` (..., C), after adding ``bias`` (C,) if there is one."""
        y = self.norm(x.reshape(-1, x.shape[-1]), bias, self.gamma, self.beta)
        return y.astype(self.residual_dtype).reshape(x.shape)


class DropPath(nn.Cell):
    """Stochastic depth: in training each image skips each of a block's two residual branches at random.

    An image is dropped as a whole. The paper's code draws once per shuffle region, a side effect of its tensor layout;
    at 224 pixels only the first two blocks have more than one region per image.

    Args:
        probabilities: Every block's probability p of skipping a branch, at least 0 and below 1.
    """

    def __init__(self, probabilities: Sequence[float]):
        super().__init__()
        self.probabilities = tuple(float(p) for p in probabilities)
        limits = np.array(self.probabilities, np.float32).reshape(-1, 1, 1)
        self.limits, self.scales = Tensor(limits), Tensor((1 / (1 - limits)).astype(np.float32))
        # Dropout of ones draws the mask and scales it by 1 / (1 - p) in one kernel on every device.
        self.masks = nn.CellList([nn.Dropout(p=p) for p in self.probabilities])
        self.kept = (False,) * len(self.probabilities)

    def keep(self, blocks: Sequence[bool]) -> None:
        """Keep all branches of these blocks, which are frozen."""
        self.kept = tuple(bool(block) for block in blocks)

    def construct(self, batch: int, drop_path_noise: Tensor | None = None) -> tuple[Tensor, ...] | None:
        """Return the scale of every image's branches, or None outside training and if no block drops any.

        Args:
            batch: Number of images B.
            drop_path_noise: Uniform numbers in [0, 1), float32 (blocks, 2, B), that decide which branches remain.
                If None, the device draws them.

        Returns:
            For every block float32 (2, B), with entries 0 or 1 / (1 - p); None for a block that keeps all branches.
        """
        if not self.training or max(self.probabilities) == 0.0 or all(self.kept):
            return None
        if drop_path_noise is None:
            scales = tuple([mask(ops.ones((2, batch), ms.float32)) for mask in self.masks])
        else:
            scales = ops.unstack(ops.stop_gradient((drop_path_noise >= self.limits).astype(ms.float32) * self.scales))
        return tuple([None if self.kept[i] else scales[i] for i in range(len(self.kept))])


class Mlp(nn.Cell):
    """Two linear layers with an exact (erf) GELU between them: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0):
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(p=drop)
        self.bias_gelu = BiasGelu()

    def construct(self, x: Tensor) -> Tensor:
        """Return the MLP's output, without the residual."""
        hidden = self.drop(self.bias_gelu(self.fc1.matmul_rows(x), self.fc1.bias, self.fc1.residual_dtype))
        return self.drop(self.fc2(hidden)).reshape(x.shape)


class PatchConv(nn.Cell):
    """Convolution with channels-last output, (B, C, H, W) -> (B, Ho, Wo, O), initialised like PyTorch's Conv2d.

    Args:
        in_channels: Input channels C.
        out_channels: Output channels O.
        kernel_size: Side k of the square kernel.
        stride: Stride in both directions.
        padding: Zeros on every side.
        unfold: Compute by unfolding and a matrix product, see ``msg_ms.ops.patch_conv``. None: only on CPU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        unfold: bool | None = None,
    ):
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        bound = 1 / sqrt(prod(shape[1:]))
        self.weight = Parameter(initializer(Uniform(bound), shape), name="weight")
        self.bias = Parameter(initializer(Uniform(bound), (out_channels,)), name="bias")
        self.stride, self.padding = stride, padding
        self.unfold = ms.get_context("device_target") == "CPU" if unfold is None else unfold
        self.matmul, self.transpose = MatMul(), Transpose()
        self.set_compute_dtype(ms.float32, ms.float32)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the types of the convolution and of the output."""
        self.matmul_dtype, self.residual_dtype = matmul, residual
        self.conv_dtype = composed_dtype(matmul)
        self.matmul.round_operands(matmul)

    def matmul_rows(self, patches: Tensor) -> Tensor:
        """Return the product with float32 patches (rows, C * k * k), without the bias: (rows, O)."""
        return self.matmul(patches, self.weight.reshape(self.weight.shape[0], -1))

    def convolve(self, x: Tensor) -> Tensor:
        """Return the convolution without the bias, channels first: (B, O, Ho, Wo) in ``conv_dtype``."""
        x, weight = x.astype(self.conv_dtype), self.weight.astype(self.conv_dtype)
        return patch_conv(x, weight, self.stride, self.padding, self.unfold)

    def add_bias(self, y: Tensor) -> Tensor:
        """Return ``y`` (..., O) plus the bias in ``residual_dtype``."""
        rows = ops.bias_add(y.reshape(-1, y.shape[-1]).astype(self.bias.dtype), self.bias)
        return rows.astype(self.residual_dtype).reshape(y.shape)

    def construct(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` in ``residual_dtype``."""
        return self.add_bias(self.transpose(self.convolve(x), (0, 2, 3, 1)))
