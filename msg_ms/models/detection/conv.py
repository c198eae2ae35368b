"""Convolutions of the detector's neck and heads, and their batch normalisation."""

from __future__ import annotations

from math import sqrt

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer, Normal, Uniform, initializer
from mindspore.communication import GlobalComm, get_group_size

from ...ops import MapConv, MaskedBatchNorm, MatMul, Transpose, composed_dtype, pad_axis
from ...ops.masked_batch_norm import EPSILON


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
        self.relu, self.map_conv = relu, MapConv(kernel_size)
        self.native = self.map_conv.available and unfold is None
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
        self.matmul_dtype, self.residual_dtype = composed_dtype(matmul), residual
        self.single_precision = self.matmul_dtype == residual == ms.float32
        self.matmul.round_operands(self.matmul_dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` in ``residual_dtype``."""
        return self.convolve(x, self.weight, self.bias, self.relu)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """Do the same with another weight (O, C, k, k), bias (O,) and ReLU."""
        if self.native and self.single_precision and x.dtype == ms.float32:
            return self.map_conv(x, weight, self.no_bias if bias is None else bias, relu)
        y = self._product(x.astype(self.matmul_dtype), weight.astype(self.matmul_dtype))
        if bias is not None:
            y = ops.bias_add(y.astype(bias.dtype), bias)
        y = y.astype(self.residual_dtype)
        return ops.relu(y) if relu else y

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution without bias in the type of ``x`` and ``weight``."""
        if self.native:
            return self.map_conv(x, weight, self.no_bias)
        if self.unfold:
            return self._unfolded(x, weight)
        return ops.conv2d(x, weight, None, 1, "pad", self.kernel_size // 2)

    def _unfolded(self, x: Tensor, weight: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        k = self.kernel_size
        x = x.transpose(0, 2, 3, 1)
        if k > 1:
            # Channels last, so that every patch is a row of k*k contiguous pieces.
            x = pad_axis(pad_axis(x, 1, k // 2, k // 2), 2, k // 2, k // 2)
            patches: tuple[Tensor, ...] = ()
            for i in range(k):
                for j in range(k):
                    # On CPU the operator of Python's slices is ten times as slow.
                    patches = (*patches, ops.slice(x, (0, i, j, 0), (batch, height, width, channels)))
            x = ops.cat(patches, -1)
        weight = weight.transpose(0, 2, 3, 1).reshape(self.out_channels, -1)
        y = self.matmul(x.reshape(-1, k * k * channels), weight)
        return y.reshape(batch, height, width, self.out_channels).transpose(0, 3, 1, 2)


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
        self.map_conv, self.matmul, self.transpose = MapConv(1), MatMul(), Transpose()
        self.set_compute_dtype(ms.float32, ms.float32)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Set the types of the matrix product and of the output."""
        self.matmul_dtype, self.residual_dtype = composed_dtype(matmul), residual
        self.single_precision = self.matmul_dtype == residual == ms.float32
        self.matmul.round_operands(self.matmul_dtype)

    def quarters(self, x: Tensor, relu: bool = False) -> Tensor:
        """Return the outputs by their row and column in the kernel, (B*2*2, O, H, W); 1x1 convolutions may follow."""
        batch, channels, height, width = x.shape
        weight = self.weight.transpose(2, 3, 1, 0).reshape(-1, channels)
        bias = ops.tile(self.bias, (4,))
        if self.map_conv.available and self.single_precision and x.dtype == ms.float32:
            y = self.map_conv(x, weight.reshape(-1, channels, 1, 1), bias, relu)
            return y.reshape(-1, self.out_channels, height, width)
        y = self.matmul(x.transpose(0, 2, 3, 1).reshape(-1, channels), weight).astype(bias.dtype)
        y = ops.bias_add(y, bias).astype(self.residual_dtype)
        y = y.reshape(batch, height * width, 4, self.out_channels).transpose(0, 2, 3, 1)
        y = y.reshape(-1, self.out_channels, height, width)
        return ops.relu(y) if relu else y

    def construct(self, x: Tensor) -> Tensor:
        """Return the upsampled maps in ``residual_dtype``."""
        return join_quarters(self.quarters(x), self.transpose)


def join_quarters(x: Tensor, transpose: Transpose) -> Tensor:
    """Return maps (B, O, 2H, 2W) from ``Deconv2x2.quarters``."""
    _, channels, height, width = x.shape
    x = transpose(x.reshape(-1, 2, 2, channels, height, width), (0, 3, 4, 1, 5, 2))
    return x.reshape(-1, channels, 2 * height, 2 * width)


class RoINorm(nn.Cell):
    """Batch normalisation of RoIs' maps (N, C, H, W) as in PyTorch: epsilon 1e-5, weight 0.1 of a new batch.

    A graph has a fixed number of slots for RoIs, and some may be unused: where more than a quarter of the sampled
    RoIs would be positive, or an image has few proposals. In mmdetection they do not exist. So the statistics are
    those of the used slots alone.

    In training on several GPU or Ascend devices the statistics are those of all devices, as in the paper's recipe. On
    CPU every process normalises by its own batch: MindSpore does not order the collectives of independent branches
    there, and the three cascade stages' gradients are independent.

    Args:
        channels: Channels C.
        relu: Apply a ReLU at the end.
    """

    def __init__(self, channels: int, relu: bool = False):
        super().__init__()
        self.gamma = Parameter(initializer("ones", (channels,)), name="gamma")
        self.beta = Parameter(initializer("zeros", (channels,)), name="beta")
        self.moving_mean = Parameter(initializer("zeros", (channels,)), name="moving_mean", requires_grad=False)
        self.moving_variance = Parameter(initializer("ones", (channels,)), name="moving_variance", requires_grad=False)
        several = GlobalComm.INITED and get_group_size() > 1 and ms.get_context("device_target") != "CPU"
        self.norm = MaskedBatchNorm(relu, ops.AllReduce() if several else None)
        self.one = Tensor(1.0, ms.float32)

    def factor_and_bias(self) -> tuple[Tensor, Tensor]:
        """Return the normalisation at test time: factors (C,) and biases (C,)."""
        factor = self.gamma / ops.sqrt(self.moving_variance + EPSILON)
        return factor, self.beta - self.moving_mean * factor

    def construct(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        """Normalise by the batch, and update the moving statistics.

        Args:
            x: Maps (N, C, H, W).
            used: Which slots are used, bool or float32 (N,); None means all.

        Returns:
            Maps (N, C, H, W) in the type of ``x``; the statistics are float32.
        """
        weights = ops.ones((x.shape[0],), ms.float32) if used is None else used.astype(ms.float32)
        y, mean, variance, count = self.norm(x.astype(ms.float32), weights, self.gamma, self.beta)
        self._update(mean, variance, count)
        return y.astype(x.dtype)

    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        unbiased = variance * count / ops.maximum(count - 1.0, self.one)
        ops.assign(self.moving_mean, 0.9 * self.moving_mean + 0.1 * mean)
        ops.assign(self.moving_variance, 0.9 * self.moving_variance + 0.1 * unbiased)


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
        conv_relu = relu and not batch_norm
        self.conv = Conv2d(in_channels, out_channels, kernel_size, not batch_norm, weight_init, relu=conv_relu)
        self.bn = RoINorm(out_channels, relu) if batch_norm else None
        self.relu = relu

    def construct(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        """Return the output (B, O, H, W) for maps (B, C, H, W); ``used`` as in ``RoINorm``."""
        if self.bn is None:
            return self.conv(x)
        if self.training:
            return self.bn(self.conv(x), used)
        # At test time the normalisation is a factor and a bias of the convolution.
        factor, bias = self.bn.factor_and_bias()
        weight = self.conv.weight
        # MindSpore's product on CPU stores two indices per element where it broadcasts.
        factor = ops.broadcast_to(factor.reshape(-1, 1, 1, 1), weight.shape)
        return self.conv.convolve(x, weight * factor, bias, self.relu)
