"""The classifier as an ONNX graph; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import onnx

from ..models.detection.window_maps import WindowMap
from ..models.msg_transformer import MSGTransformer
from ..models.windows import window_partition
from .check import INPUT, output_name
from .graph import Graph, Value, tensor_info
from .onnx_layers import block, constant, layer_norm, linear, merging, patch_conv, put_messages, shuffle_regions


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
    rows = "batch" if batch is None else batch
    inputs = [tensor_info(INPUT, [rows, *images.shape[1:]])]
    outputs = [(output, tensor_info(name, [rows, *output.shape[1:]]))]
    return graph.to_model("msg_transformer", inputs, outputs, metadata)


def _embed(images: Value, model: MSGTransformer, batch: int | None) -> Value:
    w, (height, width, region) = model.window_size, model.geometry[0]
    x = window_partition(patch_conv(images, model.patch_embed.proj), w, region)
    channels = x.shape[-1]
    x = x.reshape(-1, w * w, channels)
    if model.patch_norm:
        x = layer_norm(x, model.patch_embed.norm)
    table = model.absolute_pos_embed
    if table is not None:
        windows = window_partition(table.asnumpy().reshape(1, height, width, channels), w, region)
        x = x.reshape(-1, *windows.shape).then("Add", constant(x, table, windows[None])).reshape(-1, w * w, channels)
    messages = model.msg_tokens.asnumpy().reshape(region**2, channels)
    return put_messages(x, model.msg_tokens, messages, batch)


def _network(images: Value, model: MSGTransformer, batch: int | None) -> Value:
    graph, tokens = images.graph, model.window_size**2 + 1
    maps = _whole_maps(model)
    with graph.scope("patch_embed"):
        x = _embed(images, model, batch)
    for i, stage in enumerate(model.layers):
        windows = model.geometry[i].region ** 2
        shuffle = functools.partial(shuffle_regions, windows=windows) if windows > 1 else None
        x = x.reshape(-1, model.dims[i])
        for j, cell in enumerate(stage.blocks):
            with graph.scope(f"layers.{i}.blocks.{j}"):
                # The head reads the last MSG tokens only.
                msg_only = i == len(model.layers) - 1 and j == len(stage.blocks) - 1
                x = block(x, cell, tokens, shuffle, msg_only=msg_only)
        x = x.reshape(-1, 1 if msg_only else tokens, model.dims[i])
        if stage.downsample is not None:
            with graph.scope(f"layers.{i}.downsample"):
                x = merging(x, stage.downsample, maps[i], maps[i + 1])
    with graph.scope("head"):
        windows, channels = x.shape[0], x.shape[-1]
        x = layer_norm(x.slice(1, 0, 1).reshape(-1, channels), model.norm)
        if windows > 1:
            x = x.reshape(-1, windows, channels).reduce("Mean", 1)
        return linear(x, model.head) if model.num_classes else x


def _whole_maps(model: MSGTransformer) -> list[WindowMap]:
    """Return the stages' maps, which fill their windows and shuffle regions."""
    w = model.window_size
    return [WindowMap(g.height, g.width, g.height // w, g.width // w, g.region, True, g) for g in model.geometry]
