"""A block's branches in inference, with what follows from the parameters alone computed beforehand.

A product's weight is laid out for the registers that take it. For the 50 to 200 rows of one image that costs a fifth of
the time of all, and gives the same at every call. Large weights may be laid out for Strassen's product (Gaussian
elimination is not optimal, 1969), which multiplies seven quarters in place of eight: in 7/4 of the memory.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn

from .backend import kernel


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


class WeightPacker:
    """What the kernels of this module take in place of parameters; native only: ``available`` tells.

    ``strassen``: products have even numbers of rows, and large weights may be laid out for Strassen's.
    """

    LEAST = 128  # rows and columns for which that is sooner

    def __init__(self, strassen: bool):
        self.strassen = strassen
        self._plain = kernel("lay_out_weight", lambda weight: [_round_up(weight[0], 64) * weight[1]])
        self._strassen = kernel(
            "lay_out_weight_strassen", lambda weight: [7 * _round_up(weight[0] // 2, 64) * (weight[1] // 2)]
        )
        self._bias = kernel("lay_out_position_bias", self._bias_shape)
        self.available = self._plain is not None

    @staticmethod
    def _bias_shape(table: list[int], _: list[int]) -> list[int]:
        tokens = (int(table[0] ** 0.5) + 1) ** 2 // 4 + 1
        return [table[1] * tokens * _round_up(tokens, 16)]

    def weight(self, weight: Tensor) -> Tensor:
        """Of a linear map, (out, in)."""
        large = self.strassen and all(n % 2 == 0 and n >= self.LEAST for n in weight.shape)
        return self._strassen(weight) if large else self._plain(weight)

    def position_bias(self, table: Tensor, message: Tensor) -> Tensor:
        """Of :class:`WindowAttention`'s parameters."""
        return self._bias(table, message)


class PackedMatMul(nn.Cell):
    """x w^T, (rows, in) -> (rows, out), with the weight as :class:`WeightPacker` gives it."""

    def __init__(self, out: int):
        super().__init__()
        self.native = kernel("product_laid_out", lambda x, weight: [x[0], out])

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.native(x, weight)


class PackedBranches(nn.Cell):
    """Both branches of a block, (B*R, G, N, C) -> the same, in inference.

    ``attention`` and ``mlp`` are what :class:`AttentionBranch` and :class:`MlpBranch` take between their input and
    ``keep``, weights and position bias as :class:`WeightPacker` gives them (the bias in place of table and message).
    """

    def __init__(self, scale: float, shuffle: bool, heads: int):
        super().__init__()
        self.settings = Tensor(np.array([scale, shuffle, heads], np.float32))
        self.attention_branch = kernel("attention_branch_laid_out", lambda x, *_: x)
        self.mlp_branch = kernel("mlp_branch_laid_out", lambda x, *_: x)

    def construct(self, x: Tensor, attention: tuple[Tensor, ...], mlp: tuple[Tensor, ...]) -> Tensor:
        return self.mlp_branch(self.attention_branch(x, *attention, self.settings), *mlp)
