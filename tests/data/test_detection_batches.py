"""Detection batches: canvases, order, resume, ranks, and what each array holds."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from support.coco import small_coco, write_split

from msg_ms import UserError
from msg_ms.boxes.anchors import grid_anchors, level_shapes
from msg_ms.config import load_config
from msg_ms.data import Shard
from msg_ms.data.canvases import CanvasOrder, choose_canvases
from msg_ms.data.coco.arrays import data_pieces, splits_from_arrays, splits_to_arrays
from msg_ms.data.coco.split import ground_truth_warnings, load_coco
from msg_ms.data.detection import DetectionEvalDataset, DetectionTrainDataset
from msg_ms.data.pipeline import WHOLE, arrays_of, signature_of

CANVASES = [(96, 160), (160, 96), (64, 96)]
KEYS = {
    "TASK": "detection",
    "DATA__BATCH_SIZE": 2,
    "DETECTION__SHORT_SIDES": [48, 64, 80],
    "DETECTION__LONG_SIDE": 128,
    "DETECTION__FIRST_SHORT_SIDES": [64, 80],
    "DETECTION__CROP_SIDES": [48, 72],
    "DETECTION__TEST_SHORT_SIDE": 80,
    "DETECTION__TEST_LONG_SIDE": 128,
    "DETECTION__CANVASES": [list(canvas) for canvas in CANVASES],
    "DETECTION__MAX_GT": 3,
}
SIZES = [(40, 60), (60, 40), (50, 50), (36, 90), (45, 61), (90, 36), (64, 47)]
P, R, N = 11, 7, 16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    write_split(root, "train2017", *small_coco(SIZES * 3, objects=2))
    write_split(root, "val2017", *small_coco(SIZES, objects=1, seed=1))
    return root


def configured(root, **keys):
    return load_config(None, **{"DATA__DATA_PATH": str(root), **KEYS, **keys})


def train_data(root, seed=3, shard=WHOLE, accumulation=1, workers=2, **keys):
    config = configured(root, **keys)
    split = load_coco(config.data, 2, training=True)[0]
    sizes = {"blocks": 3, "proposals": P, "rois": R, "anchors": N}
    return DetectionTrainDataset(split, config.data, config.detection, seed, workers, shard, accumulation, **sizes)


def equal(a, b):
    pairs = zip(arrays_of(a), arrays_of(b), strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_batches_have_the_signature_of_a_canvas(root):
    data = train_data(root)
    assert len(data.signatures) == len(CANVASES)
    seen = set()
    for batch in data.batches(0, 3):
        assert signature_of(batch) in data.signatures
        seen.add(batch[0].shape[2:])
    assert seen == set(CANVASES)


def test_what_a_batch_holds(root):
    data = train_data(root)
    for batch in data.batches(0, 2):
        images, gts, rpn, (height, width) = batch.images, batch.gt, batch.rpn, batch.images.shape[2:]
        anchors = np.concatenate(grid_anchors(level_shapes(height, width)))
        for i, (h, w) in enumerate(batch.img_shapes.astype(int)):
            assert (
                np.abs(images[i, :, :h, :w]).max() > 1 and not images[i, :, h:].any() and not images[i, :, :, w:].any()
            )
            valid, gt = gts.valid[i], gts.boxes[i]
            assert not gt[~valid].any() and not gts.masks[i][~valid].any()
            assert (np.diff(valid.astype(int)) <= 0).all()
            assert (gt >= 0).all() and (gt[:, 2] <= w).all() and (gt[:, 3] <= h).all()
            assert set(gts.labels[i][valid]) <= {0, 1}
            chosen = anchors[rpn.indices[i]]
            inside = (chosen[:, :2] >= 0).all(1) & (chosen[:, 2] < w) & (chosen[:, 3] < h)
            assert inside[rpn.weights[i] > 0].all()
            assert (rpn.labels[i] <= rpn.weights[i]).all()
        for draws, count in zip(batch.draws, (P, R, R), strict=True):
            assert draws.shape == (2, 3 + count) and draws.min() >= 0 and draws.max() < 1 and draws.std() > 0.1


def test_batches_without_masks_are_the_same_otherwise(root, tmp_path):
    for part in ("train2017", "val2017"):
        shutil.copytree(root / part, tmp_path / part)
        file = root / "annotations" / f"instances_{part}.json"
        content = json.loads(file.read_text("utf-8"))
        content["annotations"] = [{k: v for k, v in a.items() if k != "segmentation"} for a in content["annotations"]]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / file.name).write_text(json.dumps(content), encoding="utf-8")
    config, whole = configured(tmp_path), train_data(root)
    split = load_coco(config.data, 2, True, masks=False)[0]
    assert len(split.segmentations) == 0 < len(split.labels)
    sizes = {"blocks": 3, "proposals": P, "rois": R, "anchors": N, "masks": False}
    data = DetectionTrainDataset(split, config.data, config.detection, 3, 2, **sizes)
    for own, batch in zip(data.batches(0, 2), whole.batches(0, 2), strict=True):
        assert signature_of(own) in data.signatures
        assert own.gt.masks is None and own.gt.frames is None
        assert equal(own, batch._replace(gt=batch.gt._replace(masks=None, frames=None)))
    val = load_coco(config.data, 2, False, masks=False)[1]
    assert all("segmentation" not in annotation for annotation in val.truth_content()["annotations"])


def test_masks_show_their_boxes(root):
    data, shares = train_data(root, DETECTION__CROP=0.0), []
    for batch in data.batches(0, 1):
        for gt, _, valid, masks, frames in zip(*batch.gt, strict=True):
            for (x1, y1, x2, y2), mask, (left, top, right, bottom) in zip(gt[valid], masks, frames, strict=False):
                y, x = ((np.arange(112) + 0.5) * (b - a) / 112 + a for a, b in ((top, bottom), (left, right)))
                inside = ((x > x1 - 1) & (x < x2 + 1)) & ((y > y1 - 1) & (y < y2 + 1))[:, None]
                # The masks are triangles: half of their boxes.
                shares.append(((mask > 127) & inside).sum() / inside.sum())
    assert 0.4 < np.mean(shares) < 0.55 and min(shares) > 0.3


def test_each_image_once_per_epoch_and_a_new_order(root):
    data = train_data(root)
    assert data.steps == 10
    epochs = [data.order.indices(epoch).ravel() for epoch in range(4)]
    for order in epochs:
        assert len(set(order.tolist())) == len(order) == 20
    assert len({tuple(order.tolist()) for order in epochs}) == 4
    # The image that is left out changes.
    assert len({min(set(range(21)) - set(order.tolist())) for order in epochs}) > 1


def test_the_samples_of_a_step_do_not_depend_on_ranks_or_accumulation(root):
    whole = list(train_data(root, DATA__BATCH_SIZE=4).batches(0, 2))
    ranks = [list(train_data(root, shard=Shard(r, 2)).batches(0, 2)) for r in range(2)]
    accumulated = list(train_data(root, accumulation=2).batches(0, 2))
    assert len(whole) == len(ranks[0]) == len(ranks[1]) == len(accumulated) // 2 == 10
    for step, batch in enumerate(whole):
        for parts in ([rank[step] for rank in ranks], accumulated[2 * step : 2 * step + 2]):
            # The noise has the batch on its last axis.
            joined = [np.concatenate(arrays) for arrays in zip(*(arrays_of(p)[:-1] for p in parts), strict=True)]
            assert equal(batch[:-1], joined)
            assert (batch.noise == np.concatenate([part.noise for part in parts], -1)).all()


def test_workers_and_a_resume_change_nothing(root):
    data = train_data(root)
    once = list(data.batches(0, 3))
    for step in (1, 10, 17):
        for a, b in zip(once[step:], train_data(root, workers=1).batches(step, 3), strict=True):
            assert equal(a, b)
    other = list(train_data(root, seed=4).batches(0, 1))
    assert not equal(once[0], other[0])
    files = data.files_of(12)
    assert len(files) == 2 and all(file.startswith(str(root / "train2017")) for file in files)


def test_most_steps_need_no_shrinking():
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 160, (500, 2))
    canvases = [(64, 64), (96, 160), (160, 96), (160, 160)]
    order = CanvasOrder(500, 8, 0, lambda epoch: sizes, canvases)
    plan, shrunk = order.epoch(0), 0
    for step, samples in enumerate(plan):
        canvas = order.canvas(step)
        fits = (sizes[samples] <= canvas).all(1)
        shrunk += int(not fits.all())
    assert shrunk <= len(canvases) - 1 and plan.size == len(set(plan.ravel().tolist())) == 496
    assert {order.canvas(step) for step in range(len(plan))} == set(canvases)
    examples = np.array([[64, 64], [65, 64], [97, 159], [300, 150]])
    assert order.canvases[choose_canvases(examples, order.canvases)].tolist() == [
        [64, 64],
        [96, 160],
        [160, 160],
        [160, 96],
    ]


def test_more_objects_than_max_gt_are_dropped_at_random(root, tmp_path):
    content, images = small_coco([(60, 60)] * 2, objects=9)
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name, content, images)
    data = train_data(tmp_path, DETECTION__CROP=0.0, DETECTION__FLIP=0.0, DETECTION__SHORT_SIDES=[60])
    chosen = set()
    for batch in data.batches(0, 6):
        assert batch.gt.valid.all()
        chosen |= {tuple(map(tuple, boxes.round(1).tolist())) for boxes in batch.gt.boxes}
    assert len(chosen) >= 10  # of 12 draws out of 84 each
    (line,) = ground_truth_warnings(data.split, 3)
    assert "2 of 2 images have more than DETECTION.MAX_GT=3 objects, at most 9" in line and "(12 of 18 objects)" in line
    assert not ground_truth_warnings(data.split, 9)


def test_evaluation_reads_each_image_once_on_any_number_of_ranks(root):
    config = configured(root)
    val = load_coco(config.data, 2, training=False)[1]
    for count in (1, 2, 3):
        seen, rows = [], 0
        for rank in range(count):
            data = DetectionEvalDataset(val, config.data, config.detection, 2, Shard(rank, count))
            batches = list(data.batches())
            assert len(batches) == data.steps
            for batch in batches:
                assert signature_of(batch) in data.signatures
                seen += batch.index[batch.valid > 0].tolist()
                rows += len(batch.index)
        assert sorted(seen) == list(range(len(val))) and rows <= len(val) + 2 * count


def test_what_an_evaluation_batch_holds(root):
    config = configured(root)
    val = load_coco(config.data, 2, training=False)[1]
    data = DetectionEvalDataset(val, config.data, config.detection, 1)
    for images, shapes, factors, originals, index, valid in data.batches():
        for row in np.flatnonzero(valid):
            height, width = SIZES[index[row]]
            factor = min(80 / min(height, width), 128 / max(height, width))
            expected = int(height * factor + 0.5), int(width * factor + 0.5)
            assert tuple(originals[row]) == (height, width) and tuple(shapes[row]) == expected
            assert np.allclose(factors[row], [expected[1] / width, expected[0] / height] * 2, atol=1e-6)
            assert not images[row, :, expected[0] :].any() and images[row, :, expected[0] - 1].any()
    assert {signature[0][0][2:] for signature in data.signatures} <= set(CANVASES)


def test_an_image_of_another_size_ends_the_run(root, tmp_path):
    content, images = small_coco([(60, 40)] * 2)
    content["images"][1]["width"] = 41
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name, content, images)
    config = configured(tmp_path)
    val = load_coco(config.data, 2, training=False)[1]
    text = r"val2017/0001.png is 40 x 60 pixels \(width x height\), but the annotations have 41 x 60"
    with pytest.raises(UserError, match=text):
        list(DetectionEvalDataset(val, config.data, config.detection, 1).batches())
    with pytest.raises(UserError, match=r"train2017/0001.png is 40 x 60 pixels"):
        list(train_data(tmp_path).batches(0, 1))


def test_damaged_images(root, tmp_path):
    content, images = small_coco([(60, 40)] * 6)
    images["0002.png"] = b"no image"
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name, content, images)
    data, lines = train_data(tmp_path), []
    batches = list(data.batches(0, 1, lines.append))
    assert len(batches) == 3 and len(lines) == 1 and "train2017/0002.png" in lines[0]
    assert all(batch[0][i].any() for batch in batches for i in range(2))
    with pytest.raises(UserError, match="MAX_BAD_FILES=0"):
        list(train_data(tmp_path, DATA__MAX_BAD_FILES=0).batches(0, 1))
    config = configured(tmp_path)
    val = load_coco(config.data, 2, training=False)[1]
    with pytest.raises(UserError, match=r"can't evaluate: .*val2017/0002.png can't be decoded"):
        list(DetectionEvalDataset(val, config.data, config.detection, 1).batches())


def test_a_step_needs_enough_images(root):
    with pytest.raises(UserError, match=r"instances_train2017.json has 21 samples, fewer than one batch"):
        train_data(root, DATA__BATCH_SIZE=32)


def test_canvases_must_hold_the_largest_images():
    with pytest.raises(UserError, match=r"none holds an image of height 128 and width 80, .*add \[128, 96\]"):
        load_config(None, **{**KEYS, "DETECTION__CANVASES": [[96, 128]]})
    for canvases in ([], [[96, 100]], [[96, 96, 96]], [[96, 128], [96, 128]]):
        with pytest.raises(UserError, match=r"DETECTION.CANVASES=.*: must be a list"):
            load_config(None, DETECTION__CANVASES=canvases)
    square = load_config(None, **{**KEYS, "DETECTION__CANVASES": [[128, 128]]})
    assert dataclasses.astuple(square.detection)[-2] == ((128, 128),)


def test_an_image_with_a_crowd_alone_is_background(tmp_path):
    content, pixels = small_coco(SIZES[:2], objects=1)
    content["annotations"][1] |= {"iscrowd": 1, "segmentation": {"size": list(SIZES[1]), "counts": [0, 2400]}}
    for name in ("train2017", "val2017"):
        write_split(tmp_path, name, content, pixels)
    data = train_data(tmp_path)
    assert len(data) == 2  # mmdetection leaves out only images without any annotation
    batches = data.batches(0, 1)
    batch = next(batches)
    counts = batch.gt.valid.sum(1)
    assert sorted(counts.tolist()) in ([0, 0], [0, 1])
    assert (batch.rpn.labels[counts == 0] == 0).all() and batch.rpn.weights.any()


def test_splits_that_processes_share_hold_the_same(root, tmp_path):
    splits = load_coco(configured(root).data, 2, True)
    arrays = splits_to_arrays(splits)
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    mapped = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.glob("*.npy")}
    assert mapped.keys() == arrays.keys()
    shared = splits_from_arrays(mapped)
    for split, other in zip(splits, shared, strict=True):
        for field in dataclasses.fields(split):
            if field.name in ("segmentations", "truth"):
                continue
            value, copy = getattr(split, field.name), getattr(other, field.name)
            assert np.array_equal(value, copy) if isinstance(value, np.ndarray) else value == copy, field.name
        assert other.segmentations.nbytes == split.segmentations.nbytes
        masks = [
            [s.segmentations.encoded(i, 40, 60) for i in range(len(s.segmentations.runs) - 1)] for s in (split, other)
        ]
        assert masks[0] == masks[1] and len(masks[0])
        assert [bytes(piece) for piece in data_pieces(split)] == [bytes(piece) for piece in data_pieces(other)]
    assert shared[0].truth is None and shared[1].truth_content() == splits[1].truth_content()
    config = configured(root)
    batches = [
        DetectionTrainDataset(part, config.data, config.detection, 0, 1).batches(0, 1)
        for part in (splits[0], shared[0])
    ]
    assert all(equal(a, b) for a, b in zip(*batches, strict=True))
    assert splits_from_arrays(splits_to_arrays((None, splits[1])))[0] is None
