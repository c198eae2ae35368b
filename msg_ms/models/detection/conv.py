"""Convolutions of the detector's neck and heads, and batch normalisation."""

from __future__ import annotations

from math import sqrt

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer, Normal, Uniform, initializer
from mindspore.communication import GlobalComm, get_group_size

from ...ops import MapConv, MatMul, pad_axis

EPSILON = 1e-5  # of batch normalisation, as in PyTorch


def fan_out_normal(out_channels: int, kernel_size: int) -> Initializer:
    """Return mmcv's initialisation of convolutions before a ReLU: normal with variance 2 / fan_out."""
    return Normal(sqrt(2 / (out_channels * kernel_size**2)))


def xavier_uniform(in_features: int, out_features: int) -> Initializer:
    """Return the uniform initialisation with variance 2 / (fan_in + fan_out)."""
    return Uniform(sqrt(6 / (in_features + out_features)))


class Conv2d(nn.Cell):
    """Convolution with stride 1 that keeps the sides: (B, C, H, W) -> (B, O, H, W).

    On CPU it is a native kernel in single precision, and otherwise a matrix product with unfolded patches. MindSpore's
    operator runs a reference loop there for kernels above 1x1, about a hundred times slower.

    Args:
        in_channels: Input channels C.
        out_channels: Output channels O.
        kernel_size: Side k of the kernel, an odd number.
        bias: Add a bias, initialised to zero.
        weight_init: Initialisation of the weight (O, C, k, k); None means ``fan_out_normal``.
        output_float32: Return float32 at every precision level.
        relu: Apply a ReLU at the end.
        unfold: Compute by a matrix product, without the native kernel; None means only on CPU and where there is none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        output_float32: bool = False,
        relu: bool = False,
        unfold: bool | None = None,
    ):
        super().__init__()
        self.relu, self.map_conv = relu, MapConv(kernel_size, relu)
        self.fused = self.map_conv.available and unfold is None
        self.no_bias = Tensor(np.zeros(out_channels, np.float32))
        self.kernel_size, self.out_channels, self.output_float32 = kernel_size, out_channels, output_float32
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        weight_init = weight_init or fan_out_normal(out_channels, kernel_size)
        self.weight = Parameter(initializer(weight_init, shape), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias") if bias else None
        self.unfold = ms.get_context("device_target") == "CPU" if unfold is None else unfold
        self.matmul = MatMul()
        self.set_compute_dtype(ms.float32, ms.float32)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the types of the convolution and of the output."""
        self.matmul_dtype, self.residual_dtype = matmul, residual
        self.single_precision = matmul == residual == ms.float32

    def construct(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` in ``residual_dtype``."""
        if self.fused and self.single_precision and x.dtype == ms.float32:
            return self.map_conv(x, self.weight, self.no_bias if self.bias is None else self.bias)
        x, weight = x.astype(self.matmul_dtype), self.weight.astype(self.matmul_dtype)
        if self.unfold:
            y = self._unfolded(x, weight)
        else:
            y = ops.conv2d(x, weight, None, 1, "pad", self.kernel_size // 2)
            if self.bias is not None:
                y = ops.bias_add(y.astype(self.bias.dtype), self.bias)
            y = y.astype(self.residual_dtype)
        return ops.relu(y) if self.relu else y

    def _unfolded(self, x: Tensor, weight: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        k = self.kernel_size
        x = x.transpose(0, 2, 3, 1)
        if k > 1:
            # Channels last, so that every patch is a row of k*k contiguous pieces.
            x = pad_axis(pad_axis(x, 1, k // 2, k // 2), 2, k // 2, k // 2)
            patches = ()
            for i in range(k):
                for j in range(k):
                    # On CPU the operator of Python's slices takes ten times as long.
                    patches = (*patches, ops.slice(x, (0, i, j, 0), (batch, height, width, channels)))
            x = ops.cat(patches, -1)
        weight = weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        y = self.matmul(x.reshape(-1, k * k * channels), weight)
        if self.bias is not None:
            y = ops.bias_add(y.astype(self.bias.dtype), self.bias)
        y = y.astype(self.residual_dtype).reshape(batch, height, width, self.out_channels)
        return y.transpose(0, 3, 1, 2)


class Deconv2x2(nn.Cell):
    """Transposed convolution with a 2x2 kernel and stride 2: (B, C, H, W) -> (B, O, 2H, 2W).

    No two outputs overlap, so it is one matrix product on every device.

    Args:
        in_channels: Input channels C.
        out_channels: Output channels O. The weight is (C, O, 2, 2), as in PyTorch.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.out_channels = out_channels
        shape = (in_channels, out_channels, 2, 2)
        self.weight = Parameter(initializer(fan_out_normal(in_channels, 2), shape), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias")
        self.matmul = MatMul()
        self.set_compute_dtype(ms.float32, ms.float32)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the types of the matrix product and of the output."""
        self.matmul_dtype, self.residual_dtype = matmul, residual

    def construct(self, x: Tensor) -> Tensor:
        """Return the upsampled maps in ``residual_dtype``."""
        batch, channels, height, width = x.shape
        rows = x.transpose(0, 2, 3, 1).reshape(-1, channels).astype(self.matmul_dtype)
        weight = self.weight.astype(self.matmul_dtype).transpose(2, 3, 1, 0).reshape(-1, channels)
        y = self.matmul(rows, weight).reshape(-1, self.out_channels).astype(self.bias.dtype)
        y = ops.bias_add(y, self.bias).astype(self.residual_dtype)
        y = y.reshape(batch, height, width, 2, 2, self.out_channels).transpose(0, 5, 1, 3, 2, 4)
        return y.reshape(batch, self.out_channels, 2 * height, 2 * width)


class ConvModule(nn.Cell):
    """A convolution with optional batch normalisation and ReLU, under mmcv's parameter names ``conv`` and ``bn``.

    Args:
        in_channels: Input channels C.
        out_channels: Output channels O.
        kernel_size: Side of the kernel.
        batch_norm: Normalise the output; the convolution has no bias then.
        relu: Apply a ReLU at the end.
        weight_init: Initialisation of the weight; None means ``fan_out_normal``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        batch_norm: bool = False,
        relu: bool = False,
        weight_init: Initializer | None = None,
    ):
        super().__init__()
        fused_relu = relu and not batch_norm
        self.conv = Conv2d(in_channels, out_channels, kernel_size, not batch_norm, weight_init, relu=fused_relu)
        self.bn = batch_norm_2d(out_channels) if batch_norm else None
        self.relu = relu
        self.folded = MapConv(kernel_size, relu) if batch_norm else None

    def construct(self, x: Tensor) -> Tensor:
        """Return the output (B, O, H, W) for maps (B, C, H, W)."""
        if self.bn is None:
            return self.conv(x)
        if not self.training and self.conv.fused and self.conv.single_precision and x.dtype == ms.float32:
            # At test time the normalisation is a factor and a bias of the convolution.
            factor = self.bn.gamma / ops.sqrt(self.bn.moving_variance + EPSILON)
            weight = self.conv.weight * factor.reshape(-1, 1, 1, 1)
            return self.folded(x, weight, self.bn.beta - self.bn.moving_mean * factor)
        x = self.bn(self.conv(x))
        return ops.relu(x) if self.relu else x


def batch_norm_2d(channels: int) -> nn.Cell:
    """Return batch normalisation with PyTorch's settings: epsilon 1e-5, and a new batch has a weight of 0.1.

    In training on several GPU or Ascend devices the statistics are those of all devices, as in the paper's recipe. On
    CPU MindSpore has no such operator, and every process normalises by its own batch.

    Args:
        channels: Channels of the maps.
    """
    several = GlobalComm.INITED and get_group_size() > 1
    kind = nn.SyncBatchNorm if several and ms.get_context("device_target") != "CPU" else nn.BatchNorm2d
    return kind(channels, eps=EPSILON, momentum=0.9)
