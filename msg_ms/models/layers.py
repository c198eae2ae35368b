"""The model's leaves: Linear, LayerNorm, DropPath, Mlp and the overlapped patch convolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer, TruncatedNormal, Uniform, initializer

from ..ops import BiasLayerNorm, MatMul, bias_gelu, patch_conv
from ..ops.layer_norm import EPSILON


def truncated_normal() -> Initializer:
    """Normal with standard deviation 0.02, cut at -2 and 2 as the paper's code does: a hundred deviations out."""
    return TruncatedNormal(sigma=0.02, mean=0.0, a=-2.0, b=2.0)


class Linear(nn.Cell):
    """Affine map of the last axis, (..., in) -> (..., out); weight (out, in), truncated-normal, bias zero.

    The product is computed in ``product_dtype``, the bias added in its own, and the sum given as ``stream_dtype``.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(initializer(truncated_normal(), (out_features, in_features)), name="weight")
        self.bias = Parameter(initializer("zeros", (out_features,)), name="bias") if bias else None
        self.matmul = MatMul()
        self.product_dtype = self.stream_dtype = ms.float32

    def product(self, x: Tensor) -> Tensor:
        """Without the bias, as rows (-1, out) in ``product_dtype``: an operator that follows adds the bias itself."""
        # One two-dimensional product: on CPU a batched one costs twice as much.
        rows = x.reshape(-1, self.in_features).astype(self.product_dtype)
        return self.matmul(rows, self.weight.astype(self.product_dtype))

    def construct(self, x: Tensor) -> Tensor:
        y = self.product(x)
        if self.bias is not None:
            y = ops.bias_add(y.astype(self.bias.dtype), self.bias)
        return y.astype(self.stream_dtype).reshape((*x.shape[:-1], self.out_features))


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of the last axis with PyTorch's epsilon, 1e-5; MindSpore's own default is 1e-7.

    Computed in single precision whatever comes in, and given as ``stream_dtype``.
    """

    def __init__(self, channels: int):
        super().__init__((channels,), epsilon=EPSILON)
        self.stream_dtype = ms.float32
        self.norm = BiasLayerNorm(channels)

    def construct(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``bias`` (C,) is added first: that of the product that ``x`` comes from."""
        y = self.norm(x.reshape(-1, x.shape[-1]), bias, self.gamma, self.beta)
        return y.astype(self.stream_dtype).reshape(x.shape)


class DropPath(nn.Cell):
    """Stochastic depth: in training each image loses each of block i's two residual branches at ``rates[i]``.

    The paper's code draws once per shuffle region, an artefact of its tensor layout; at 224 pixels only the
    first two blocks hold more than one region per image. Here an image is dropped as a whole at every stage.
    """

    def __init__(self, rates: Sequence[float]):
        super().__init__()
        self.rates = tuple(float(rate) for rate in rates)
        limits = np.array(self.rates, np.float32).reshape(-1, 1, 1)
        self.limits, self.scales = Tensor(limits), Tensor((1 / (1 - limits)).astype(np.float32))
        # Dropout of ones draws the mask and scales it by 1 / (1 - rate) in one kernel on every device.
        self.masks = nn.CellList([nn.Dropout(p=rate) for rate in self.rates])

    def construct(self, batch: int, draws: Tensor | None = None) -> tuple[Tensor, ...] | None:
        """Each block's factors of its images' branches, (2, batch): 0 or 1 / (1 - rate); None where none is dropped.

        ``draws`` (blocks, 2, batch), uniform in [0, 1), decide which are kept; without them the device draws.
        """
        if not self.training or max(self.rates) == 0.0:
            return None
        if draws is None:
            return tuple([mask(ops.ones((2, batch), ms.float32)) for mask in self.masks])
        return ops.unstack(ops.stop_gradient((draws >= self.limits).astype(ms.float32) * self.scales))


class Mlp(nn.Cell):
    """Two linear layers around an exact (erf) GELU: (..., dim) -> (..., dim)."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0):
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(p=drop)

    def construct(self, x: Tensor) -> Tensor:
        hidden = self.drop(bias_gelu(self.fc1.product(x), self.fc1.bias, self.fc1.stream_dtype))
        return self.drop(self.fc2(hidden)).reshape(x.shape)


class PatchConv(nn.Cell):
    """Convolution with channels-last output, (B, C, H, W) -> (B, Ho, Wo, O), initialised as PyTorch's Conv2d.

    Precisions as in :class:`Linear`.

    ``unfold`` chooses the way through unfolding and a matrix product (see :func:`msg_ms.ops.patch_conv`);
    None takes it where the device target is CPU.
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
        self.matmul = MatMul()
        self.product_dtype = self.stream_dtype = ms.float32

    def product(self, patches: Tensor) -> Tensor:
        """Of single precision patches (rows, C * k * k), without the bias: (rows, O)."""
        return self.matmul(patches, self.weight.reshape(self.weight.shape[0], -1))

    def construct(self, x: Tensor) -> Tensor:
        x, weight = x.astype(self.product_dtype), self.weight.astype(self.product_dtype)
        return patch_conv(x, weight, self.bias, self.stride, self.padding, self.unfold).astype(self.stream_dtype)
