"""Faster inference on CPU: weights packed once, in place of at every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..errors import UserError, shown
from ..framework.graph_method import GraphMethods
from ..native.huge_pages import HugePages
from ..ops import (
    PRECISIONS,
    BFloat16Embedding,
    BFloat16Merging,
    MapConv,
    PackedBlocks,
    PackedMatMul,
    WeightPacker,
    bfloat16_supported,
    get_backend,
)
from ..ops.conv import LARGE_TILE
from ..ops.packed import SINGLE, join
from .arguments import switch
from .backbone import MSGBackbone
from .block import MSGBlock
from .layers import PatchConv
from .stages import PatchEmbed, PatchMerging, Stage
from .windows import StageGeometry


def optimize_for_inference(model: nn.Cell, strassen: bool = False, precision: str = "float32") -> nn.Cell:
    """Pack the weights and position biases for the native CPU kernels, in place.

    In single precision results are bit-identical, and inference time on CPU drops by 5 to 15%. The parameters of the
    blocks are replaced. Load the weights and set the precision before; afterwards the model cannot be trained,
    exported or given other weights. A backbone whose blocks do not use the native kernels (other devices, half
    precision, composed operators) stays unchanged.

    Args:
        model: An MSG-Transformer, or a larger Cell that contains one or several as backbones. Pass the largest Cell
            that is called: the compiled graphs of all Cells in ``model`` are discarded, but not those of Cells around
            it.
        strassen: Multiply large matrices by Strassen's algorithm where windows have an even number of tokens (7 x 7
            windows with their MSG token do). This saves another 5% of the time. Results then differ by rounding,
            about 1e-6 of the largest value, and the packed weights need 7/4 of the memory. A detector's 3x3
            convolutions use larger tiles of Winograd's algorithm, see ``msg_ms.ops.MapConv``.
        precision: "float32", or "bfloat16" on CPUs with AVX512-BF16 instructions. In bfloat16 the backbones' matrix
            products have rounded operands, weights need half the memory, and ``strassen`` does not apply to them.
            Sums, softmax, LayerNorm, GELU, the residual stream and the head stay in single precision. Results differ
            by about 1% of the largest value. So it is with a detector's neck and heads. Their 3x3 convolutions
            multiply 16-bit integers with smaller errors, see ``msg_ms.ops.BFloat16MapConv``. The last layers of the
            heads, and all that chooses boxes, stay in single precision.

    Returns:
        The same ``model``, in evaluation mode.

    Raises:
        UserError: If ``model`` contains no MSG-Transformer, or ``precision`` is unknown, or it is "bfloat16" and the
            CPU, the operators in use or the model's form do not support it.
    """
    cells = model.cells_and_names() if isinstance(model, nn.Cell) else ()
    backbones = [cell for _, cell in cells if isinstance(cell, MSGBackbone)]
    if not backbones:
        raise UserError(f"{type(model).__name__} contains no MSG-Transformer to optimize for inference")
    strassen = switch("strassen", strassen)
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise UserError(f"precision={shown(precision)}: must be one of {', '.join(PRECISIONS)}")
    if precision != SINGLE:
        for backbone in backbones:
            _require_bfloat16(backbone)
    for backbone in backbones:
        _pack(backbone, strassen, precision)
    if precision != SINGLE:
        packer = WeightPacker(False, precision)
        for cell in [cell for _, cell in model.cells_and_names() if hasattr(cell, "pack_for_inference")]:
            _pack_head(cell, packer)
    for _, cell in model.cells_and_names():
        if strassen and isinstance(cell, MapConv):
            cell.set_tile(LARGE_TILE)
        cell.compile_cache.clear()  # graphs of the replaced blocks
        if isinstance(cell, GraphMethods):
            cell.forget_graphs()
    return model.set_train(False)


def require_bfloat16_cpu() -> None:
    """Raise UserError if this process can't run products in bfloat16: other device, composed operators, older CPU."""
    if bfloat16_supported():
        return
    target = ms.get_context("device_target")
    if target != "CPU":
        raise UserError(
            f"inference with precision bfloat16 is for CPU; on {target} use mixed precision (AMP_OPT_LEVEL)"
        )
    if get_backend() == "composed":
        raise UserError("inference with precision bfloat16 needs the native kernels; the operators are set to composed")
    raise UserError(
        "inference with precision bfloat16 needs the native kernels and a CPU with AVX512-BF16 instructions (Zen 4, "
        "Cooper Lake, Sapphire Rapids or newer); use float32"
    )


def require_trainable(model: nn.Cell, purpose: str) -> None:
    """Raise UserError if ``model`` is optimized for inference and so lacks the parameters that ``purpose`` needs."""
    if any(isinstance(cell, InferenceBlocks) for _, cell in model.cells_and_names()):
        raise _refusal(purpose)


def _require_bfloat16(backbone: MSGBackbone) -> None:
    require_bfloat16_cpu()
    blocks = [block for stage in backbone.layers for block in stage.blocks]
    if not all(_is_native(block) for block in blocks):
        raise UserError(
            "inference with precision bfloat16 needs a model in single precision (AMP_OPT_LEVEL O0) whose blocks use "
            "the native kernels, and that is not optimized for inference yet"
        )
    sizes = {block.attn.qkv.in_features // block.attn.num_heads for block in blocks}
    if any(size % 2 for size in sizes):
        raise UserError(f"inference with precision bfloat16 needs heads of an even size, not {min(sizes)} channels")


def _pack(backbone: MSGBackbone, strassen: bool, precision: str) -> None:
    tokens = backbone.window_size**2 + 1
    packer = WeightPacker(strassen and tokens % 2 == 0, precision)
    if not packer.available or not all(_is_native(block) for stage in backbone.layers for block in stage.blocks):
        return
    prefix = backbone.msg_tokens.name.removesuffix("msg_tokens")  # the backbone's path in a larger model
    single = packer.precision == SINGLE
    if backbone.patch_norm and not backbone.any_size:
        if single:
            backbone.patch_embed.proj = InferenceConv(backbone.patch_embed.proj, packer)
        else:
            backbone.patch_embed = InferenceEmbed(backbone.patch_embed, backbone.window_size, packer)
    for stage in backbone.layers:
        stage.blocks = nn.CellList([_inference_blocks(stage, packer)])
        if stage.downsample is None or backbone.any_size:
            continue
        if single:
            stage.downsample.reduction = InferenceConv(stage.downsample.reduction, packer)
        else:
            stage.downsample = InferenceMerging(stage.downsample, packer)
    for name, parameter in backbone.parameters_and_names():
        parameter.name = prefix + name
    backbone.repeats_calls = True


def _pack_head(head: nn.Cell, packer: WeightPacker) -> None:
    """Pack a part of a detector, which has the method for it."""
    local, parameter = next(iter(head.parameters_and_names()))
    prefix = parameter.name.removesuffix(local)
    head.pack_for_inference(packer)
    for name, parameter in head.parameters_and_names():
        parameter.name = prefix + name


def _is_native(block: nn.Cell) -> bool:
    return isinstance(block, MSGBlock) and block.native and block.single_precision


def _inference_blocks(stage: Stage, packer: WeightPacker) -> InferenceBlocks:
    """Convert the stage's blocks one by one, removing each from the stage, so that no weights are in memory twice."""
    blocks = list(stage.blocks)[::-1]
    parameters: list[Parameter] = []
    sizes: tuple[int, ...] = ()
    stage.blocks = nn.CellList()
    first = blocks[-1]
    attention = (first.attn.scale, first.shuffle, first.attn.num_heads)
    while blocks:
        values, sizes = join(_pack_block(blocks.pop(), packer))
        parameters.append(packer.memory.parameter(values, f"packed.{len(parameters)}"))
    return InferenceBlocks(parameters, PackedBlocks(*attention, sizes, packer.precision))


def _pack_block(block: MSGBlock, packer: WeightPacker) -> list[Tensor]:
    """Return the parameters of a block in the order of ``PackedBlocks``."""
    gamma1, beta1, qkv, qkv_bias, table, msg_bias, proj, proj_bias = block.attention_parameters
    gamma2, beta2, w1, b1, w2, b2 = block.mlp_parameters
    if qkv_bias is None:
        qkv_bias = Tensor(np.zeros(qkv.shape[0], np.float32))
    bias = packer.position_bias(table, msg_bias)
    attention = [gamma1, beta1, packer.weight(qkv), qkv_bias, bias, packer.weight(proj), proj_bias]
    return [*attention, gamma2, beta2, packer.weight(w1), b1, packer.weight(w2), b2]


def _refusal(purpose: str) -> UserError:
    return UserError(
        f"{purpose} needs the blocks' own parameters, but this model is optimized for inference: build it again"
    )


class InferenceConv(nn.Cell):
    """A ``PatchConv`` with packed weight, for patches that are already rows."""

    def __init__(self, conv: PatchConv, packer: WeightPacker):
        super().__init__()
        out = conv.weight.shape[0]
        self.weight = _frozen(packer.memory, "weight", packer.weight(conv.weight.reshape(out, -1)))[0]
        self.bias = _frozen(packer.memory, "bias", conv.bias)[0]
        self.matmul = PackedMatMul(out)
        self.matmul_dtype, self.residual_dtype = conv.matmul_dtype, conv.residual_dtype

    def matmul_rows(self, patches: Tensor) -> Tensor:
        """Return the product without the bias: (rows, C * k * k) -> (rows, O)."""
        return self.matmul(patches, self.weight)


class InferenceEmbed(nn.Cell):
    """A ``PatchEmbed`` in bfloat16: images (B, in_chans, height, width) -> windows of tokens."""

    with_messages = True

    def __init__(self, embed: PatchEmbed, window_size: int, packer: WeightPacker):
        super().__init__()
        conv, norm = embed.proj, embed.norm
        out, _, side, _ = conv.weight.shape
        weight = packer.weight(conv.weight.reshape(out, -1))
        self.values = _frozen(packer.memory, "proj", weight, conv.bias, norm.gamma, norm.beta)
        self.embedding = BFloat16Embedding(out, window_size, (side, conv.stride, conv.padding))

    def tokens(self, x: Tensor, messages: Tensor, region: int) -> Tensor:
        """Return the patch tokens with the MSG tokens (1, G, 1, C) in front: (B*R, G, N, C)."""
        x = self.embedding(x.astype(ms.float32), region, self.values, messages)
        return x.reshape(-1, region**2, *x.shape[1:])

    def windows(self, x: Tensor, window_size: int, region: int) -> Tensor:
        """Return the patch tokens (B*R, G, w*w, C)."""
        return self.tokens(x, ops.zeros((1, region**2, 1, self.values[1].shape[0]), ms.float32), region)[:, :, 1:]


class InferenceMerging(nn.Cell):
    """A ``PatchMerging`` in bfloat16: (B*R, G, N, C) -> (B*R', G', N, 2*C)."""

    def __init__(self, merging: PatchMerging, packer: WeightPacker):
        super().__init__()
        conv, norm = merging.reduction, merging.norm
        out = conv.weight.shape[0]
        weight = packer.weight(conv.weight.transpose(0, 2, 3, 1).reshape(out, -1))
        self.window_size = merging.window_size
        self.values = _frozen(packer.memory, "reduction", weight, conv.bias, norm.gamma, norm.beta)
        self.merging = BFloat16Merging(out)

    def construct(self, x: Tensor, geometry: StageGeometry, next_geometry: StageGeometry) -> Tensor:
        """Return the tokens in the geometry of the next stage."""
        (height, width, region), (_, _, next_region) = geometry, next_geometry
        y = self.merging(x, (height, width, self.window_size, region, next_region), self.values)
        return y.reshape(-1, next_region**2, x.shape[2], y.shape[-1])


class InferenceBlocks(nn.Cell):
    """The blocks of a stage with packed weights: (B*R, G, N, C) -> (B*R, G, N, C), or with the first tokens only."""

    def __init__(self, parameters: Sequence[Parameter], packed: PackedBlocks):
        super().__init__()
        self.values = ParameterTuple(parameters)
        self.packed = packed

    def runs_kernels(self, x: Tensor) -> bool:
        """Return True, as ``MSGBlock.runs_kernels`` may."""
        return True

    def construct(
        self, x: Tensor, drop_path_scale: None = None, padding: Tensor | None = None, msg_only: bool = False
    ) -> Tensor:
        """Return the tokens after the blocks; nothing is dropped in inference."""
        return self.packed(x, self.values, padding, msg_only)

    def set_compute_dtype(self, matmul: ms.Type, residual: ms.Type) -> None:
        """Raise UserError: the weights are packed in one precision."""
        raise _refusal("set_precision")

    def add_flags_recursive(self, **flags: Any) -> None:
        """Raise UserError when MindSpore sets the training flag."""
        if flags.get("training"):
            raise _refusal("training")
        super().add_flags_recursive(**flags)


def _frozen(memory: HugePages, name: str, *values: Tensor) -> ParameterTuple:
    return ParameterTuple(memory.parameter(value, f"{name}.{i}") for i, value in enumerate(values))
