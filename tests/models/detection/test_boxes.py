"""Box coder, IoU, GIoU, smooth L1 and FPN levels against mmdetection."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from support.detection import TABLE, model_settings

from msg_ms.models.detection.box_coder import decode_boxes, encode_boxes
from msg_ms.models.detection.head_losses import smooth_l1
from msg_ms.models.detection.iou import giou_loss, iou_matrix
from msg_ms.models.detection.roi_head import map_roi_levels

pytestmark = pytest.mark.usefixtures("eager")


def stage_stds(stage: int) -> tuple:
    return tuple(model_settings()["roi_head"]["bbox_head"][stage]["bbox_coder"]["target_stds"])


def gradient_and_value(function, x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of a function, weighted by ``cotangent``, and its value."""

    def weighted(x):
        value = function(x)
        return (value * cotangent).sum(), value

    gradient, (value,) = ms.grad(weighted, has_aux=True)(x)
    return gradient, value


# Closures, as graph mode knows neither lambdas nor default arguments of inner functions.
def decoding(boxes: Tensor, stds: tuple):
    def decode(deltas):
        return decode_boxes(boxes, deltas, stds)

    return decode


def giou_of(target: Tensor):
    def loss(boxes):
        return 10.0 * giou_loss(boxes, target)

    return loss


def test_coder(pieces):
    boxes, gt = Tensor(pieces["coder.boxes"]), Tensor(pieces["coder.gt"])
    limits = Tensor(np.float32([pieces.numbers("coder.decode_clipped.std0", "max_shape")]))
    deltas, cotangent = Tensor(pieces["coder.deltas"]), Tensor(pieces["coder.cotangent"])
    for i, stds in enumerate(map(tuple, pieces.description["stds"])):
        TABLE.check(f"coder.encode.std{i}", encode_boxes(boxes, gt, stds), pieces[f"coder.encode.std{i}"])
        for name, values in (("decode", deltas), ("decode5", Tensor(pieces["coder.deltas5"]))):
            key = f"coder.{name}_clipped.std{i}"
            TABLE.check(key, decode_boxes(boxes, values, stds, limits), pieces[key], "box")
        gradient, decoded = gradient_and_value(decoding(boxes, stds), deltas, cotangent)
        TABLE.check(f"coder.decode.std{i}", decoded, pieces[f"coder.decode.std{i}"], "box")
        TABLE.check(f"coder.decode_grad.std{i}", gradient, pieces[f"coder.decode_grad.std{i}"], "gradient")


def test_giou(pieces):
    for prefix in ("", "tie_"):
        boxes, target = Tensor(pieces[f"giou.{prefix}pred"]), Tensor(pieces[f"giou.{prefix}target"])
        gradient, loss = gradient_and_value(giou_of(target), boxes, Tensor(np.ones(len(target), np.float32)))
        TABLE.check(f"giou.{prefix}loss", loss, pieces[f"giou.{prefix}loss"], "loss")
        TABLE.check(f"giou.{prefix}grad", gradient, pieces[f"giou.{prefix}grad"], "gradient")


def test_loss_in_a_graph(pieces):
    """The box loss: decoding and GIoU, compiled."""
    boxes, gt, deltas = (Tensor(pieces[f"coder.{name}"]) for name in ("boxes", "gt", "deltas"))
    decode, giou = decoding(boxes, (0.1, 0.1, 0.2, 0.2)), giou_of(gt)

    def loss(values):
        return giou(decode(values))

    ones = Tensor(np.ones(len(gt), np.float32))
    expected = gradient_and_value(loss, deltas, ones)
    ms.set_context(mode=ms.GRAPH_MODE)
    for actual, wanted in zip(gradient_and_value(loss, deltas, ones), expected, strict=True):
        assert np.abs((actual - wanted).asnumpy()).max() <= 1e-5 * np.abs(wanted.asnumpy()).max()


def test_weighted_giou(pieces):
    factor = pieces.numbers("giou.reduced", "avg_factor")[0]
    weight = Tensor((pieces["giou.weight"].mean(1) / factor).astype(np.float32))
    boxes, target = Tensor(pieces["giou.pred"]), Tensor(pieces["giou.target"])
    gradient, loss = gradient_and_value(giou_of(target), boxes, weight)
    TABLE.check("giou.reduced", (loss * weight).sum(), pieces["giou.reduced"], "loss")
    TABLE.check("giou.reduced_grad", gradient, pieces["giou.reduced_grad"], "gradient")


def test_iou(pieces):
    matrix = iou_matrix(Tensor(pieces["assign.gt"]), Tensor(pieces["assign.boxes"]))
    TABLE.check("iou.matrix", matrix, pieces["iou.matrix"])


def test_smooth_l1(pieces):
    targets = Tensor(pieces["coder.cotangent"] * np.float32(0.1))

    def loss(deltas):
        return smooth_l1(deltas * 0.2, targets)

    gradient, value = gradient_and_value(loss, Tensor(pieces["coder.deltas"]), ops.ones_like(targets))
    TABLE.check("smooth_l1.loss", value, pieces["smooth_l1.loss"], "loss")
    TABLE.check("smooth_l1.grad", gradient, pieces["smooth_l1.grad"], "gradient")


def test_levels(pieces):
    found = map_roi_levels(Tensor(pieces["levels.rois"][:, 1:]))
    TABLE.check("levels.level", found, pieces["levels.level"], "exact")


def test_levels_at_the_borders():
    sides = np.float32([0, 55.9, 56, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    assert map_roi_levels(Tensor(boxes)).asnumpy().tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_nan_propagates():
    boxes = Tensor(np.float32([[np.nan, 0, 4, 4], [0, 0, 4, 4]]))
    assert np.isnan(decode_boxes(boxes, Tensor(np.zeros((2, 4), np.float32))).asnumpy()[0]).any()
    assert np.isnan(giou_loss(boxes, boxes[1:]).asnumpy()).tolist() == [True, False]
    wide = Tensor(np.float32([[0, 0, np.nan, np.inf]]))
    assert np.isnan(decode_boxes(boxes[1:], wide).asnumpy()[0, [0, 2]]).all()
    assert np.isfinite(decode_boxes(boxes[1:], wide).asnumpy()[0, [1, 3]]).all()


def test_boxes_of_the_detections(inference):
    stage = model_settings()["roi_head"]["num_stages"] - 1
    for i, meta in enumerate(inference.description["img_metas"]):
        own = inference[f"s{stage}.rois"][:, 0] == i
        rois, deltas = (Tensor(inference[f"s{stage}.{name}"][own]) for name in ("rois", "bbox_pred"))
        limits = Tensor(np.float32([meta["img_shape"][:2]]))
        decoded = decode_boxes(rois[:, 1:], deltas, stage_stds(stage), limits)
        factors = Tensor(np.tile(np.float32(meta["scale_factor"]), deltas.shape[1] // 4))
        TABLE.check("inference all_boxes", decoded / factors, inference[f"img{i}.all_boxes"], "box")


def test_refined_boxes(inference):
    """Stages 1 and 2 start from the boxes of the stage before, moved for their best foreground class."""
    for stage in range(model_settings()["roi_head"]["num_stages"] - 1):
        rois, scores, deltas = (inference[f"s{stage}.{name}"] for name in ("rois", "cls_score", "bbox_pred"))
        best = Tensor(scores[:, :-1].argmax(1).astype(np.int32)).reshape(-1, 1, 1).broadcast_to((-1, 1, 4))
        own = ops.gather_elements(Tensor(deltas.reshape(len(deltas), -1, 4)), 1, best)[:, 0]
        metas = inference.description["img_metas"]
        limits = Tensor(np.float32([metas[int(image)]["img_shape"][:2] for image in rois[:, 0]]))
        moved = decode_boxes(Tensor(rois[:, 1:]), own, stage_stds(stage), limits)
        TABLE.check(f"inference s{stage + 1}.rois", moved, inference[f"s{stage + 1}.rois"][:, 1:], "box")


def test_refined_boxes_in_training(detector):
    """Positives move for the class of their ground truth; ground-truth boxes are dropped."""
    for mode, number, image in detector.cases(r"(train_bn|eval_bn)/s(\d)\.img(\d+)\.refined"):
        prefix, sampled = f"{mode}/s{number}", f"{mode}/s{number}.img{image}"
        own = detector[f"{prefix}.rois"][:, 0] == int(image)
        rois, scores, deltas, labels = (
            detector[f"{prefix}.{name}"][own] for name in ("rois", "cls_score", "bbox_pred", "labels")
        )
        classes = scores.shape[1] - 1
        labels = np.where(labels == classes, scores[:, :-1].argmax(1), labels)
        own_deltas = deltas.reshape(len(deltas), classes, 4)[np.arange(len(deltas)), labels]
        limits = Tensor(np.float32([detector.description["img_metas"][int(image)]["img_shape"][:2]]))
        moved = decode_boxes(Tensor(rois[:, 1:]), Tensor(own_deltas), stage_stds(int(number)), limits).asnumpy()
        kept = np.ones(len(rois), bool)
        kept[: len(detector[f"{sampled}.pos_is_gt"])] = detector[f"{sampled}.pos_is_gt"] == 0
        TABLE.check(f"detector {prefix}.refined", moved[kept], detector[f"{sampled}.refined"], "box")
