"""The detector's backbone as a part of an ONNX graph, on one canvas; shape letters as in ``msg_ms/ops/windows.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..models.detection.backbone import DetectionBackbone
from ..models.detection.window_maps import WindowMap, exchange_slices, first_messages, stage_maps, valid_tokens
from .graph import Value
from .onnx_layers import (
    block,
    cut_patches,
    join_patches,
    layer_norm,
    merging,
    patch_conv,
    put_messages,
    shuffle_regions,
)


def feature_maps(images: Value, backbone: DetectionBackbone, batch: int | None) -> list[Value]:
    """Return the map (B, C_i, H_i, W_i) of every stage.

    Args:
        images: (B, in_chans, height, width).
        backbone: The backbone.
        batch: Batch size, or None for a dynamic batch.
    """
    graph, w, (height, width) = images.graph, backbone.window_size, images.shape[2:]
    maps = stage_maps(height, width, backbone.patch_size, w, backbone.shuffle_size)
    with graph.scope("backbone.patch_embed"):
        x, results = _embed(images, backbone, maps[0], batch), []
    for i, (stage, here) in enumerate(zip(backbone.layers, maps, strict=True)):
        tokens, channels = x.shape[1:]
        shuffle, valid = _shuffle(here), _valid(x, here, w, i)
        x = x.reshape(-1, channels)
        for j, cell in enumerate(stage.blocks):
            with graph.scope(f"backbone.layers.{i}.blocks.{j}"):
                x = block(x, cell, tokens, shuffle, valid)
        x = x.reshape(-1, tokens, channels)
        with graph.scope(f"backbone.norm{i}"):
            patches = layer_norm(x.slice(1, 1, tokens), getattr(backbone, f"norm{i}"))
            results.append(join_patches(patches, here, w).transpose(0, 3, 1, 2))
        if i + 1 < len(maps):
            with graph.scope(f"backbone.layers.{i}.downsample"):
                x = merging(x, stage.downsample, here, maps[i + 1])
    return results


def _embed(images: Value, backbone: DetectionBackbone, window_map: WindowMap, batch: int | None) -> Value:
    """Return the tokens (B*R*G, N, C) of the first stage."""
    side = backbone.patch_size
    images = images.pad(2, window_map.height * side).pad(3, window_map.width * side)
    patches = patch_conv(images, backbone.patch_embed.proj)
    if backbone.patch_norm:
        patches = layer_norm(patches, backbone.patch_embed.norm)
    x = cut_patches(patches, window_map, backbone.window_size)
    messages = backbone.msg_tokens.asnumpy().reshape(-1, x.shape[-1])
    if not window_map.whole:
        index = first_messages(window_map.rows, window_map.columns, backbone.shuffle_size[0])
        messages = messages[index.asnumpy()]
    return put_messages(x, backbone.msg_tokens, messages, batch)


def _shuffle(window_map: WindowMap) -> Callable[[Value], Value] | None:
    """Return the shuffle of a stage's MSG tokens, None where it changes nothing."""
    if window_map.region == 1:
        return None
    if window_map.whole:
        return functools.partial(shuffle_regions, windows=window_map.region**2)
    return functools.partial(_shuffle_grid, window_map=window_map)


def _shuffle_grid(msg: Value, window_map: WindowMap) -> Value:
    """Shuffle MSG tokens (B*rows*columns, 1, C) as ``window_maps.shuffle_grid`` does."""
    rows, columns, region, channels = window_map.rows, window_map.columns, window_map.region, msg.shape[-1]
    grid = msg.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
    grid = grid.pad(2, rows + -rows % region).pad(3, columns + -columns % region)
    grid = exchange_slices(grid, region).crop(2, rows).crop(3, columns)
    return grid.transpose(0, 2, 3, 1).reshape(-1, 1, channels)


def _valid(x: Value, window_map: WindowMap, window_size: int, stage: int) -> Value | None:
    """Return 0 for padded patches and else 1, None for a stage without padding."""
    whole = (window_map.height, window_map.width) == (window_map.geometry.height, window_map.geometry.width)
    if whole:
        return None
    valid: np.ndarray = valid_tokens(window_map, window_size).asnumpy()
    return x.graph.value(f"backbone.layers.{stage}.valid", valid)
