"""The detection task without training: its keys, configurations, weights and checks."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from mindspore.nn.utils import no_init_parameters
from pycocotools.coco import COCO
from support.small_detector import CONFIG, write_data

from msg_ms import UserError, create_model
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.data.coco.split import TRAIN, VAL, for_training, read_split
from msg_ms.engine.outputs import EvalOutputs
from msg_ms.engine.schedule import build_schedule
from msg_ms.engine.task import Task
from msg_ms.tasks import build_task
from msg_ms.tasks.detection import DetectionTask

SIZES = {"tiny": 82_560_238, "small": 113_309_964, "base": 141_734_220}
MASK_HEADS = 7_929_840  # parameters


@pytest.fixture
def config(tmp_path):
    write_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return load_config(tmp_path / "small.yaml", DATA__DATA_PATH=str(tmp_path / "data"))


@pytest.mark.parametrize("size", SIZES)
def test_the_configurations_have_the_papers_models_and_swins_recipe(size):
    config = load_config(ROOT / "configs" / "coco" / f"cascade_mask_rcnn_msg_{size}.yaml")
    with no_init_parameters():
        model = build_task(config).build_model()
    assert sum(parameter.size for parameter in model.trainable_params()) == SIZES[size]
    boxes = load_config(ROOT / "configs" / "coco" / f"cascade_rcnn_msg_{size}.yaml")
    assert replace(boxes.model.rcnn, masks=True) == config.model.rcnn and not boxes.model.rcnn.masks
    assert replace(boxes, model=config.model) == config
    assert replace(boxes.model, name=config.model.name, rcnn=config.model.rcnn) == config.model
    with no_init_parameters():
        alone = build_task(boxes).build_model()
    assert sum(parameter.size for parameter in alone.trainable_params()) == SIZES[size] - MASK_HEADS
    train = config.train
    assert (train.epochs, train.weight_decay, train.clip_grad, config.data.batch_size) == (36, 0.05, 0, 2)
    assert config.model.drop_path_rate == {"tiny": 0.2, "small": 0.2, "base": 0.3}[size]
    schedule = build_schedule(train, 1000, 16)  # 8 devices
    steps = {1: 1e-7, 501: 1e-4, 27_000: 1e-4, 27_001: 1e-5, 33_001: 1e-6}
    assert {step: pytest.approx(schedule.at_step(step), 1e-9) for step in steps} == steps
    assert build_schedule(train, 1000, 2).at_step(600) == pytest.approx(1e-4 / 8)


def test_a_task_refuses_the_keys_of_another():
    with pytest.raises(UserError, match=r"TASK=detection does not use AUG.MIXUP=0.5: remove it, or set TASK to class"):
        load_config(None, ["TASK", "detection", "AUG.MIXUP", "0.5"])
    with pytest.raises(UserError, match=r"TASK=classification does not use .*FLIP=0.1, .*MAX_GT=7: "):
        load_config(None, ["DETECTION.MAX_GT", "7", "DETECTION.FLIP", "0.1"])
    with pytest.raises(UserError, match=r"--results: the evaluation of this TASK has no such output"):
        Task().check_outputs(EvalOutputs(Path("a.json")))


def test_checkpoints_of_other_categories(config, tmp_path):
    task = DetectionTask(config)
    own = task.metadata()
    assert json.loads(own["category_ids"]) == [7, 5]
    task.check_resume(tmp_path, own)
    assert not task.check_inference(tmp_path, own)
    other = {"classes": json.dumps(["dog", "cat"])}
    with pytest.raises(UserError, match=r"can't resume from .*the categories .* \(0: cat here, dog there"):
        task.check_resume(tmp_path, other)
    assert "the AP compares different classes" in task.check_inference(tmp_path, other)[0]


CHANGES = {
    "masks": lambda content: [a.update(segmentation=[[0, 0, 5, 0, 5, 5]]) for a in content["annotations"]],
    "crowds": lambda content: [a.update(iscrowd=1) for a in content["annotations"][::2]],
    "a box": lambda content: content["annotations"][0].update(bbox=[1, 2, 30, 30]),
    "ignore": lambda content: content["annotations"][0].update(ignore=1),
    "image ids": lambda content: [row.update({k: row[k] + 1}) for k, key in IMAGE_IDS for row in content[key]],
    "categories": lambda content: content["categories"].append({"id": 1, "name": "cow"}),
    "names": lambda content: content["categories"][0].update(name="cow"),
    "areas": lambda content: content["annotations"][0].update(area=1e5),  # the AP of small objects depends on them
}
IMAGE_IDS = (("id", "images"), ("image_id", "annotations"))


@pytest.mark.parametrize("kind", CHANGES)
def test_the_fingerprint_covers_all_that_is_used(kind, config):
    root, task = Path(config.data.data_path), DetectionTask(config)

    def fingerprints():
        values = []
        for splits in ((for_training(read_split(root, TRAIN)), val), (None, read_split(root, VAL))):
            task.splits = splits
            values.append(b"".join(task.fingerprint()))
        return values

    val = read_split(root, VAL)
    before = fingerprints()
    assert fingerprints() == before
    for part in (TRAIN, VAL):
        file = root / "annotations" / f"instances_{part}.json"
        content = json.loads(file.read_text("utf-8"))
        CHANGES[kind](content)
        file.write_text(json.dumps(content), encoding="utf-8")
    train, evaluation = (a != b for a, b in zip(before, fingerprints(), strict=True))
    assert evaluation and train is (kind != "areas")


def test_images_without_annotations_need_results(config, tmp_path):
    file = Path(config.data.data_path) / "annotations/instances_val2017.json"
    content = json.loads(file.read_text("utf-8"))
    file.write_text(
        json.dumps({key: value for key, value in content.items() if key != "annotations"}), encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"instances_val2017.json: the key 'annotations' is missing, as in files"):
        DetectionTask(config).warnings()
    task = DetectionTask(load_config(tmp_path / "small.yaml", DATA__DATA_PATH=config.data.data_path, EVAL_MODE=True))
    file = tmp_path / "results.json"
    task.check_outputs(EvalOutputs(file))
    for outputs in (EvalOutputs(), EvalOutputs(file, True), EvalOutputs(file, report=tmp_path / "report")):
        with pytest.raises(UserError, match=r"no metrics; pass --results without --per-class and --report to write"):
            task.check_outputs(outputs)


def test_results_lie_outside_the_report(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = DetectionTask(config)
    task.check_outputs(EvalOutputs(Path("results.json"), report=Path("report")))
    for file in (Path("report/results.json"), tmp_path / "report" / "more" / "results.json"):
        with pytest.raises(UserError, match=r"--results .*results.json: is in the folder of --report, which is"):
            task.check_outputs(EvalOutputs(file, report=Path("report")))


def test_weights_of_a_classifier_and_of_a_detector_for_other_classes(config, tmp_path):
    msg = config.model.msg
    arguments = {"embed_dim": 8, "depths": msg.depths, "num_heads": msg.num_heads, "window_size": 4}
    classifier = create_model("msg_tiny", 3, img_size=128, shuffle_size=msg.shuf_size, **arguments)
    write_checkpoint(tmp_path / "classifier.ckpt", to_numpy(parameters_by_name(classifier.get_parameters())))
    task = DetectionTask(config)
    model = task.build_model()
    task.load_pretrained(model, tmp_path / "classifier.ckpt")
    weights = to_numpy(parameters_by_name(model.get_parameters()))
    for name, values in to_numpy(parameters_by_name(classifier.get_parameters())).items():
        if not name.startswith(("head.", "norm.")):
            np.testing.assert_array_equal(weights[f"backbone.{name}"], values)

    classes = load_config(tmp_path / "small.yaml", MODEL__NUM_CLASSES=5)
    before = {name: values + 1 for name, values in weights.items()}
    write_checkpoint(tmp_path / "detector.ckpt", before)
    other = DetectionTask(classes).build_model()
    (line,) = task.load_pretrained(other, tmp_path / "detector.ckpt")
    assert "layers for other classes keep their initial values: roi_head" in line
    after = to_numpy(parameters_by_name(other.get_parameters()))
    changed = {name for name in before if after[name].shape == before[name].shape}
    assert all(np.array_equal(after[name], before[name]) for name in changed)
    assert {name.split(".")[-2] for name in set(before) - changed} == {"fc_cls", "fc_reg", "conv_logits"}


def test_the_scenes_are_a_coco_data_set_with_the_ink_as_masks(tmp_path):
    line = [sys.executable, ROOT / "tools" / "make_scenes.py", "scenes", "--train", "3", "--val", "2"]
    for text in ("3 scenes with", "already exists"):
        assert text in subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8").stdout
    truth = COCO(str(tmp_path / "scenes" / "annotations" / "instances_train2017.json"))
    assert len(truth.imgs) == 3 and len(truth.anns) >= 6
    for annotation in truth.anns.values():
        mask = truth.annToMask(annotation)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert mask.sum() == annotation["area"] > 50
