"""The model's operators, one public operator per file.

The composed form of an operator consists of MindSpore operators and runs on every device and in every precision. The
native form is a C++ kernel for CPU in single precision. Most operators have both. For those with a native form only,
which have an attribute ``available``, the model composes the same of other operators. The kernels in ``csrc`` are
compiled on first use. ``set_backend`` chooses the form.
"""

from .adamw import AdamWStep
from .backend import composed_dtype, get_backend, set_backend, use_backend
from .bias_gelu import BiasGelu
from .branches import AttentionBranch, MlpBranch
from .conv import MapConv
from .layer_norm import BiasLayerNorm, layer_norm
from .masked_batch_norm import MaskedBatchNorm
from .matmul import MatMul
from .nms import NMS
from .packed import (
    PRECISIONS,
    BFloat16Embedding,
    BFloat16Merging,
    PackedBlocks,
    PackedMatMul,
    WeightPacker,
    bfloat16_supported,
)
from .packed_conv import BFloat16LinearReLU, BFloat16MapConv
from .pad import pad_axis
from .patch_conv import patch_conv
from .patches import ImagePatches, TokenPatches
from .residual import Residual
from .roi_align import RoIAlign
from .squared_norm import SquaredNorm
from .transpose import Transpose
from .upsample import UpsampleAdd
from .window_attention import position_bias, window_attention
from .windows import ShuffleMessages, window_partition, window_reverse

__all__ = [
    "NMS",
    "PRECISIONS",
    "AdamWStep",
    "AttentionBranch",
    "BFloat16Embedding",
    "BFloat16LinearReLU",
    "BFloat16MapConv",
    "BFloat16Merging",
    "BiasGelu",
    "BiasLayerNorm",
    "ImagePatches",
    "MapConv",
    "MaskedBatchNorm",
    "MatMul",
    "MlpBranch",
    "PackedBlocks",
    "PackedMatMul",
    "Residual",
    "RoIAlign",
    "ShuffleMessages",
    "SquaredNorm",
    "TokenPatches",
    "Transpose",
    "UpsampleAdd",
    "WeightPacker",
    "bfloat16_supported",
    "composed_dtype",
    "get_backend",
    "layer_norm",
    "pad_axis",
    "patch_conv",
    "position_bias",
    "set_backend",
    "use_backend",
    "window_attention",
    "window_partition",
    "window_reverse",
]
