"""Assignment in data workers and in the graph against mmdetection."""

import numpy as np
import pytest
from mindspore import Tensor
from support.detection import TABLE, model_settings

from msg_ms.boxes.anchor_assigner import RPN_RULE, AssignRule, assign_anchors, iou_numpy
from msg_ms.models.detection.roi_assigner import assign_rois

from .test_anchors import all_anchors

# The settings that the description of the vectors lists, without those that ignore crowds.
RULES = {
    "rpn": RPN_RULE,
    "s0": AssignRule(0.5, 0.5),
    "s1": AssignRule(0.6, 0.6),
    "s2": AssignRule(0.7, 0.7),
    "no_gt": RPN_RULE,
}


def labels_of(assigned: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(assigned > 0, labels[np.maximum(assigned - 1, 0)] if len(labels) else -1, -1)


@pytest.mark.parametrize("name", RULES)
def test_settings(pieces, name):
    boxes = pieces["assign.boxes"]
    gt, labels = (pieces["assign.gt"], pieces["assign.labels"]) if name != "no_gt" else (np.zeros((0, 4)), [])
    assigned, overlaps = assign_anchors(boxes, gt, RULES[name])
    TABLE.check(f"assign.{name}.gt_inds", assigned, pieces[f"assign.{name}.gt_inds"], "exact")
    TABLE.check(f"assign.{name}.labels", labels_of(assigned, labels), pieces[f"assign.{name}.labels"], "exact")
    if f"assign.{name}.max_overlaps" in pieces:
        TABLE.check(f"assign.{name}.max_overlaps", overlaps, pieces[f"assign.{name}.max_overlaps"])
        assigned, _ = assign_anchors(pieces["assign.tie_boxes"], pieces["assign.tie_gt"], RULES[name])
        classes = pieces.numbers(f"assign.{name}.tie_labels", "gt classes")
        tie_labels = labels_of(assigned, np.array(classes, int))
        TABLE.check(f"assign.{name}.tie_gt_inds", assigned, pieces[f"assign.{name}.tie_gt_inds"], "exact")
        TABLE.check(f"assign.{name}.tie_labels", tie_labels, pieces[f"assign.{name}.tie_labels"], "exact")


def test_iou_of_one_box(pieces):
    rows = [iou_numpy(pieces["assign.boxes"], box) for box in pieces["assign.gt"]]
    TABLE.check("iou.matrix, NumPy", np.array(rows), pieces["iou.matrix"])


def in_graph(boxes: np.ndarray, gt: np.ndarray, threshold: float, padding: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Assign in the graph, with padded ground truth and padded boxes."""
    # Padding repeats true boxes, so that ignoring it matters.
    padded_gt = np.concatenate([gt, boxes[:padding]])[None].astype(np.float32)
    padded_boxes = np.concatenate([boxes, gt[:1], boxes[:padding]])[None]
    valid, gt_valid = (np.arange(x.shape[1])[None] < n for x, n in ((padded_boxes, len(boxes)), (padded_gt, len(gt))))
    assigned, overlaps = assign_rois(
        Tensor(padded_boxes), Tensor(valid), Tensor(padded_gt), Tensor(gt_valid), threshold, threshold
    )
    assert (assigned.asnumpy()[~valid] == -1).all()
    return assigned.asnumpy()[valid], overlaps.asnumpy()[valid]


@pytest.mark.parametrize("name", ["s0", "s1", "s2"])
def test_settings_in_the_graph(pieces, name):
    assigned, overlaps = in_graph(pieces["assign.boxes"], pieces["assign.gt"], RULES[name].positive)
    TABLE.check(f"assign.{name}.gt_inds, graph", assigned, pieces[f"assign.{name}.gt_inds"], "exact")
    TABLE.check(f"assign.{name}.max_overlaps, graph", overlaps, pieces[f"assign.{name}.max_overlaps"])
    assigned, _ = in_graph(pieces["assign.tie_boxes"], pieces["assign.tie_gt"], RULES[name].positive)
    TABLE.check(f"assign.{name}.tie_gt_inds, graph", assigned, pieces[f"assign.{name}.tie_gt_inds"], "exact")


def test_without_ground_truth_all_is_background_in_the_graph(pieces):
    assigned, overlaps = in_graph(pieces["assign.boxes"], np.zeros((0, 4), np.float32), 0.5)
    assert not assigned.any() and not overlaps.any()


def test_anchors_of_the_detector(detector):
    _, levels = all_anchors(detector["images"].shape[2:])
    anchors = np.concatenate(levels)
    for (image,), key in detector.match(r"train_bn/rpn\.img(\d+)\.assigned").items():
        inside = detector[f"train_bn/rpn.img{image}.inside"]
        assigned = np.full(len(anchors), -1)
        assigned[inside] = assign_anchors(anchors[inside], detector[f"gt.img{image}.boxes"])[0]
        TABLE.check("detector rpn.assigned", assigned, detector[key], "exact")


def stage_proposals(detector, mode: str, stage: int, image: str) -> np.ndarray:
    """The boxes that a stage starts from."""
    if stage == 0:
        return detector[f"train_bn/proposals.img{image}"][:, :4]
    return detector[f"{mode}/s{stage - 1}.img{image}.refined"]


def test_proposals_of_the_detector(detector):
    for (mode, number, image), key in detector.match(r"(train_bn|eval_bn)/s(\d)\.img(\d+)\.assigned").items():
        stage = int(number)
        threshold = model_settings()["train_cfg"]["rcnn"][stage]["assigner"]["pos_iou_thr"]
        boxes = stage_proposals(detector, mode, stage, image)
        assigned, overlaps = in_graph(boxes, detector[f"gt.img{image}.boxes"], threshold)
        TABLE.check(f"detector {mode} s{stage}.assigned", assigned, detector[key], "exact")
        expected = detector[f"{mode}/s{stage}.img{image}.max_overlaps"]
        TABLE.check(f"detector {mode} s{stage}.max_overlaps", overlaps, expected)


def test_low_quality_matches_need_an_overlap():
    with pytest.raises(ValueError, match="min_positive"):
        assign_anchors(np.zeros((1, 4)), np.zeros((1, 4)), AssignRule(0.7, 0.3, low_quality=True))
