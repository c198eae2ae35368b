"""The report of a detector: AP by class and size as pycocotools has it, TIDE's errors, pictures of the worst images."""

import csv
import json
import shutil

import numpy as np
import pytest
from mindspore import nn
from support.random_coco import detect, random_content, write
from support.small_detector import write_data

from msg_ms.config import DataConfig
from msg_ms.data.coco.split import load_coco, read_split
from msg_ms.engine.ranks import Ranks
from msg_ms.report import check_report, write_report
from msg_ms.report.tide import NAMES
from msg_ms.tasks.coco_evaluator import KINDS, CocoEvaluator, metric_key
from msg_ms.tasks.detection_report import detection_report, errors_of


def reported(split, folder, seed=0):
    """Return evaluator and metrics of random detections, and the report's numbers."""
    evaluator = detect(split, np.random.default_rng(seed))
    metrics = evaluator.compute(Ranks())
    write_report(folder, detection_report(evaluator, metrics), [("model", "small")])
    check_report(folder)
    return evaluator, metrics, json.loads((folder / "metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    split = load_coco(DataConfig(data_path=str(write_data(folder / "data", val=11))), 2, training=False)[1]
    return (split, folder / "report", *reported(split, folder / "report"))


def test_the_numbers_are_pycocotools(small):
    _, _, evaluator, metrics, content = small
    for row, (kind, word) in zip(content["sizes"], KINDS.items(), strict=True):
        assert row["kind"] == word
        keys = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75", "AR": "/AR_100"}
        keys |= {f"AP_{size}": f"/mAP_{size[0]}" for size in ("small", "medium", "large")}
        for own, number in keys.items():
            assert row[own] == pytest.approx(metrics.values[metric_key(kind, number)], abs=1e-12), number
        classes = content[f"per_class_{word}"]
        assert np.mean([r["AP"] for r in classes]) == pytest.approx(row["AP"])
        lines = evaluator.per_class()
        assert all(
            any(line.startswith(r["class"]) and f"{word} AP {r['AP']:.3f}" in line for line in lines) for r in classes
        )
        assert sum(r["objects"] for r in classes) == 22


def test_the_area_below_a_curve_is_its_ap(small):
    _, folder, _, _, content = small
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in content["sizes"]:
        for iou, key in (("0.50", "AP50"), ("0.75", "AP75"), ("0.50 to 0.95", "AP")):
            own = [r for r in rows if (r["kind"], r["category_id"], r["iou"]) == (row["kind"], "", iou)]
            assert len(own) == 101 and np.mean([float(r["precision"]) for r in own]) == pytest.approx(row[key])


def test_errors_are_counted_once(small):
    split, _, evaluator, _, content = small
    errors = errors_of(evaluator, "bbox")
    assert len(errors) == len(split)
    rows = {row["error"]: row for row in content["errors"]}
    counts = np.unique([row["image_id"] for row in evaluator.results], return_counts=True)[1].tolist()
    right = sum(int((image.states == 1).sum()) for image in errors)
    assert sum(rows[name]["box_count"] for name in NAMES[:5]) == sum(map(min, counts, [100] * len(counts))) - right
    assert all(0 <= rows[name][key] <= 1 for name in NAMES for key in ("box_dAP", "mask_dAP"))
    by_class = content["errors_per_class"]
    assert sum(row["objects"] for row in by_class) == 22
    assert all(row["found"] + row["Miss"] == row["objects"] for row in by_class)


def test_the_page_shows_truth_and_detections_of_the_worst_images(small):
    folder = small[1]
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") == 4
    pictures = page.count("data:image/jpeg")
    assert pictures % 2 == 0 and 2 < pictures <= 24 and "truth: 2 objects, " in page and "detections: " in page
    assert "0000.png" in page


def test_a_detector_without_masks_has_the_same_numbers_of_boxes(small, tmp_path):
    split, _, evaluator, _, content = small
    file = tmp_path / "data" / "annotations" / split.annotation_file.name
    shutil.copytree(split.annotation_file.parents[1], tmp_path / "data")
    annotations = json.loads(file.read_text("utf-8"))
    for annotation in annotations["annotations"]:
        del annotation["segmentation"]
    file.write_text(json.dumps(annotations), encoding="utf-8")
    boxes = load_coco(DataConfig(data_path=str(tmp_path / "data")), 2, training=False, masks=False)[1]
    other, arrays = CocoEvaluator(nn.Cell(), boxes, masks=False), evaluator.detected.arrays()
    for index in range(len(boxes)):
        rows = [arrays[name][arrays["images"] == index] for name in ("boxes", "scores", "labels")]
        other.detected.add(index, *rows, None)
    metrics = other.compute(Ranks())
    write_report(tmp_path / "boxes", detection_report(other, metrics), [])
    own = json.loads((tmp_path / "boxes" / "metrics.json").read_text("utf-8"))
    assert own["per_class_box"] == content["per_class_box"] and "per_class_mask" not in own
    assert [row["box_dAP"] for row in own["errors"]] == [row["box_dAP"] for row in content["errors"]]
    assert set(own["errors"][0]) == {"error", "meaning", "box_count", "box_dAP"}
    assert "mask" not in "".join(own["files"])


@pytest.mark.parametrize("seed", range(4))
def test_odd_data_have_a_report(seed, tmp_path):
    """Images that can't be read, classes without objects, crowds, boxes outside, no detections."""
    rng = np.random.default_rng(seed)
    content = random_content(rng)
    content["categories"][0]["name"] = "<i>{{ x }}\u6570"
    write(tmp_path, content, [image["file_name"] for image in content["images"]])
    split = read_split(tmp_path, "val2017")
    _, _, numbers = reported(split, tmp_path / "report", seed)
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "<i>" not in page and "&lt;i&gt;{{ x }}\u6570" in page
    assert len(numbers["per_class_box"]) == len(content["categories"])
