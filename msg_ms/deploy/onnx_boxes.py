"""Boxes, their suppression and the pooling of their features as parts of an ONNX graph, with standard operators.

Each function does the work of a Cell or function of ``msg_ms/models/detection``, on values of the same shapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from ..boxes.anchors import grid_anchors
from ..models.detection.box_coder import MAX_LOG_RATIO
from ..models.detection.nms import BatchedNMS, MulticlassNMS
from ..models.detection.proposals import Proposals
from ..models.detection.roi_head import FINEST, LEVEL_EPSILON
from ..ops import RoIAlign
from .graph import Value, concat

SCORE_THRESHOLD = "score_threshold"  # name of the constant
NOWHERE = np.array([-1e4, -1e4, -1e4 + 1, -1e4 + 1], np.float32)  # an RoI beyond any map: its features are zeros


def decode(boxes: Value, deltas: Value, bounds: Value, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Value:
    """Do the work of ``decode_boxes``.

    Args:
        boxes: (B, P, 4).
        deltas: (B, P, 4*K).
        bounds: Largest coordinates, (B, 1, 1, 4).
        stds: Factors of the four deltas.

    Returns:
        (B, P, 4*K).
    """
    graph, (_, count, columns) = boxes.graph, deltas.shape
    factors = graph.value(f"stds/{'_'.join(map(str, stds))}", np.array(stds, np.float32))
    moves = deltas.reshape(-1, count, columns // 4, 4) * factors
    boxes = boxes.reshape(-1, count, 1, 4)
    low, high = boxes.slice(3, 0, 2), boxes.slice(3, 2, 4)
    size, centre = high - low, (low + high) * 0.5
    logs = moves.slice(3, 2, 4).then("Clip", graph.number(-MAX_LOG_RATIO), graph.number(MAX_LOG_RATIO))
    half, centre = size * logs.then("Exp") * 0.5, centre + size * moves.slice(3, 0, 2)
    moved = (centre - half).join(centre + half, 3)
    return moved.then("Max", graph.number(0.0)).then("Min", bounds.name).reshape(-1, count, columns)


def suppress(boxes: Value, groups: Value, valid: Value, cell: BatchedNMS) -> tuple[Value, Value]:
    """Do the work of ``BatchedNMS`` for boxes that are sorted by score.

    Args:
        boxes: (B, N, 4), by falling score.
        groups: float32 (B, N).
        valid: bool (B, N).
        cell: The settings.

    Returns:
        Indices of the kept boxes, int64 (B, count), and which are used, float32 (B, count), 1 or 0. Unused slots come
        last, with index 0.
    """
    graph, total = boxes.graph, boxes.shape[1]
    most, threshold = min(cell.count, total), float(cell.nms.threshold.asnumpy()[0])
    largest = valid.where(boxes.reduce("Max", 2), -1.0).reduce("Max", 1).reshape(-1, 1) + 1.0
    shifted = boxes + (groups * largest).reshape(-1, total, 1)
    # Ranks take the place of scores: whole numbers without ties, and 0 for boxes that are not valid.
    ranks = valid.where(graph.value(f"ranks/{total}", np.arange(total, 0, -1, dtype=np.float32)), 0.0)
    limits = [graph.integers(most), graph.number(threshold), graph.number(0.5)]
    kept = shifted.then("NonMaxSuppression", ranks.reshape(-1, 1, total).name, *limits, shape=(most, 3))
    # Image, class 0 and index of each kept box, in an order that the operator leaves open.
    slots = kept.then("Gather", graph.integers(0, 2), shape=(most, 2), axis=1)
    kept_ranks = total - kept.slice(1, 2, 3).cast(TensorProto.FLOAT).reshape(-1)
    first, _ = (ranks * 0.0).then("ScatterND", slots.name, kept_ranks.name).top(most)
    used = first > 0.0
    index = used.where(total - first, 0.0).pad(1, cell.count)
    return index.cast(TensorProto.INT64), used.cast(TensorProto.FLOAT).pad(1, cell.count)


def proposals(logits: Sequence[Value], deltas: Sequence[Value], bounds: Value, cell: Proposals) -> tuple[Value, Value]:
    """Do the work of ``Proposals``.

    Args:
        logits: Objectness (B, A, H_i, W_i) of every level.
        deltas: Box deltas (B, 4*A, H_i, W_i) of every level.
        bounds: Largest coordinates, (B, 1, 1, 4).
        cell: The settings.

    Returns:
        Boxes (B, P, 4), and which are used, float32 (B, P).
    """
    graph, boxes, scores, groups = bounds.graph, [], [], []
    for i, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        rows, columns = logit.shape[2:]
        anchors = graph.value(f"anchors/{i}", np.concatenate(grid_anchors([(rows, columns)], [cell.strides[i]])))
        count = min(cell.candidates, anchors.shape[0])
        best, order = _channels_last(logit, 1).reshape(-1, anchors.shape[0]).then("Sigmoid").top(count)
        boxes.append(decode(anchors.rows(order), _channels_last(delta, 4).take(order), bounds))
        scores.append(best)
        groups += [i] * count
    sorted_scores, order = concat(scores, 1).top(len(groups))
    levels = graph.value("levels", np.array(groups, np.float32)).rows(order)
    candidates = concat(boxes, 1).take(order)
    index, used = suppress(candidates, levels, sorted_scores >= 0.0, cell.nms)
    return candidates.take(index) * used.reshape(-1, cell.nms.count, 1), used


def detections(boxes: Value, scores: Value, cell: MulticlassNMS) -> tuple[Value, Value, Value, Value]:
    """Do the work of ``MulticlassNMS``.

    Args:
        boxes: (B, P*K, 4), a box for each proposal and class.
        scores: (B, P, K + 1), probabilities, background last; 0 for unused proposals.
        cell: The settings.

    Returns:
        Boxes (B, count, 4), scores (B, count), classes, int64 (B, count), and which are used, float32 (B, count). By
        falling score; unused slots come last, with zeros.
    """
    graph, pairs, count = boxes.graph, boxes.shape[1], cell.nms.count
    classes = scores.shape[2] - 1
    chosen, order = scores.slice(2, 0, classes).reshape(-1, pairs).top(min(cell.candidates, pairs))
    taken = boxes.take(order)
    labels = order.then("Mod", graph.constant(f"classes/{classes}", np.array(classes)))
    valid = chosen > graph.value(SCORE_THRESHOLD, np.array(cell.score_threshold, np.float32))
    index, used = suppress(taken, labels.cast(TensorProto.FLOAT), valid, cell.nms)
    kept = taken.take(index) * used.reshape(-1, count, 1)
    return kept, chosen.take(index) * used, labels.take(index) * used.cast(TensorProto.INT64), used


def numbers(x: Value, batch: int | None) -> Value:
    """Return the numbers of the rows of ``x``, int64 (rows,).

    Args:
        x: (rows, ...).
        batch: Batch size, or None for a dynamic batch.
    """
    graph, rows = x.graph, x.shape[0]
    if batch is not None:
        return Value(graph, graph.constant(f"numbers/{batch * rows}", np.arange(batch * rows)), (rows,))
    (count,) = graph.add("Shape", x.name, end=1)
    (count,) = graph.add("Squeeze", count)
    (name,) = graph.add("Range", graph.constant("0", np.array(0)), count, graph.constant("1", np.array(1)))
    return Value(graph, name, (rows,))


def roi_align(maps: Sequence[Value], boxes: Value, cell: RoIAlign, batch: int | None) -> Value:
    """Pool the features of RoIs, each from its own level, as ``RoIHead`` does.

    Args:
        maps: (B, C, H_i, W_i) of every level.
        boxes: (B, R, 4).
        cell: The settings.
        batch: Batch size, or None for a dynamic batch.

    Returns:
        (B*R, C, S, S).
    """
    graph, rows, boxes = boxes.graph, boxes.shape[1], boxes.reshape(-1, 4)
    level, number = _levels(boxes, len(maps)), numbers(boxes, batch)
    images = number.then("Div", graph.constant(f"rois/{rows}", np.array(rows)))
    scales = graph.value("scales", np.array([[1 / stride] for stride in cell.strides], np.float32))
    cells = boxes * scales.rows(level) - 0.5
    size = cells.slice(1, 2, 4) - cells.slice(1, 0, 2)
    area = size.slice(1, 0, 1) * size.slice(1, 1, 2)
    # An RoI without area has no samples, and some engines divide by their number.
    boxes = (area > 0.0).where(boxes, graph.value("nowhere", NOWHERE))
    settings = dict(coordinate_transformation_mode="half_pixel", mode="avg", sampling_ratio=cell.sampling)
    settings |= dict(output_height=cell.side, output_width=cell.side)
    shape, pooled, places = (rows, maps[0].shape[1], cell.side, cell.side), [], []
    for i, (source, stride) in enumerate(zip(maps, cell.strides, strict=True)):
        own = level.then("Equal", graph.constant(f"level/{i}", np.array(i)))
        places.append(own.then("NonZero", shape=(1, rows)).reshape(-1))
        inputs = boxes.rows(places[i]).name, images.rows(places[i]).name
        pooled.append(source.then("RoiAlign", *inputs, shape=shape, spatial_scale=1 / stride, **settings))
    # Each RoI is in one of the parts: ``order`` is its row in all of them.
    order = number.then("ScatterElements", concat(places, 0).name, number.name, axis=0)
    return concat(pooled, 0).rows(order)


def _levels(boxes: Value, levels: int) -> Value:
    """Do the work of ``map_roi_levels``: boxes (N, 4) -> int64 (N,)."""
    size = boxes.slice(1, 2, 4) - boxes.slice(1, 0, 2)
    area = (size.slice(1, 0, 1) * size.slice(1, 1, 2)).reshape(-1)
    scale = area.then("Sqrt") / FINEST + LEVEL_EPSILON
    level = (scale >= 2.0).cast(TensorProto.INT64)
    for i in range(2, levels):
        level = level + (scale >= 2.0**i).cast(TensorProto.INT64)
    return level


def _channels_last(x: Value, columns: int) -> Value:
    """Return predictions (B, A*columns, H, W) as (B, H*W*A, columns)."""
    _, channels, height, width = x.shape
    return x.transpose(0, 2, 3, 1).reshape(-1, height * width * channels // columns, columns)
