"""The model as an ONNX graph, leaf to root: each function translates one Cell of ``msg_ms/models``.

The shape letters are those of ``msg_ms/ops/windows.py``. Inside a stage each token is a row, (B*R*G*N, C), so a layer
is one matrix product. Position biases and embeddings do not depend on the image and become constants.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from mindspore import Parameter
from onnx import helper

from ..models.attention import WindowAttention
from ..models.block import MSGBlock
from ..models.layers import LayerNorm, Linear, Mlp, PatchConv
from ..models.msg_transformer import MSGTransformer
from ..models.stages import PatchMerging
from ..models.windows import window_partition, window_reverse
from ..ops.bias_gelu import RSQRT_2
from ..ops.layer_norm import EPSILON
from ..version import __version__
from .check import INPUT, output_name
from .graph import Graph, Value, tensor_info

GELU_OPSET = 20  # the first with Gelu; before, GELU is composed in the form that inference engines recognise


def build_onnx(
    model: MSGTransformer, batch: int | None, opset: int, softmax: bool, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Translate a whole model.

    Args:
        model: The trained model.
        batch: Batch size, or None for a dynamic batch.
        opset: ONNX operator set.
        softmax: Whether to append a softmax.
        metadata: Entries of the file's metadata.
    """
    graph = Graph(opset)
    images = Value(graph, INPUT, (1, model.in_chans, *model.img_size))
    output = _network(images, model, batch)
    name = output_name(model, softmax)
    if softmax:
        output = output.then("Softmax", axis=-1)
    graph.drop_unused(output.name)
    (last,) = (node for node in graph.nodes if output.name in node.output)
    last.output[:] = [name]
    rows = "batch" if batch is None else batch
    proto = helper.make_graph(
        graph.nodes,
        "msg_transformer",
        [tensor_info(INPUT, [rows, *images.shape[1:]])],
        [tensor_info(name, [rows, *output.shape[1:]])],
        list(graph.constants.values()),
    )
    versions = [helper.make_opsetid("", opset)]
    ir_version = helper.find_min_ir_version_for(versions)
    onnx_model = helper.make_model(
        proto, opset_imports=versions, ir_version=ir_version, producer_name="msg_ms", producer_version=__version__
    )
    helper.set_model_props(onnx_model, dict(metadata))
    return onnx_model


def _weight(x: Value, parameter: Parameter, array: np.ndarray | None = None) -> str:
    """Add a parameter, or ``array`` with its values in another shape, as a constant."""
    return x.graph.constant(parameter.name, parameter.asnumpy() if array is None else array)


def _linear(x: Value, cell: Linear) -> Value:
    """Map (..., in) to (rows, out) by one matrix product with bias, which is fastest in inference engines."""
    weight = _weight(x, cell.weight)
    bias = [] if cell.bias is None else [_weight(x, cell.bias)]
    x = x.reshape(-1, cell.in_features)
    return x.then("Gemm", weight, *bias, shape=(x.shape[0], cell.out_features), transB=1)


def _layer_norm(x: Value, cell: LayerNorm) -> Value:
    gamma, beta = _weight(x, cell.gamma), _weight(x, cell.beta)
    return x.then("LayerNormalization", gamma, beta, axis=-1, epsilon=EPSILON)


def _gelu(x: Value) -> Value:
    if x.graph.opset >= GELU_OPSET:
        return x.then("Gelu", approximate="none")
    one_half, one, root = (x.graph.number(value) for value in (0.5, 1.0, 1 / RSQRT_2))
    return x.then("Div", root).then("Erf").then("Add", one).then("Mul", x.name).then("Mul", one_half)


def _patch_conv(x: Value, cell: PatchConv) -> Value:
    """Map (B, C, H, W) to (B, H', W', O)."""
    channels, _, kernel, _ = cell.weight.shape
    sides = [(side + 2 * cell.padding - kernel) // cell.stride + 1 for side in x.shape[2:]]
    geometry = dict(kernel_shape=[kernel] * 2, strides=[cell.stride] * 2, pads=[cell.padding] * 4)
    shape = (x.shape[0], channels, *sides)
    y = x.then("Conv", _weight(x, cell.weight), _weight(x, cell.bias), shape=shape, **geometry)
    # Not merged with the transposes of the windows: engines are slow at the combined permutation.
    return y.transpose(0, 2, 3, 1)


def _attention(x: Value, cell: WindowAttention, tokens: int) -> Value:
    channels, heads = x.shape[-1], cell.num_heads
    split = _linear(x, cell.qkv).split(1, 3)
    q, k, v = (value.reshape(-1, tokens, heads, channels // heads) for value in split)
    q, k, v = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    scaled = q.then("Mul", x.graph.number(cell.scale))
    name = cell.relative_position_bias_table.name.replace("relative_position_bias_table", "position_bias")
    bias = x.graph.constant(name, cell.position_bias().asnumpy()[None])
    scores = scaled.then("MatMul", k.name, shape=(*q.shape[:-1], tokens)).then("Add", bias)
    y = scores.then("Softmax", axis=-1).then("MatMul", v.name, shape=q.shape)
    return _linear(y.transpose(0, 2, 1, 3).reshape(-1, channels), cell.proj)


def _mlp(x: Value, cell: Mlp) -> Value:
    return _linear(_gelu(_linear(x, cell.fc1)), cell.fc2)


def _shuffle_msg_tokens(x: Value, windows: int, tokens: int) -> Value:
    """Shuffle the MSG tokens of regions of ``windows`` windows, as ``msg_ms/models/windows.py`` does."""
    channels = x.shape[-1]
    x = x.reshape(-1, tokens, channels)
    msg = x.slice(1, 0, 1).reshape(-1, windows, windows, channels // windows).transpose(0, 2, 1, 3)
    return msg.reshape(-1, 1, channels).join(x.slice(1, 1, tokens), 1).reshape(-1, channels)


def _block(x: Value, cell: MSGBlock, windows: int, tokens: int, msg_only: bool) -> Value:
    with x.graph.scope("attn"):
        x = x.then("Add", _attention(_layer_norm(x, cell.norm1), cell.attn, tokens).name)
        if cell.shuffle and windows > 1:
            x = _shuffle_msg_tokens(x, windows, tokens)
        if msg_only:
            x = x.reshape(-1, tokens, x.shape[-1]).slice(1, 0, 1).reshape(-1, x.shape[-1])
    with x.graph.scope("mlp"):
        return x.then("Add", _mlp(_layer_norm(x, cell.norm2), cell.mlp).name)


def _merging(x: Value, cell: PatchMerging, layout: tuple[int, int, int], next_region: int) -> Value:
    (height, width, region), w = layout, cell.window_size

    # For the patch tokens, and for the MSG tokens as windows of 1 x 1 token.
    def merged(tokens: Value, size: int) -> Value:
        windows = tokens.reshape(-1, region**2, size**2, x.shape[-1])
        image = window_reverse(windows, size, region, height // w * size, width // w * size)
        y = window_partition(_patch_conv(image.transpose(0, 3, 1, 2), cell.reduction), size, next_region)
        return y.reshape(-1, size**2, y.shape[-1])

    msg, patches = merged(x.slice(1, 0, 1), 1), merged(x.slice(1, 1, x.shape[1]), w)
    return _layer_norm(msg.join(patches, 1), cell.norm)


def _msg_tokens(x: Value, model: MSGTransformer, batch: int | None) -> Value:
    """Return an MSG token for each window of ``x`` (B*R*G, w*w, C), shape (B*R*G, 1, C)."""
    graph, (windows, _, channels) = x.graph, x.shape
    region = model.geometry[0].region ** 2
    table = _weight(x, model.msg_tokens, model.msg_tokens.asnumpy().reshape(1, region, channels))
    if batch is None:
        (count,) = graph.add("Shape", x.reshape(-1, region, *x.shape[1:]).name, end=1)
        (shape,) = graph.add("Concat", count, graph.integers(region, channels), axis=0)
    else:
        shape = graph.integers(batch * windows // region, region, channels)
    (name,) = graph.add("Expand", table, shape)
    return Value(graph, name, (windows // region, region, channels)).reshape(-1, 1, channels)


def _embed(images: Value, model: MSGTransformer, batch: int | None) -> Value:
    w, (height, width, region) = model.window_size, model.geometry[0]
    x = window_partition(_patch_conv(images, model.patch_embed.proj), w, region)
    channels = x.shape[-1]
    x = x.reshape(-1, w * w, channels)
    if model.patch_norm:
        x = _layer_norm(x, model.patch_embed.norm)
    table = model.absolute_pos_embed
    if table is not None:
        windows = window_partition(table.asnumpy().reshape(1, height, width, channels), w, region)
        x = x.reshape(-1, *windows.shape).then("Add", _weight(x, table, windows[None])).reshape(-1, w * w, channels)
    return _msg_tokens(x, model, batch).join(x, 1)


def _network(images: Value, model: MSGTransformer, batch: int | None) -> Value:
    graph, tokens = images.graph, model.window_size**2 + 1
    with graph.scope("patch_embed"):
        x = _embed(images, model, batch)
    for i, stage in enumerate(model.layers):
        x = x.reshape(-1, model.dims[i])
        for j, block in enumerate(stage.blocks):
            with graph.scope(f"layers.{i}.blocks.{j}"):
                # The head reads the last MSG tokens only.
                msg_only = i == len(model.layers) - 1 and j == len(stage.blocks) - 1
                x = _block(x, block, model.geometry[i].region ** 2, tokens, msg_only)
        x = x.reshape(-1, 1 if msg_only else tokens, model.dims[i])
        if stage.downsample is not None:
            with graph.scope(f"layers.{i}.downsample"):
                x = _merging(x, stage.downsample, model.geometry[i], model.geometry[i + 1].region)
    with graph.scope("head"):
        windows, channels = x.shape[0], x.shape[-1]
        x = _layer_norm(x.slice(1, 0, 1).reshape(-1, channels), model.norm)
        if windows > 1:
            x = _mean(x.reshape(-1, windows, channels))
        return _linear(x, model.head) if model.num_classes else x


def _mean(x: Value) -> Value:
    """Average over axis 1; the axis was an attribute before opset 18."""
    shape = (x.shape[0], *x.shape[2:])
    if x.graph.opset < 18:
        return x.then("ReduceMean", shape=shape, axes=[1], keepdims=0)
    return x.then("ReduceMean", x.graph.integers(1), shape=shape, keepdims=0)
