"""The backbone's layers as parts of an ONNX graph, leaf to root: each function translates a Cell of ``msg_ms/models``.

The shape letters are those of ``msg_ms/ops/windows.py``. Inside a stage each token is a row, (B*R*G*N, C), so a layer
is one matrix product. Position biases do not depend on the image and become constants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Parameter

from ..models.attention import WindowAttention
from ..models.block import MSGBlock
from ..models.detection.window_maps import WindowMap
from ..models.layers import LayerNorm, Linear, Mlp, PatchConv
from ..models.stages import PatchMerging
from ..models.windows import window_partition, window_reverse
from ..ops.bias_gelu import RSQRT_2
from ..ops.layer_norm import EPSILON
from .graph import Value

GELU_OPSET = 20  # the first with Gelu; before, GELU is composed in the form that inference engines recognise


def constant(x: Value, parameter: Parameter, array: np.ndarray | None = None) -> str:
    """Add a parameter, or ``array`` with its values in another shape, as a constant."""
    return x.graph.constant(parameter.name, parameter.asnumpy() if array is None else array)


def linear(x: Value, cell: Linear) -> Value:
    """Map (..., in) to (rows, out) by one matrix product with bias, which is fastest in inference engines."""
    weight = constant(x, cell.weight)
    bias = [] if cell.bias is None else [constant(x, cell.bias)]
    x = x.reshape(-1, cell.in_features)
    return x.then("Gemm", weight, *bias, shape=(x.shape[0], cell.out_features), transB=1)


def layer_norm(x: Value, cell: LayerNorm) -> Value:
    """Normalise the last axis."""
    gamma, beta = constant(x, cell.gamma), constant(x, cell.beta)
    return x.then("LayerNormalization", gamma, beta, axis=-1, epsilon=EPSILON)


def gelu(x: Value) -> Value:
    """Apply the exact GELU."""
    if x.graph.opset >= GELU_OPSET:
        return x.then("Gelu", approximate="none")
    one_half, one, root = (x.graph.number(value) for value in (0.5, 1.0, 1 / RSQRT_2))
    return x.then("Div", root).then("Erf").then("Add", one).then("Mul", x.name).then("Mul", one_half)


def patch_conv(x: Value, cell: PatchConv) -> Value:
    """Map (B, C, H, W) to (B, H', W', O)."""
    channels, _, kernel, _ = cell.weight.shape
    sides = [(side + 2 * cell.padding - kernel) // cell.stride + 1 for side in x.shape[2:]]
    geometry = dict(kernel_shape=[kernel] * 2, strides=[cell.stride] * 2, pads=[cell.padding] * 4)
    shape = (x.shape[0], channels, *sides)
    y = x.then("Conv", constant(x, cell.weight), constant(x, cell.bias), shape=shape, **geometry)
    # Not merged with the transposes of the windows: engines are slow at the combined permutation.
    return y.transpose(0, 2, 3, 1)


def attention(x: Value, cell: WindowAttention, tokens: int) -> Value:
    """Attend within windows of ``tokens`` rows."""
    channels, heads = x.shape[-1], cell.num_heads
    split = linear(x, cell.qkv).split(1, 3)
    q, k, v = (value.reshape(-1, tokens, heads, channels // heads) for value in split)
    q, k, v = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    scaled = q.then("Mul", x.graph.number(cell.scale))
    name = cell.relative_position_bias_table.name.replace("relative_position_bias_table", "position_bias")
    bias = x.graph.constant(name, cell.position_bias().asnumpy()[None])
    scores = scaled.then("MatMul", k.name, shape=(*q.shape[:-1], tokens)).then("Add", bias)
    y = scores.then("Softmax", axis=-1).then("MatMul", v.name, shape=q.shape)
    return linear(y.transpose(0, 2, 1, 3).reshape(-1, channels), cell.proj)


def mlp(x: Value, cell: Mlp) -> Value:
    """Apply the two linear layers to rows."""
    return linear(gelu(linear(x, cell.fc1)), cell.fc2)


def shuffle_regions(msg: Value, windows: int) -> Value:
    """Shuffle MSG tokens (P, 1, C) within regions of ``windows`` windows, as ``msg_ms/ops/windows.py`` does."""
    channels = msg.shape[-1]
    msg = msg.reshape(-1, windows, windows, channels // windows).transpose(0, 2, 1, 3)
    return msg.reshape(-1, 1, channels)


def block(
    x: Value,
    cell: MSGBlock,
    tokens: int,
    shuffle: Callable[[Value], Value] | None = None,
    valid: Value | None = None,
    msg_only: bool = False,
) -> Value:
    """Apply a block to rows.

    Args:
        x: (B*R*G*N, C).
        cell: The block.
        tokens: N.
        shuffle: Shuffles MSG tokens (B*R*G, 1, C); None where every window is a region of its own.
        valid: 0 for padded patches and else 1, (1, rows of an image, 1); None without padding.
        msg_only: Return the MSG tokens alone, (B*R*G, C).
    """
    channels = x.shape[-1]
    with x.graph.scope("attn"):
        normed = layer_norm(x, cell.norm1)
        if valid is not None:
            normed = (normed.reshape(-1, valid.shape[1], channels) * valid).reshape(-1, channels)
        x = x + attention(normed, cell.attn, tokens)
        if cell.shuffle and shuffle is not None:
            x = x.reshape(-1, tokens, channels)
            x = shuffle(x.slice(1, 0, 1)).join(x.slice(1, 1, tokens), 1).reshape(-1, channels)
        if msg_only:
            x = x.reshape(-1, tokens, channels).slice(1, 0, 1).reshape(-1, channels)
    with x.graph.scope("mlp"):
        return x + mlp(layer_norm(x, cell.norm2), cell.mlp)


def join_patches(patches: Value, window_map: WindowMap, window_size: int) -> Value:
    """Join the patches of windows (B*R*G, w*w, C) to a map (B, H, W, C) without its padding."""
    height, width, region = window_map.geometry
    windows = patches.reshape(-1, region**2, window_size**2, patches.shape[-1])
    image = window_reverse(windows, window_size, region, height, width)
    return image.crop(1, window_map.height).crop(2, window_map.width)


def cut_patches(image: Value, window_map: WindowMap, window_size: int) -> Value:
    """Cut a map (B, H, W, C) with padding into windows (B*R*G, w*w, C)."""
    height, width, region = window_map.geometry
    windows = window_partition(image.pad(1, height).pad(2, width), window_size, region)
    return windows.reshape(-1, window_size**2, image.shape[-1])


def merging(x: Value, cell: PatchMerging, here: WindowMap, there: WindowMap) -> Value:
    """Merge the tokens (B*R*G, N, C) of a stage to those of the next one."""

    # For the patch tokens, and for the MSG tokens as windows of 1 x 1 token.
    def merged(tokens: Value, size: int, before: WindowMap, after: WindowMap) -> Value:
        image = join_patches(tokens, before, size)
        return cut_patches(patch_conv(image.transpose(0, 3, 1, 2), cell.reduction), after, size)

    patches = merged(x.slice(1, 1, x.shape[1]), cell.window_size, here, there)
    msg = merged(x.slice(1, 0, 1), 1, _grid(here), _grid(there))
    return layer_norm(msg.join(patches, 1), cell.norm)


def _grid(window_map: WindowMap) -> WindowMap:
    """Return the map of a stage's MSG tokens."""
    rows, columns = window_map.rows, window_map.columns
    geometry = window_map.geometry._replace(height=rows, width=columns)
    return window_map._replace(height=rows, width=columns, geometry=geometry)


def put_messages(x: Value, table: Parameter, messages: np.ndarray, batch: int | None) -> Value:
    """Put each window's MSG token in front of its patches.

    Args:
        x: Patches (B*P, w*w, C).
        table: The MSG tokens' parameter.
        messages: MSG tokens of the first windows, which repeat: (windows, C).
        batch: Batch size, or None for a dynamic batch.

    Returns:
        (B*P, N, C).
    """
    graph, (windows, _, channels) = x.graph, x.shape
    period = len(messages)
    name = constant(x, table, messages[None])
    if batch is None:
        (count,) = graph.add("Shape", x.reshape(-1, period, *x.shape[1:]).name, end=1)
        (shape,) = graph.add("Concat", count, graph.integers(period, channels), axis=0)
    else:
        shape = graph.integers(batch * windows // period, period, channels)
    (name,) = graph.add("Expand", name, shape)
    return Value(graph, name, (windows // period, period, channels)).reshape(-1, 1, channels).join(x, 1)
