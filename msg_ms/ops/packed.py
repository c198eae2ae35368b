"""Inference with packed weights: everything that depends on the parameters alone is computed once.

The native GEMM needs a weight in the order in which its registers are filled. Packing it at every call costs a fifth
of the time for the 50 to 200 rows of one image. Large weights may be packed for Strassen's algorithm ("Gaussian
elimination is not optimal", 1969): seven products of quadrants in place of eight, in 7/4 of the memory.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from .backend import kernel


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class WeightPacker:
    """Pack parameters for ``PackedMatMul`` and ``PackedBranches``.

    It needs the native kernels: check ``available``.

    Args:
        strassen: pack large weights for Strassen's algorithm. All products must then have even numbers of rows.
    """

    STRASSEN_MIN_SIZE = 128  # rows and columns from which Strassen's algorithm is faster

    def __init__(self, strassen: bool):
        self.strassen = strassen
        self._pack = kernel("pack_weight", lambda weight: [_round_up(weight[0], 64) * weight[1]])
        self._pack_strassen = kernel(
            "pack_weight_strassen", lambda weight: [7 * _round_up(weight[0] // 2, 64) * (weight[1] // 2)]
        )
        self._pack_bias = kernel("pack_position_bias", self._bias_shape)
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
            The packed weight, one-dimensional.
        """
        large = self.strassen and all(n % 2 == 0 and n >= self.STRASSEN_MIN_SIZE for n in weight.shape)
        return self._pack_strassen(weight) if large else self._pack(weight)

    def position_bias(self, table: Tensor, msg_bias: Tensor) -> Tensor:
        """Pack the position bias of an attention layer.

        Args:
            table: ((2w-1)**2, heads), relative position bias.
            msg_bias: (heads, 2, 1, 1), position bias of the MSG token.

        Returns:
            The packed position bias, one-dimensional.
        """
        return self._pack_bias(table, msg_bias)


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
            weight: packed by ``WeightPacker.weight``.

        Returns:
            (rows, out).
        """
        return self.native(x, weight)


class PackedBranches(nn.Cell):
    """Both branches of a block with packed weights, for inference.

    Args:
        scale: factor of the attention scores.
        shuffle: whether to shuffle the MSG tokens after the attention branch.
        heads: number of attention heads.
    """

    def __init__(self, scale: float, shuffle: bool, heads: int):
        super().__init__()
        self.settings = Tensor(np.array([scale, shuffle, heads], np.float32))
        self.attention_branch = kernel("attention_branch_packed", lambda x, *_: x)
        self.mlp_branch = kernel("mlp_branch_packed", lambda x, *_: x)

    def construct(
        self, x: Tensor, attention: tuple[Tensor, ...], mlp: tuple[Tensor, ...], padding: Tensor | None = None
    ) -> Tensor:
        """Run a block.

        Args:
            x: (B*R, G, N, C), shape letters as in ``windows.py``.
            attention: gamma, beta, packed qkv weight, qkv bias, packed position bias, packed proj weight, proj bias;
                see ``AttentionBranch``.
            mlp: gamma, beta, packed w1, b1, packed w2, b2; see ``MlpBranch``.
            padding: (5,), see ``AttentionBranch``.

        Returns:
            (B*R, G, N, C).
        """
        settings = self.settings if padding is None else ops.cat((self.settings, padding))
        return self.mlp_branch(self.attention_branch(x, *attention, settings), *mlp)
