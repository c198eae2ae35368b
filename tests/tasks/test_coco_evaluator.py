"""Box and mask AP: equal to pycocotools' own on the written file, and the same on any number of ranks."""

import json
import shutil

import numpy as np
import pytest
from mindspore import Tensor, nn
from support.random_coco import by_pycocotools, compare, random_content, write
from support.small_detector import write_data

from msg_ms import UserError
from msg_ms.config import DataConfig
from msg_ms.data.coco.split import load_coco, read_split
from msg_ms.engine.ranks import Ranks
from msg_ms.tasks.coco_evaluator import CocoEvaluator, check_results

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
    records = json.loads((tmp_path / "results.json").read_text())
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
    assert json.loads((tmp_path / "none.json").read_text()) == []
    check_results(tmp_path / "none.json")


def test_only_a_file_of_results_is_replaced(split, tmp_path):
    evaluator, _ = evaluate(split)
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    check_results(own)
    evaluator.write_results(own)
    check_results(own)
    other.write_text('{"images": []}')
    with pytest.raises(UserError, match=r"other\.json: exists and holds no detections"):
        check_results(other)
    with pytest.raises(UserError, match=r"must end in \.json"):
        check_results(tmp_path / "results.txt")
