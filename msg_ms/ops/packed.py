"""Inference with packed weights: everything that depends on the parameters alone is computed once.

The native GEMM needs a weight in the order in which its registers are filled. Packing it at every call costs a fifth
of the time for the 50 to 200 rows of one image. Large weights may be packed for Strassen's algorithm ("Gaussian
elimination is not optimal", 1969): seven products of quadrants in place of eight, in 7/4 of the memory. Or they are
packed in bfloat16, two numbers in the place of a float: half the memory and, on CPUs with such instructions, half the
multiplications.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from ..native.huge_pages import HugePages
from .backend import kernel, native_library
from .patches import constant

SINGLE, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (SINGLE, BFLOAT16)  # of inference with packed weights
LINEAR_BLOCK = 2048  # inputs whose part of a weight in bfloat16, for 64 outputs, fits into the second-level cache


def bfloat16_supported() -> bool:
    """Return whether the native kernels are in use and this CPU has the instructions for bfloat16 (AVX512-BF16)."""
    library = native_library()
    return library is not None and bool(ctypes.CDLL(str(library)).supports_bfloat16())


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class WeightPacker:
    """Pack parameters for the operators of this file and of ``packed_conv.py``.

    It needs the native kernels: check ``available``. ``memory`` is for the packed weights.

    Args:
        strassen: pack large weights for Strassen's algorithm. All products must then have even numbers of rows. Not in
            bfloat16, where the algorithm would add to the rounding errors.
        precision: "float32", or "bfloat16" if ``bfloat16_supported()``.
    """

    STRASSEN_MIN_SIZE = 128  # rows and columns from which Strassen's algorithm is faster

    def __init__(self, strassen: bool, precision: str = SINGLE):
        self.strassen = strassen and precision == SINGLE
        self.precision = precision
        self.memory = HugePages()
        self._pack = kernel("pack_weight", lambda weight: [_round_up(weight[0], 64) * weight[1]])
        self._pack_strassen = kernel(
            "pack_weight_strassen", lambda weight: [7 * _round_up(weight[0] // 2, 64) * (weight[1] // 2)]
        )
        self._pack_bfloat16 = kernel(
            "pack_weight_bfloat16", lambda weight: [_round_up(weight[0], 64) * ((weight[1] + 1) // 2)]
        )
        self._pack_conv3x3 = kernel(
            "pack_conv3x3_int16", lambda weight: [36 * _round_up(weight[0], 64) * ((weight[1] + 1) // 2 + 1)]
        )
        pack_bias = {SINGLE: "pack_position_bias", BFLOAT16: "pack_position_bias_bfloat16"}[precision]
        self._pack_bias = kernel(pack_bias, self._bias_shape)
        self.available = self._pack is not None

    @staticmethod
    def _bias_shape(table: list[int], _: list[int]) -> list[int]:
        tokens = (int(table[0] ** 0.5) + 1) ** 2 // 4 + 1
        return [table[1] * tokens * _round_up(tokens, 16)]

    def weight(self, weight: Tensor) -> Tensor:
        """Pack the weight of a linear layer.

        Args:
            weight: (out, in), float32.

        Returns:
            The packed weight, one-dimensional float32. In bfloat16 an entry holds the bits of two numbers.
        """
        if self.precision == BFLOAT16:
            return self._pack_bfloat16(weight)
        large = self.strassen and all(n % 2 == 0 and n >= self.STRASSEN_MIN_SIZE for n in weight.shape)
        return self._pack_strassen(weight) if large else self._pack(weight)

    def linear(self, weight: Tensor) -> Tensor:
        """Pack the weight (O, C) of a linear layer for ``BFloat16LinearReLU``, block of inputs by block."""
        values = weight.asnumpy()
        blocks = [values[:, k : k + LINEAR_BLOCK] for k in range(0, values.shape[1], LINEAR_BLOCK)]
        return join([self._pack_bfloat16(Tensor(np.ascontiguousarray(block))) for block in blocks])[0]

    def conv3x3(self, weight: Tensor) -> Tensor:
        """Pack the weight (O, C, 3, 3) of a convolution for ``BFloat16MapConv``: 36 factors, each with scales."""
        return self._pack_conv3x3(weight)

    def position_bias(self, table: Tensor, msg_bias: Tensor) -> Tensor:
        """Pack the position bias of an attention layer.

        Args:
            table: ((2w-1)**2, heads), relative position bias.
            msg_bias: (heads, 2, 1, 1), position bias of the MSG token.

        Returns:
            The packed position bias, one-dimensional.
        """
        return self._pack_bias(table, msg_bias)


def join(values: Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...]]:
    """Join parameters to one tensor, each from a multiple of 16 numbers: the framework needs time for each input.

    Args:
        values: float32, of any shape.

    Returns:
        All values, one-dimensional, and the number of each.
    """
    flat = [value.asnumpy().reshape(-1) for value in values]
    padded = [np.pad(value, (0, -len(value) % 16)) for value in flat]
    return Tensor(np.concatenate(padded)), tuple(map(len, flat))


class PackedMatMul(nn.Cell):
    """The product x w^T with a packed weight.

    Args:
        out: output channels.
    """

    def __init__(self, out: int):
        super().__init__()
        self.native = kernel("matmul_packed", lambda x, weight: [x[0], out])

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply rows by a packed weight.

        Args:
            x: (rows, in), float32.
            weight: packed by ``WeightPacker.weight`` in single precision.

        Returns:
            (rows, out), float32.
        """
        return self.native(x, weight)


class BFloat16Embedding(nn.Cell):
    """The patch embedding in bfloat16 with its bias and normalization, for inference, as one native kernel.

    Args:
        out: output channels O.
        window_size: w, in tokens.
        sizes: side, stride and padding of the patches.
    """

    def __init__(self, out: int, window_size: int, sizes: tuple[int, int, int]):
        super().__init__()
        self.window_size, self.sizes = window_size, sizes

        def shape(x, *_):
            side, stride, padding = sizes
            rows, columns = ((pixels + 2 * padding - side) // stride + 1 for pixels in x[2:])
            return [x[0] * rows * columns // window_size**2, window_size**2 + 1, out]

        self.native = kernel("embed_bfloat16", shape)

    def construct(self, x: Tensor, region: int, parameters: Sequence[Tensor], messages: Tensor) -> Tensor:
        """Convolve and normalize images, and put the MSG tokens in front.

        Args:
            x: images (B, C, height, width), float32.
            region: shuffle size s, in windows.
            parameters: packed weight (O, C*k*k), bias, gamma, beta.
            messages: (1, G, 1, O), the MSG tokens of a region.

        Returns:
            (B*R*G, N, O), float32, in window order as of ``ImagePatches``.
        """
        return self.native(x, constant(self.window_size, region, *self.sizes), *parameters, messages)


class BFloat16Merging(nn.Cell):
    """The patch merging in bfloat16 with its bias and normalization, for inference, as one native kernel.

    Args:
        out: output channels O.
    """

    def __init__(self, out: int):
        super().__init__()
        self.native = kernel("merge_bfloat16", lambda x, *_: [x[0] // 4, out])

    def construct(self, x: Tensor, settings: tuple[int, ...], parameters: Sequence[Tensor]) -> Tensor:
        """Convolve and normalize tokens.

        Args:
            x: (B*R, G, N, C).
            settings: height and width in tokens, window size, shuffle size of this stage and of the next.
            parameters: packed weight (O, 9*C) ordered (3, 3, C), bias, gamma, beta.

        Returns:
            (rows, O), float32, in window order as of ``TokenPatches``.
        """
        return self.native(x.reshape(-1, x.shape[-1]), constant(*settings), *parameters)


class PackedBlocks(nn.Cell):
    """Successive blocks of a stage with packed weights, for inference, as one native kernel.

    Args:
        scale: factor of the attention scores.
        shuffle: whether to shuffle the MSG tokens after each attention branch.
        heads: number of attention heads.
        sizes: numbers in each of a block's 13 parameters.
        precision: that of the packed weights, "float32" or "bfloat16". In bfloat16 the operands of all products are
            rounded; sums, softmax, LayerNorm, GELU and the residual stream are single precision.
    """

    # The tokens of a window that the last block computes if its MSG token is enough: Strassen's algorithm needs a pair.
    FIRST_TOKENS = 2

    def __init__(
        self,
        scale: float,
        shuffle: bool,
        heads: int,
        sizes: Sequence[int],
        precision: str = SINGLE,
    ):
        super().__init__()
        # The sizes are exact: those beyond 2**24 are multiples of 64.
        self.settings = Tensor(np.array([scale, shuffle, heads, *sizes], np.float32))
        name = {SINGLE: "stage_packed", BFLOAT16: "stage_bfloat16"}[precision]
        self.native = kernel(name, lambda x, *_: x)
        # MindSpore needs another name for another shape of the output.
        self.native_first = kernel(f"{name}_first", lambda x, *_: [*x[:2], self.FIRST_TOKENS, x[3]])

    def construct(
        self, x: Tensor, parameters: Sequence[Tensor], padding: Tensor | None = None, msg_only: bool = False
    ) -> Tensor:
        """Run the blocks.

        Args:
            x: (B*R, G, N, C), shape letters as in ``windows.py``.
            parameters: those of each block, joined by ``join``. Attention branch: gamma, beta, packed qkv weight, qkv
                bias, packed position bias, packed proj weight, proj bias; see ``AttentionBranch``. MLP branch: gamma,
                beta, packed w1, b1, packed w2, b2; see ``MlpBranch``.
            padding: (5,), see ``AttentionBranch``.
            msg_only: compute only the first two tokens of every window in the last block.

        Returns:
            (B*R, G, N, C), or (B*R, G, 2, C) with ``msg_only``.
        """
        settings = self.settings if padding is None else ops.cat((self.settings, padding))
        run = self.native_first if msg_only else self.native
        return run(x, settings, *parameters)
