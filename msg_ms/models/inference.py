"""A model made ready for inference on CPU: what follows from its parameters alone is computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from ..errors import UserError
from ..ops import PackedBranches, PackedMatMul, WeightPacker
from .block import MSGBlock
from .layers import PatchConv
from .msg_transformer import MSGTransformer, Stage


def optimize_for_inference(model: MSGTransformer, strassen: bool = True) -> MSGTransformer:
    """Lay out the blocks' weights and position biases for the native kernels, in place; gives the model.

    The result is the same, sooner: by a tenth to a fifth. The blocks' parameters are replaced, so that the model can't
    be trained, exported, or given other weights from then on: load them before. Where blocks don't take the native
    kernels (other devices, half precision, composed operators), nothing changes.

    Large products are Strassen's where windows have an even number of tokens, as those of 7 x 7 with their message do:
    results differ in rounding (by 1e-6 of the largest), and these weights take 7/4 of the memory. Without ``strassen``
    results are equal to the bit, and take a twentieth longer.
    """
    tokens = model.window_size**2 + 1
    lay_out = WeightPacker(strassen and tokens % 2 == 0)
    if lay_out.available and all(_native(block) for stage in model.layers for block in stage.blocks):
        if model.patch_norm:
            model.patch_embed.proj = InferenceConv(model.patch_embed.proj, lay_out)
        for stage in model.layers:
            stage.blocks = nn.CellList(_inference_blocks(stage, lay_out))
            if stage.downsample is not None:
                stage.downsample.reduction = InferenceConv(stage.downsample.reduction, lay_out)
        for name, parameter in model.parameters_and_names():
            parameter.name = name
        model.compile_cache.clear()  # graphs of the blocks that were
    return model.set_train(False)


def _native(block: nn.Cell) -> bool:
    return isinstance(block, MSGBlock) and block.fused and block.single


def _inference_blocks(stage: Stage, lay_out: WeightPacker) -> list[InferenceBlock]:
    """The stage's blocks, which it gives up one by one, so that their weights are not in memory twice."""
    blocks, made = list(stage.blocks)[::-1], []
    stage.blocks = nn.CellList()
    branches = PackedBranches(blocks[-1].attn.scale, blocks[-1].shuffle, blocks[-1].attn.num_heads)
    while blocks:
        made.append(InferenceBlock(blocks.pop(), lay_out, branches))
    return made


def require_trainable(model: MSGTransformer, what: str) -> None:
    """UserError where ``model`` is optimized for inference, and lacks the parameters that ``what`` needs."""
    if any(isinstance(block, InferenceBlock) for stage in model.layers for block in stage.blocks):
        raise _refusal(what)


def _refusal(what: str) -> UserError:
    return UserError(
        f"{what} needs the blocks' own parameters, and this model is optimized for inference: build it anew"
    )


class InferenceConv(nn.Cell):
    """:class:`PatchConv` with its weight laid out, of patches that are rows already."""

    def __init__(self, conv: PatchConv, lay_out: WeightPacker):
        super().__init__()
        out = conv.weight.shape[0]
        self.weight = _frozen("weight", lay_out.weight(conv.weight.reshape(out, -1)))[0]
        self.bias = _frozen("bias", conv.bias)[0]
        self.matmul = PackedMatMul(out)
        self.product_dtype, self.stream_dtype = conv.product_dtype, conv.stream_dtype

    def product(self, patches: Tensor) -> Tensor:
        """Without the bias: (rows, C * k * k) -> (rows, O)."""
        return self.matmul(patches, self.weight)


class InferenceBlock(nn.Cell):
    """:class:`MSGBlock` with its weights laid out: (B*R, G, N, C) -> (B*R, G, N, C)."""

    def __init__(self, block: MSGBlock, lay_out: WeightPacker, branches: PackedBranches):
        super().__init__()
        gamma1, beta1, qkv, qkv_bias, table, message, proj, proj_bias = block.attention_parameters
        gamma2, beta2, w1, b1, w2, b2 = block.mlp_parameters
        if qkv_bias is None:
            qkv_bias = Tensor(np.zeros(qkv.shape[0], np.float32))
        bias = lay_out.position_bias(table, message)
        self.attention = _frozen(
            "attention", gamma1, beta1, lay_out.weight(qkv), qkv_bias, bias, lay_out.weight(proj), proj_bias
        )
        self.mlp = _frozen("mlp", gamma2, beta2, lay_out.weight(w1), b1, lay_out.weight(w2), b2)
        self.branches = branches

    def construct(self, x: Tensor, keep: None = None) -> Tensor:
        return self.branches(x, self.attention, self.mlp)

    def add_flags_recursive(self, **flags: Any) -> None:
        if flags.get("training"):
            raise _refusal("training")
        super().add_flags_recursive(**flags)


def _frozen(name: str, *values: Tensor) -> ParameterTuple:
    return ParameterTuple(
        Parameter(Tensor(value.asnumpy()), name=f"{name}.{i}", requires_grad=False) for i, value in enumerate(values)
    )
