"""Box and mask AP: equal to pycocotools' own on the written file, and the same on any number of ranks."""

import json
import shutil

import numpy as np
import pytest
from mindspore import Tensor, nn
from support.random_coco import by_pycocotools, compare, detect, random_content, write
from support.small_detector import write_data

from msg_ms import UserError
from msg_ms.config import DataConfig
from msg_ms.data.coco.split import load_coco, read_split
from msg_ms.engine.ranks import Ranks
from msg_ms.tasks.coco_evaluator import CocoEvaluator, check_detections

SLOTS, SIDE = 6, 28


class Merging(Ranks):
    """Rank 0 of several, with the data of the others at hand."""

    parts = ()

    def gather_bytes(self, data):
        return list(self.parts)

    def run_on_rank0(self, work):
        return work()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp("coco"), val=11)
    return load_coco(DataConfig(data_path=str(folder)), 2, training=False)[1]


def batches(split, shard=0, shards=1, size=2):
    """Yield padded batches of a shard with detections near the ground truth, some of them wrong."""
    own = list(range(shard, len(split), shards))
    for begin in range(0, len(own), size):
        part = own[begin : begin + size]
        index = np.array([*part, *part[-1:] * (size - len(part))], np.int32)
        rows = [detections(split, i) for i in index]
        outputs = tuple(Tensor(np.stack(values)) for values in zip(*rows, strict=True))
        valid = (np.arange(size) < len(part)).astype(np.float32)
        yield (None, None, None, split.sizes[index].astype(np.int32), index, valid), outputs


def detections(split, image):
    """Boxes, scores, labels, mask probabilities and which are used, from the image's number alone."""
    draws, objects = np.random.RandomState(image), split.objects(image)
    boxes, scores = np.zeros((SLOTS, 4), np.float32), np.sort(draws.rand(SLOTS).astype(np.float32))[::-1].copy()
    labels = draws.randint(0, 2, SLOTS).astype(np.int32)
    for slot in range(5):
        own = slot % len(objects.boxes)
        boxes[slot] = objects.boxes[own] + draws.uniform(-3, 3, 4) * (slot > 0)
        labels[slot] = objects.labels[own] if slot != 2 else 1 - objects.labels[own]
    triangle = np.add.outer(np.arange(SIDE), np.arange(SIDE)) < SIDE + draws.randint(-4, 5, (SLOTS, 1, 1))
    return boxes, scores, labels, triangle.astype(np.float32), np.arange(SLOTS) < 5


def evaluate(split, shards=1, size=2):
    evaluators = []
    for shard in range(shards):
        evaluators.append(CocoEvaluator(nn.Cell(), split))
        for batch, outputs in batches(split, shard, shards, size):
            evaluators[-1].update(batch, outputs)
    ranks = Merging(0, shards)
    object.__setattr__(ranks, "parts", [evaluator.detected.to_bytes() for evaluator in evaluators])
    return evaluators[0], evaluators[0].compute(ranks)


def test_the_written_file_has_the_same_ap_by_pycocotools_alone(split, tmp_path):
    evaluator, metrics = evaluate(split)
    evaluator.write_results(tmp_path / "results.json")
    expected = by_pycocotools(split.annotation_file, tmp_path / "results.json")
    assert metrics.values.keys() == expected.keys() and len(expected) == 24
    for key, value in expected.items():
        assert metrics.values[key] == value, key
    assert metrics.values["bbox/mAP_l"] is None  # there are no large objects
    assert 0.2 < metrics.values["bbox_mAP"] < 0.99 and 0.1 < metrics.values["segm_mAP"] < 0.99
    records = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert len(records) == 5 * len(split)
    assert {record["image_id"] for record in records} == set(split.image_ids.tolist())
    assert {record["category_id"] for record in records} == {5, 7}
    assert metrics.rank[0] == metrics.values["bbox_mAP"]
    assert [line.split(":")[0] for line in evaluator.per_class()] == ["cat", "dog"]


@pytest.mark.parametrize(("first", "cases"), [(0, 25), pytest.param(1000, 600, marks=pytest.mark.slow, id="many")])
def test_random_data_have_pycocotools_own_numbers(first, cases, tmp_path):
    compared = undefined = 0
    for seed in range(first, first + cases):
        rng, root = np.random.default_rng(seed), tmp_path / str(seed)
        content = random_content(rng)
        write(root, content, [image["file_name"] for image in content["images"]])
        split = read_split(root, "val2017")
        assert not compare(split, root, rng), seed
        compared += len(content["annotations"])
        undefined += not split.truth.objects(1).sum()
        shutil.rmtree(root)
    assert compared > 5 * cases and undefined < cases / 5


def test_boxes_alone_have_the_same_box_ap(split, tmp_path):
    _, whole = evaluate(split)
    folder = split.annotation_file.parents[1]
    content = json.loads(split.annotation_file.read_text("utf-8"))
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    shutil.copytree(folder, tmp_path / "boxes")
    (tmp_path / "boxes" / "annotations" / split.annotation_file.name).write_text(json.dumps(content), encoding="utf-8")
    own = load_coco(DataConfig(data_path=str(tmp_path / "boxes")), 2, training=False, masks=False)[1]
    evaluator = CocoEvaluator(nn.Cell(), own, masks=False)
    for batch, (*outputs, _, used) in batches(split):
        evaluator.update(batch, (*outputs, used))
    metrics = evaluator.compute(Ranks())
    assert metrics.values == {key: value for key, value in whole.values.items() if key.startswith("bbox")}
    assert [metric.key for metric in metrics.definitions] == ["bbox_mAP", "bbox_mAP_50", "bbox_mAP_75"]
    assert evaluator.per_class()[0].startswith("cat: box AP") and "mask" not in evaluator.per_class()[0]
    evaluator.write_results(tmp_path / "results.json")
    check_detections(tmp_path / "results.json", masks=False)
    assert metrics.values == by_pycocotools(split.annotation_file, tmp_path / "results.json", ("bbox",))


def test_any_number_of_ranks_and_any_batch_size_have_the_same_metrics(split):
    _, whole = evaluate(split)
    for shards, size in ((2, 2), (3, 2), (1, 4)):
        assert evaluate(split, shards, size)[1] == whole


def test_the_mean_of_the_classes_is_the_ap(split):
    evaluator, metrics = evaluate(split)
    boxes = [float(line.split("box AP ")[1].split(",")[0]) for line in evaluator.per_class()]
    assert abs(np.mean(boxes) - metrics.values["bbox_mAP"]) < 1e-3


def test_no_detection_is_an_ap_of_zero(split, tmp_path):
    evaluator = CocoEvaluator(nn.Cell(), split)
    metrics = evaluator.compute(Ranks())
    assert metrics.values["bbox_mAP"] == metrics.values["segm_mAP"] == 0
    evaluator.write_results(tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text("utf-8")) == []
    check_detections(tmp_path / "none.json")


ROW = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": {}}


@pytest.mark.parametrize(
    ("content", "replaced"),
    [
        ([], True),
        ([ROW], True),
        (json.dumps([ROW] * 2, indent=2), True),
        ([{"image_id": 1, "caption": "a cat"}], False),
        ([{key: value for key, value in ROW.items() if key != "segmentation"}], False),
        ([{**ROW, "keypoints": []}], False),
        ('[{"image_id": ', False),
        ("[]]", False),
        ({"images": []}, False),
        ("[" * 100_000, False),
        ("\x00\xff", False),
    ],
)
def test_only_a_file_of_detections_is_replaced(content, replaced, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="latin-1")
    if replaced:
        check_detections(file)
        return
    with pytest.raises(UserError, match=r"results\.json: exists and holds no detections with masks; name another file"):
        check_detections(file)
    if "0.5}]" in file.read_text("latin-1"):
        return check_detections(file, masks=False)
    with pytest.raises(UserError, match=r"results\.json: exists and holds no detections; name another file"):
        check_detections(file, masks=False)


def test_own_results_are_replaced(split, tmp_path):
    evaluator, _ = evaluate(split)
    check_detections(tmp_path / "own.json")
    evaluator.write_results(tmp_path / "own.json")
    check_detections(tmp_path / "own.json")
    with pytest.raises(UserError, match=r"must end in \.json"):
        check_detections(tmp_path / "results.txt")


def changed(tmp_path, change):
    """Return the validation images of a small data set whose file was changed."""
    folder = write_data(tmp_path / "data", val=3)
    file = folder / "annotations/instances_val2017.json"
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    return load_coco(DataConfig(data_path=str(folder)), 2, training=False)[1]


@pytest.mark.parametrize("key", ["iscrowd", "ids from 0", "no objects"])
def test_metrics_without_objects_are_undefined(key, tmp_path):
    def change(content):
        if key == "no objects":
            content["annotations"] = []
        for annotation in content["annotations"]:
            annotation["iscrowd"] = int(key == "iscrowd")
            annotation["id"] -= key == "ids from 0"

    split = changed(tmp_path, change)
    evaluator = detect(split, np.random.default_rng(0))
    metrics = evaluator.compute(Ranks())
    if key == "ids from 0":
        assert metrics.values["bbox_mAP"] is not None and not split.warnings
        return
    assert set(metrics.values.values()) == {None} and not metrics.is_defined
    assert str(metrics) == "no metrics on 3 images: there are no objects to find, or crowds alone"
    assert evaluator.per_class() == ["cat: no objects, the AP is undefined", "dog: no objects, the AP is undefined"]
    assert "the AP is undefined: there are no objects, or crowds alone" in split.warnings[0]


def test_a_category_without_objects_is_named(tmp_path):
    def change(content):
        for annotation in content["annotations"]:
            annotation["category_id"] = 7

    split = changed(tmp_path, change)
    evaluator = detect(split, np.random.default_rng(0))
    metrics = evaluator.compute(Ranks())
    cat, dog = evaluator.per_class()
    assert dog == "dog: no objects, the AP is undefined"
    assert cat.startswith(f"cat: box AP {metrics.values['bbox_mAP']:.3f}, mask AP")
    assert split.warnings[0].endswith("categories without objects, which the AP leaves out: dog")


def test_images_without_annotations_have_results_and_no_metrics(tmp_path):
    split = changed(tmp_path, lambda content: content.pop("annotations"))
    evaluator = detect(split, np.random.default_rng(0))
    metrics = evaluator.compute(Ranks())
    assert str(metrics) == f"no metrics on 3 images: {split.annotation_file} has no annotations"
    evaluator.write_results(tmp_path / "results.json")
    rows = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert {row["image_id"] for row in rows} <= {10, 13, 16} and len(rows) == len(evaluator.results) > 0


def test_a_file_that_is_exchanged_during_a_run_does_not_matter(tmp_path):
    split = changed(tmp_path, lambda content: None)
    first = detect(split, np.random.default_rng(0)).compute(Ranks())
    split.annotation_file.write_text("[]", encoding="utf-8")
    assert detect(split, np.random.default_rng(0)).compute(Ranks()) == first
