"""Suppression, proposals and detections against mmcv and mmdetection; native against composed."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.detection import TABLE, model_settings

from msg_ms.models.detection.box_coder import decode_boxes
from msg_ms.models.detection.nms import BatchedNMS, MulticlassNMS
from msg_ms.ops import NMS, use_backend

from .test_anchors import all_anchors

pytestmark = pytest.mark.usefixtures("eager")  # the tests of graphs compile


@pytest.fixture(params=["native", "composed"])
def backend(request):
    with use_backend(request.param):
        yield request.param


def suppress(threshold: float, boxes, scores, groups) -> np.ndarray:
    """Run a batch of two: the boxes, and the same with others that are not valid."""
    n = len(boxes)
    more = np.concatenate([boxes, boxes[::-1]])
    valid = np.arange(2 * n) < n
    inputs = [more, np.concatenate([scores, scores + 1]), np.concatenate([groups, groups])]
    batch = [Tensor(np.stack([x, np.roll(x, 5, 0)])) for x in inputs]
    indices, used = BatchedNMS(threshold, n + 7)(*batch, Tensor(np.stack([valid, np.roll(valid, 5)])))
    first, second = (i[u] for i, u in zip(indices.asnumpy(), used.asnumpy(), strict=True))
    assert (first == (second - 5) % (2 * n)).all()
    return first


def test_pieces(pieces, backend):
    boxes, scores, labels = (pieces[f"nms.{name}"] for name in ("boxes", "scores", "labels"))
    for (threshold,), key in pieces.match(r"nms\.keep_(.*)").items():
        kept = suppress(float(threshold), boxes, scores, 0 * labels)
        TABLE.check(f"{key}, {backend}", kept, pieces[key], "exact")
        kept = suppress(float(threshold), boxes, scores, labels)
        key = f"nms.batched_keep_{threshold}"
        TABLE.check(f"{key}, {backend}", kept, pieces[key], "exact")


def test_classes(pieces, backend):
    boxes, scores, expected = (pieces[f"nms.multi_{name}"] for name in ("boxes", "scores", "dets"))
    (threshold,), (iou,) = (pieces.numbers("nms.multi_dets", word) for word in ("score_thr", "iou"))
    nms = MulticlassNMS(threshold, iou, len(expected), candidates=100)
    found, found_scores, pairs, used = (x.asnumpy()[0] for x in nms(Tensor(boxes[None]), Tensor(scores[None])))
    classes = scores.shape[1] - 1
    assert used.all()
    TABLE.check(f"nms.multi_dets, boxes, {backend}", found, expected[:, :4], "box")
    TABLE.check(f"nms.multi_dets, scores, {backend}", found_scores, expected[:, 4])
    TABLE.check(f"nms.multi_labels, {backend}", pairs % classes, pieces["nms.multi_labels"], "exact")
    above = (scores[:, :-1] > threshold).reshape(-1)
    TABLE.check(f"nms.multi_inds, {backend}", np.cumsum(above)[pairs] - 1, pieces["nms.multi_inds"], "exact")


def test_detections(inference, backend):
    settings = model_settings()["test_cfg"]["rcnn"]
    count = settings["max_per_img"]
    for i in range(len(inference.description["img_metas"])):
        boxes, scores = (Tensor(inference[f"img{i}.{name}"][None]) for name in ("all_boxes", "all_scores"))
        nms = MulticlassNMS(settings["score_thr"], settings["nms"]["iou_threshold"], count, candidates=400)
        found, found_scores, pairs, used = (x.asnumpy()[0] for x in nms(boxes, scores))
        classes, used = scores.shape[2] - 1, used > 0
        TABLE.check(f"inference bboxes, {backend}", found[used], inference[f"img{i}.bboxes"], "box")
        TABLE.check(f"inference scores, {backend}", found_scores[used], inference[f"img{i}.scores"])
        TABLE.check(f"inference labels, {backend}", pairs[used] % classes, inference[f"img{i}.labels"], "exact")
        TABLE.check(f"inference proposal, {backend}", pairs[used] // classes, inference[f"img{i}.proposal"], "exact")


def test_detections_in_a_graph(pieces, backend):
    ms.set_context(mode=ms.GRAPH_MODE)
    test_classes(pieces, backend)


def proposals(detector, image: int, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Proposals of one image: the best of each level, decoded, suppressed within each level."""
    boxes, scores, levels = [], [], []
    shape = detector.description["img_metas"][image]["img_shape"][:2]
    for level, anchors in enumerate(all_anchors(detector["images"].shape[2:])[1]):
        logits = detector[f"train_bn/rpn_cls{level}"][image].transpose(1, 2, 0).reshape(-1)
        deltas = detector[f"train_bn/rpn_reg{level}"][image].transpose(1, 2, 0).reshape(-1, 4)
        best = np.argsort(-logits, kind="stable")[: settings["nms_pre"]]
        decoded = decode_boxes(Tensor(anchors[best]), Tensor(deltas[best]), limits=Tensor(np.float32([shape])))
        boxes.append(decoded.asnumpy())
        scores.append(1 / (1 + np.exp(-logits[best])))
        levels.append(np.full(len(best), level, np.int32))
    inputs = [Tensor(np.concatenate(x)[None]) for x in (boxes, scores, levels)]
    valid = Tensor(np.ones(inputs[1].shape, bool))
    indices, used = BatchedNMS(settings["nms"]["iou_threshold"], settings["max_per_img"])(*inputs, valid)
    kept = indices.asnumpy()[0][used.asnumpy()[0]]
    return inputs[0].asnumpy()[0][kept], inputs[1].asnumpy()[0][kept]


def test_proposals_of_the_detector(detector, inference):
    for (name, image), settings, group in [
        *((case, "train_cfg", detector) for case in detector.cases(r"(train_bn/proposals\.img)(\d+)")),
        *((case, "test_cfg", inference) for case in inference.cases(r"(proposals\.img)(\d+)")),
    ]:
        key = "rpn_proposal" if settings == "train_cfg" else "rpn"
        boxes, scores = proposals(detector, int(image), model_settings()[settings][key])
        expected = group[name + image]
        TABLE.check(f"{group.group} proposals, boxes", boxes, expected[:, :4], "box")
        TABLE.check(f"{group.group} proposals, scores", scores, expected[:, 4])


def greedy(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Suppress in the plainest way, in float32."""
    keep, areas = np.ones(len(boxes), bool), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i, box in enumerate(boxes):
        if keep[i]:
            size = np.minimum(boxes[i + 1 :, 2:], box[2:]) - np.maximum(boxes[i + 1 :, :2], box[:2])
            overlap = np.maximum(size, 0).prod(1)
            keep[i + 1 :] &= ~(overlap / (areas[i] + areas[i + 1 :] - overlap) > np.float32(threshold))
    return keep


def test_random_boxes(backend):
    rng = np.random.RandomState(0)
    for batch, count in ((1, 1), (2, 300), (3, 515)):
        # Whole numbers: equal IoUs, and IoUs equal to the threshold.
        corner, side = rng.randint(0, 40, (batch, count, 2)), rng.randint(1, 20, (batch, count, 2))
        boxes = np.concatenate([corner, corner + side], -1).astype(np.float32)
        kept = NMS(0.5)(Tensor(boxes), Tensor(np.ones((batch, count), bool))).asnumpy()
        assert (kept == [greedy(x, 0.5) for x in boxes]).all()


def test_nothing_valid(backend):
    boxes = Tensor(np.zeros((1, 4, 4), np.float32))
    nothing = Tensor(np.zeros((1, 4), bool))
    indices, used = BatchedNMS(0.5, 6)(boxes, boxes[..., 0], boxes[..., 0].astype(int), nothing)
    assert not used.asnumpy().any() and not indices.asnumpy().any() and indices.shape == (1, 6)
