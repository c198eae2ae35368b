"""The detector as an ONNX graph for images on one canvas; shape letters as in ``msg_ms/models/detection``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..models.detection.bbox_head import BBoxHead
from ..models.detection.cascade_rcnn import CascadeMaskRCNN
from ..models.detection.conv import Conv2d, ConvModule
from ..models.detection.fpn import FPN
from ..models.detection.mask_head import MaskHead
from ..models.detection.roi_head import RoIHead
from ..models.detection.rpn_head import RPNHead
from ..models.detection.settings import STAGE_STDS, STAGES
from .detector_check import INPUTS
from .graph import Graph, Value, tensor_info
from .onnx_backbone import feature_maps
from .onnx_boxes import SCORE_THRESHOLD, decode, detections, proposals, roi_align
from .onnx_layers import constant, linear


def build_onnx_detector(
    model: CascadeMaskRCNN, canvas: tuple[int, int], batch: int | None, opset: int, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Translate a whole detector; inputs and outputs are those of ``CascadeMaskRCNN.construct``.

    Args:
        model: The trained detector.
        canvas: Height and width of the images with padding.
        batch: Batch size, or None for a dynamic batch.
        opset: ONNX operator set.
        metadata: Entries of the file's metadata.
    """
    graph, rows = Graph(opset), "batch" if batch is None else batch
    shapes = dict(zip(INPUTS, ((model.backbone.in_chans, *canvas), (2,), (4,)), strict=True))
    images, sizes, factors = (Value(graph, name, (1, *shape)) for name, shape in shapes.items())
    outputs = _network(model, images, sizes, factors, batch)
    kinds = {"labels": TensorProto.INT32, "used": TensorProto.BOOL}
    return graph.to_model(
        "msg_detector",
        [tensor_info(name, [rows, *shape]) for name, shape in shapes.items()],
        [
            (output, tensor_info(name, [rows, *output.shape[1:]], kinds.get(name, TensorProto.FLOAT)))
            for name, output in outputs.items()
        ],
        metadata,
    )


def without_threshold(file: Path) -> bytes:
    """Return the content of a detector's file with a score threshold of 0."""
    model = onnx.load(file)
    (threshold,) = (tensor for tensor in model.graph.initializer if tensor.name == SCORE_THRESHOLD)
    threshold.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), SCORE_THRESHOLD))
    return model.SerializeToString()


def _conv(x: Value, cell: Conv2d, weight: str = "", bias: str = "") -> Value:
    """Map (B, C, H, W) to (B, O, H, W); names of constants replace the cell's own."""
    side = cell.kernel_size
    inputs = [weight or constant(x, cell.weight)]
    if bias or cell.bias is not None:
        inputs.append(bias or constant(x, cell.bias))
    shape = (x.shape[0], cell.out_channels, *x.shape[2:])
    return x.then("Conv", *inputs, shape=shape, kernel_shape=[side] * 2, pads=[side // 2] * 4)


def _conv_module(x: Value, cell: ConvModule) -> Value:
    """Apply a convolution, with its normalisation as a factor of its weight and a bias, and the ReLU."""
    if cell.bn is None:
        x = _conv(x, cell.conv)
    else:
        factor, bias = (value.asnumpy() for value in cell.bn.factor_and_bias())
        folded = cell.conv.weight.asnumpy() * factor.reshape(-1, 1, 1, 1)
        name = cell.conv.weight.name
        x = _conv(x, cell.conv, x.graph.constant(f"{name}.scaled", folded), x.graph.constant(f"{name}.shift", bias))
    return x.then("Relu") if cell.relu else x


def _pyramid(maps: Sequence[Value], cell: FPN) -> list[Value]:
    graph = maps[0].graph
    merged = _conv_module(maps[-1], cell.lateral_convs[-1])
    outputs = [_conv_module(merged, cell.fpn_convs[-1])]
    steps = graph.integers(2, 2)
    height, width = outputs[0].shape[2:]
    bounds = graph.integers(0, 0), graph.integers(height, width), graph.integers(2, 3), steps
    shape = (*outputs[0].shape[:2], -(-height // 2), -(-width // 2))
    outputs.append(outputs[0].then("Slice", *bounds, shape=shape))
    for i in range(len(maps) - 2, -1, -1):
        merged = _conv_module(maps[i], cell.lateral_convs[i]) + _upsample(merged, *maps[i].shape[2:])
        outputs.insert(0, _conv_module(merged, cell.fpn_convs[i]))
    return outputs


def _upsample(x: Value, height: int, width: int) -> Value:
    """Double maps by nearest neighbours, without the last row or column of an odd side."""
    scales = x.graph.constant("upsample", np.array([1, 1, 2, 2], np.float32))
    shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    mode = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    return x.then("Resize", "", scales, shape=shape, **mode).crop(2, height).crop(3, width)


def _region_proposals(maps: Sequence[Value], cell: RPNHead) -> tuple[list[Value], list[Value]]:
    """Return the objectness and the box deltas of every level."""
    hidden = [_conv(level, cell.rpn_conv).then("Relu") for level in maps]
    return [_conv(x, cell.rpn_cls) for x in hidden], [_conv(x, cell.rpn_reg) for x in hidden]


def _box_head(features: Value, cell: BBoxHead, count: int) -> tuple[Value, Value]:
    """Map features (B*P, C, S, S) to logits (B, P, K + 1) and deltas (B, P, 4*K)."""
    for conv in cell.shared_convs:
        features = _conv_module(features, conv)
    hidden = linear(features.reshape(-1, cell.shared_fcs[0].in_features), cell.shared_fcs[0]).then("Relu")
    logits, deltas = linear(hidden, cell.fc_cls), linear(hidden, cell.fc_reg)
    return logits.reshape(-1, count, cell.num_classes + 1), deltas.reshape(-1, count, 4 * cell.num_classes)


def _mask_head(features: Value, labels: Value, cell: MaskHead) -> Value:
    """Map features (R, C, S, S) to the mask probabilities of the classes ``labels`` (R,): (R, 1, 2*S * 2*S)."""
    graph = features.graph
    for conv in cell.convs:
        features = _conv_module(features, conv)
    rows, channels, side, _ = features.shape
    weights = [constant(features, parameter) for parameter in (cell.upsample.weight, cell.upsample.bias)]
    shape = (rows, cell.upsample.out_channels, 2 * side, 2 * side)
    large = features.then("ConvTranspose", *weights, shape=shape, kernel_shape=[2, 2], strides=[2, 2]).then("Relu")
    # The logits of the other classes are not computed.
    last = [(p.name, p.asnumpy().reshape(cell.num_classes, 1, -1)) for p in cell.conv_logits.get_parameters()]
    weight, bias = (graph.value(*parameter).rows(labels) for parameter in last)
    channels = large.shape[1]
    pixels = 4 * side * side
    logits = weight.then("MatMul", large.reshape(-1, channels, pixels).name, shape=(rows, 1, pixels))
    return (logits + bias).then("Sigmoid")


def _mean(values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / float(len(values))


def _boxes_and_scores(
    cell: RoIHead, pyramid: list[Value], found: tuple[Value, Value], bounds: Value, batch: int | None
) -> tuple[Value, Value]:
    """Run the cascade: every proposal's box for each class, and its probabilities."""
    graph, (boxes, used) = bounds.graph, found
    count, classes = boxes.shape[1], cell.bbox_head[0].num_classes
    all_logits = []
    for stage, head in enumerate(cell.bbox_head):
        with graph.scope(f"roi_head.bbox_head.{stage}"):
            logits, deltas = _box_head(roi_align(pyramid, boxes, cell.box_align, batch), head, count)
            all_logits.append(logits)
            if stage + 1 < STAGES:
                best = logits.slice(2, 0, classes).then("ArgMax", shape=(1, count), axis=2, keepdims=0)
                own = deltas.reshape(-1, classes, 4).take(best.reshape(-1, 1)).reshape(-1, count, 4)
                boxes = decode(boxes, own, bounds, STAGE_STDS[stage])
    scores = _mean(all_logits).then("Softmax", axis=-1) * used.reshape(-1, count, 1)
    return decode(boxes, deltas, bounds, STAGE_STDS[-1]), scores


def _masks(cell: RoIHead, pyramid: list[Value], rois: Value, labels: Value, batch: int | None) -> Value:
    """Return the mask probabilities (B, N, 2*S, 2*S) of detections: RoIs (B, N, 4) and classes (B, N)."""
    count, side = rois.shape[1], 2 * cell.mask_align.side
    with rois.graph.scope("roi_head.mask_head"):
        features, masks = roi_align(pyramid, rois, cell.mask_align, batch), []
    for stage, head in enumerate(cell.mask_head):
        with rois.graph.scope(f"roi_head.mask_head.{stage}"):
            masks.append(_mask_head(features, labels.reshape(-1), head))
    return _mean(masks).reshape(-1, count, side, side)


def _network(
    model: CascadeMaskRCNN, images: Value, sizes: Value, factors: Value, batch: int | None
) -> dict[str, Value]:
    """Return the outputs by name; arguments as in ``CascadeMaskRCNN.construct``."""
    graph, head = images.graph, model.roi_head
    # Width, height, width, height.
    bounds = sizes.then("Gather", graph.integers(1, 0, 1, 0), shape=(1, 4), axis=1).reshape(-1, 1, 1, 4)
    maps = feature_maps(images, model.backbone, batch)
    with graph.scope("neck"):
        levels = _pyramid(maps, model.neck)
    with graph.scope("rpn_head"):
        logits, deltas = _region_proposals(levels, model.rpn_head)
        found = proposals(logits, deltas, bounds, model.test_proposals)
    pyramid = levels[:-1]  # the last level is for the region proposal network alone
    boxes, scores = _boxes_and_scores(head, pyramid, found, bounds, batch)
    with graph.scope("detections"):
        # In pixels of the original images.
        count, classes = boxes.shape[1], model.settings.num_classes
        boxes = boxes.reshape(-1, count * classes, 4) / factors.reshape(-1, 1, 4)
        boxes, scores, labels, used = detections(boxes, scores, model.detections)
    outputs = {"boxes": boxes, "scores": scores, "labels": labels.cast(TensorProto.INT32)}
    if model.settings.masks:
        outputs["masks"] = _masks(head, pyramid, boxes * factors.reshape(-1, 1, 4), labels, batch)
    return {**outputs, "used": used.cast(TensorProto.BOOL)}
