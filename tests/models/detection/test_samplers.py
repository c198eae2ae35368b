"""Samples in data workers and in the graph: mmdetection's for its draws, uniform and repeatable otherwise."""

import mindspore as ms
import numpy as np
from mindspore import Tensor
from support.detection import TABLE, model_settings

from msg_ms.boxes.anchor_grid import AnchorGrid
from msg_ms.boxes.anchor_sampler import encode_numpy, sample_anchors, sampled_targets
from msg_ms.models.detection.box_coder import encode_boxes
from msg_ms.models.detection.roi_sampler import add_gt, sample_rois

from .test_anchors import generator
from .test_assigners import in_graph, stage_proposals


def limits(settings: dict) -> tuple[int, int]:
    sampler = settings["sampler"]
    return sampler["num"], int(sampler["num"] * sampler["pos_fraction"])


class Chosen:
    """Draws that choose given indices."""

    def __init__(self, *indices: np.ndarray):
        self.indices = list(indices)

    def choice(self, candidates, count, replace):
        chosen = next(x for x in self.indices if np.isin(x, candidates).all() and len(x) == count)
        assert not replace
        return chosen[::-1]


def test_rpn_targets_of_the_detector(detector):
    settings = model_settings()["train_cfg"]["rpn"]
    count, positives = limits(settings)
    grid = AnchorGrid(*detector["images"].shape[2:], **generator())
    for (image,) in detector.cases(r"train_bn/rpn\.img(\d+)\.pos"):
        prefix, gt = f"train_bn/rpn.img{image}", detector[f"gt.img{image}.boxes"]
        positive, negative = (detector[f"{prefix}.{name}"] for name in ("pos", "neg"))
        shape = detector.description["img_metas"][int(image)]["img_shape"][:2]
        found = grid.targets(gt, shape, Chosen(positive, negative), count, positives)
        used = int(found.weights.sum())
        TABLE.check("detector rpn.pos and neg", found.indices[:used], np.concatenate([positive, negative]), "exact")
        assert found.labels.sum() == len(positive)
        TABLE.check("detector rpn.pos_target", found.deltas[: len(positive)], detector[f"{prefix}.pos_target"])
        assert not found.deltas[len(positive) :].any()


def test_rois_of_the_detector(detector):
    for mode, number, image in detector.cases(r"(train_bn|eval_bn)/s(\d)\.img(\d+)\.pos"):
        stage, prefix = int(number), f"{mode}/s{number}.img{image}"
        settings = model_settings()["train_cfg"]["rcnn"][stage]
        count, positives = limits(settings)
        boxes, gt = stage_proposals(detector, mode, stage, image), detector[f"gt.img{image}.boxes"]
        assigned, _ = in_graph(boxes, gt, settings["assigner"]["pos_iou_thr"])
        all_boxes, valid, assigned = add_gt(
            Tensor(boxes[None]), Tensor(np.ones((1, len(boxes)), bool)), Tensor(assigned[None]),
            Tensor(gt[None]), Tensor(np.ones((1, len(gt)), bool)),
        )  # fmt: skip
        expected = np.concatenate([detector[f"{prefix}.pos"], detector[f"{prefix}.neg"]])
        draws = np.full(valid.shape, 0.9, np.float32)
        draws[0, expected] = 0.1
        indices, positive, used = (x.asnumpy()[0] for x in sample_rois(assigned, Tensor(draws), count, positives))
        name = f"detector {mode} s{number}"
        TABLE.check(f"{name}.pos and neg", indices[used], expected, "exact")
        assert positive.sum() == len(detector[f"{prefix}.pos"])
        pos_gt = assigned.asnumpy()[0][indices[positive]] - 1
        TABLE.check(f"{name}.pos_gt", pos_gt, detector[f"{prefix}.pos_gt"], "exact")
        if (key := f"{mode}/s{number}.rois") in detector:
            rois = detector[key]
            own = rois[rois[:, 0] == int(image)][:, 1:]
            TABLE.check(f"{name}.rois", all_boxes.asnumpy()[0][indices[used]], own, "box")


def test_anchors_are_sampled_from_a_seed():
    assigned = np.random.RandomState(0).choice([-1, 0, 1, 2], 500)
    first, again, other = (sample_anchors(assigned, 64, 20, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert [x.tolist() for x in first] == [x.tolist() for x in again] != [x.tolist() for x in other]
    positive, negative = first
    assert len(positive) == 20 and len(negative) == 44
    assert (assigned[positive] > 0).all() and (assigned[negative] == 0).all()
    assert (np.diff(positive) > 0).all() and (np.diff(negative) > 0).all()


def test_few_candidates_leave_slots_unused():
    assigned = np.array([[0, 1, -1, 0, 2, 0], [-1] * 6], np.int32)
    draws = np.random.RandomState(0).rand(2, 6).astype(np.float32)
    indices, positive, used = (x.asnumpy() for x in sample_rois(Tensor(assigned), Tensor(draws), 6, 3))
    assert indices.tolist() == [[1, 4, 0, 3, 5, 0], [0] * 6]
    assert positive.sum(1).tolist() == [2, 0] and used.sum(1).tolist() == [5, 0]
    targets = sampled_targets(
        np.float32([[0, 0, 4, 4]]), np.zeros(1, np.int32), np.zeros((0, 4), np.float32), None, 3, 1
    )
    assert targets.weights.tolist() == [1, 0, 0] and not targets.labels.any()


def test_rois_are_a_uniform_sample():
    assigned = np.array([1] * 8 + [0] * 24 + [-1] * 3, np.int32)
    rng, counts, rounds = np.random.RandomState(1), np.zeros(35), 600
    draws = Tensor(rng.rand(rounds, 35).astype(np.float32))
    many = Tensor(np.tile(assigned, (rounds, 1)))
    indices, positive, used = (x.asnumpy() for x in sample_rois(many, draws, 16, 4))
    assert used.all() and (positive.sum(1) == 4).all()
    np.add.at(counts, indices.reshape(-1), 1)
    assert np.abs(counts[:32] / rounds - 0.5).max() < 0.1 and not counts[32:].any()


def test_encoding_in_data_workers_equals_that_in_graphs():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    corners = np.random.RandomState(0).rand(2, 30, 2).astype(np.float32) * 50
    boxes, gt = (np.concatenate([x, x + 1 + corners[1 - i]], 1) for i, x in enumerate(corners))
    assert np.abs(encode_numpy(boxes, gt) - encode_boxes(Tensor(boxes), Tensor(gt)).asnumpy()).max() < 1e-5
