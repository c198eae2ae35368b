"""Mask targets, pasted masks and run-length encoding against mmdetection."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.detection import TABLE
from support.mask_crops import crop_masks, crop_resize

from msg_ms.boxes.masks import CROP_SIZE, paste_mask, paste_masks
from msg_ms.boxes.rle import decode_rle, encode_rle
from msg_ms.models.detection.mask_targets import MaskTargets
from msg_ms.ops import use_backend

pytestmark = pytest.mark.usefixtures("eager")  # the tests of graphs compile


def boxes_of(bitmaps: np.ndarray) -> np.ndarray:
    """The boxes around bitmaps."""
    found = []
    for bitmap in bitmaps:
        rows, columns = np.nonzero(bitmap)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return np.float32(found)


def targets(bitmaps, gt, rois, gt_index, size: int, crop_size: int = CROP_SIZE) -> np.ndarray:
    crops, frames = crop_masks(bitmaps, gt, crop_size)
    # Padded ground truth: an empty mask at the end.
    crops, frames = np.concatenate([crops, 0 * crops[:1]]), np.concatenate([frames, 0 * frames[:1]])
    inputs = (crops, frames, rois, gt_index.astype(np.int32))
    return MaskTargets(size, crop_size)(*(Tensor(x[None]) for x in inputs)).asnumpy()[0]


def test_exact_targets(pieces):
    boxes, inds, expected = pieces["mask.boxes"], pieces["mask.inds"], pieces["mask.soft"]
    soft = [crop_resize(pieces["mask.bitmaps"][i], box, expected.shape[-1]) for box, i in zip(boxes, inds, strict=True)]
    TABLE.check("mask.soft", np.array(soft), expected)
    TABLE.check("mask.targets", np.array(soft) >= 0.5, pieces["mask.targets"] > 0, "exact")


@pytest.mark.parametrize("backend", ["native", "composed"])
def test_targets_from_crops(pieces, backend):
    bitmaps, expected = pieces["mask.bitmaps"], pieces["mask.targets"]
    with use_backend(backend):
        found = targets(bitmaps, boxes_of(bitmaps), pieces["mask.boxes"], pieces["mask.inds"], expected.shape[-1])
    # The native kernel and small bitmaps: exact. An RoI longer than twice its crop is sampled more coarsely.
    share = (found != expected).mean()
    TABLE.note(f"mask.targets from crops, {backend}: share", share)
    assert share <= (0.0005 if backend == "native" else 0.002)


def test_targets_in_a_graph(pieces):
    ms.set_context(mode=ms.GRAPH_MODE)
    bitmaps, expected = pieces["mask.bitmaps"], pieces["mask.targets"]
    found = targets(bitmaps, boxes_of(bitmaps), pieces["mask.boxes"], pieces["mask.inds"], expected.shape[-1])
    assert (found != expected).mean() <= 0.0005


def test_targets_of_the_detector(detector):
    different = total = 0
    for (mode, stage), key in detector.match(r"(train_bn)/s(\d)\.mask_targets").items():
        rois, expected, first = detector[f"{mode}/s{stage}.rois"], detector[key], 0
        for (image,) in detector.cases(rf"{mode}/s{stage}\.img(\d+)\.pos_gt"):
            pos_gt = detector[f"{mode}/s{stage}.img{image}.pos_gt"]
            positives = rois[rois[:, 0] == int(image)][: len(pos_gt), 1:]
            wanted = expected[first : first + len(pos_gt)]
            first += len(pos_gt)
            bitmaps, gt = detector[f"gt.img{image}.masks"], detector[f"gt.img{image}.boxes"]
            found = targets(bitmaps, gt, positives, pos_gt, wanted.shape[-1])
            different, total = different + (found != wanted).sum(), total + wanted.size
            exact = [crop_resize(bitmaps[g], box, wanted.shape[-1]) for g, box in zip(pos_gt, positives, strict=True)]
            TABLE.check("detector mask_targets, from bitmaps", np.array(exact) >= 0.5, wanted > 0, "exact")
    TABLE.note("detector mask_targets, from crops: share", different / total)
    assert different <= 0.001 * total


def test_pasting(pieces):
    height, width = pieces["paste.bitmaps"].shape[1:]
    masks, boxes = pieces["paste.prob"], pieces["paste.boxes"]
    for mask, box, soft in zip(masks, boxes, pieces["paste.soft"], strict=True):
        found, top, left = paste_mask(mask, box, height, width)
        part = soft[top : top + found.shape[0], left : left + found.shape[1]]
        TABLE.check("paste.soft", found, part)
    pasted = [decode_rle(rle) for rle in paste_masks(masks, boxes, height, width)]
    TABLE.check("paste.bitmaps", np.array(pasted), pieces["paste.bitmaps"], "exact")


def test_masks_of_the_detections(inference):
    first = 0
    for i, meta in enumerate(inference.description["img_metas"]):
        boxes, expected = inference[f"img{i}.bboxes"], inference.description["rle"][f"img{i}"]
        masks = inference["mask_prob"][first : first + len(boxes)]
        first += len(boxes)
        found = paste_masks(masks, boxes, *meta["ori_shape"][:2])
        different = [(decode_rle(a) != decode_rle(b)).sum() for a, b in zip(found, expected, strict=True)]
        equal = sum(a == b for a, b in zip(found, expected, strict=True))
        TABLE.note(f"inference rle.img{i}: pixels of {equal}/{len(boxes)} equal masks that differ", sum(different))
        areas = inference[f"img{i}.mask_area"]
        # Probabilities are stored in single precision: a pixel may be within rounding of the threshold.
        assert all(n <= max(1, 0.001 * area) for n, area in zip(different, areas, strict=True))
        for rle, area in zip(expected, areas, strict=True):
            bitmap = decode_rle(rle)
            assert bitmap.sum() == area and encode_rle(bitmap, *bitmap.shape) == rle


@pytest.mark.parametrize(
    "bitmap",
    [
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
        np.eye(5, dtype=bool),
        np.ones((1, 1), bool),
        np.zeros((2, 0), bool),
    ],
)
def test_run_lengths_of_simple_masks(bitmap):
    rle = encode_rle(bitmap, *bitmap.shape)
    assert (decode_rle(rle) == bitmap).all() and decode_rle(rle).shape == bitmap.shape


def test_run_lengths_of_random_masks():
    rng = np.random.RandomState(0)
    for density in (0.02, 0.5, 0.98):
        bitmap = np.repeat(np.repeat(rng.rand(7, 9) < density, 11, 0), 6, 1)
        rle = encode_rle(bitmap, *bitmap.shape)
        assert (decode_rle(rle) == bitmap).all()
        inner = np.pad(bitmap, ((3, 4), (5, 6)))
        assert encode_rle(bitmap, *inner.shape, top=3, left=5) == encode_rle(inner, *inner.shape)


def test_small_objects_are_exact_and_large_ones_nearly():
    rng, shares = np.random.RandomState(0), {}
    for side in (20, 100, 260):
        y, x = np.mgrid[:320, :400]
        gt = np.float32([[10.3, 5.2, 10.3 + side, 5.2 + side * 0.8], [399.5 - side, 319 - side, 400, 320]])
        bitmaps = []
        for x1, y1, x2, y2 in gt:
            ellipse = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2
            inside = (x >= x1) & (x + 1 <= x2) & (y >= y1) & (y + 1 <= y2)
            bitmaps.append((ellipse + 0.3 * np.sin(x / 5) < 1) & inside)
        index = np.arange(20) % 2
        rois = (gt[index] + rng.uniform(-0.15, 0.15, (20, 4)) * side).astype(np.float32)
        rois = np.clip(rois, 0, [400, 320, 400, 320]).astype(np.float32)
        exact = np.array([crop_resize(bitmaps[i], box, 28) >= 0.5 for i, box in zip(index, rois, strict=True)])
        shares[side] = (targets(np.array(bitmaps), gt, rois, index, 28) != exact).mean()
    assert shares[20] == shares[100] == 0 and shares[260] < 0.002
    TABLE.note("mask targets of a 260 pixel ellipse from crops: share", shares[260])
