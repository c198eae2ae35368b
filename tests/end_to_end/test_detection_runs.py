"""TASK: detection through train.py, eval.py and predict.py: a small run, killed runs, and several ranks."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from support.run_files import compare_killed
from support.script import free_port
from support.small_detector import CONFIG, write_data

from msg_ms.checkpoint import read_checkpoint

FLAGS = ["--cfg", "small.yaml", "--data-path", "data"]


@pytest.fixture
def folder(tmp_path):
    write_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def run(folder, name, *flags, status=0):
    return script(folder, name, *FLAGS, *flags, status=status)


def script(folder, name, *flags, status=0):
    line = [sys.executable, ROOT / name, *map(str, flags)]
    done = subprocess.run(line, cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.mark.slow
def test_train_evaluate_and_predict(folder):
    text = run(folder, "train.py", "--output", "out", "--opts", "PRINT_FREQ", 1)
    assert "s2.loss_mask" in text and "2/2: box AP" in text
    best = folder / "out" / "small_detector" / "default" / "best.ckpt"
    _, metadata = read_checkpoint(best)
    assert json.loads(metadata["classes"]) == ["cat", "dog"] and json.loads(metadata["category_ids"]) == [7, 5]
    records = [json.loads(line) for line in best.with_name("metrics.jsonl").read_text("utf-8").splitlines()]
    assert len(records) == 2 and records[-1]["primary"] == "bbox_mAP" and "train_loss/loss_rpn_cls" in records[-1]
    text = run(folder, "eval.py", "--resume", best, "--results", "results.json", "--per-class")
    assert "cat: box AP" in text and "wrote results.json" in text
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results and {row["category_id"] for row in results} <= {5, 7}
    (folder / "foreign.json").write_text("{}", encoding="utf-8")
    assert "holds no detections" in run(folder, "eval.py", "--resume", best, "--results", "foreign.json", status=2)
    line = [sys.executable, ROOT / "tools" / "predict.py", *FLAGS[:2], "--resume", best, "--score-thr", "0.02"]
    line += ["--json", "found.json", "--picture", "found.png", "data/val2017"]
    subprocess.run(line, cwd=folder, check=True)
    images = json.loads((folder / "found.json").read_text("utf-8"))["images"]
    assert len(images) == 5 and sum(len(image["objects"]) for image in images) > 0
    assert (folder / "found.png").stat().st_size > 1000


@pytest.mark.slow
def test_boxes_alone_from_training_to_export(folder):
    for file in (folder / "data" / "annotations").iterdir():
        content = json.loads(file.read_text("utf-8"))
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        file.write_text(json.dumps(content), encoding="utf-8")
    flags = ["--opts", "PRINT_FREQ", 1, "TRAIN.EPOCHS", 1]
    assert "pass --opts MODEL.RCNN.MASKS False" in run(folder, "train.py", "--output", "out", *flags, status=2)
    text = run(folder, "train.py", "--output", "out", *flags, "MODEL.RCNN.MASKS", False)
    assert "s2.loss_bbox" in text and "1/1: box AP" in text and "mask" not in text
    best = folder / "out" / "small_detector" / "default" / "best.ckpt"
    # From here on the checkpoint's own configuration says that there are no masks.
    own = ["--data-path", "data", "--resume", best]
    text = script(folder, "eval.py", *own, "--results", "results.json", "--per-class", "--fast")
    assert "cat: box AP" in text and "mask" not in text
    assert "segmentation" not in (folder / "results.json").read_text("utf-8")
    line = ["--resume", best, "--score-thr", "0.02", "--json", "found.json", "--picture", "found.png", "data/val2017"]
    script(folder, "tools/predict.py", *line)
    images = json.loads((folder / "found.json").read_text("utf-8"))["images"]
    assert len(images) == 5 and any(image["objects"] for image in images) and "segmentation" not in str(images)
    text = script(folder, "tools/export.py", "--resume", best, "--output", "boxes.mindir")
    assert "detections equal the model's (boxes within 0.0e+00 pixels" in text and "mask" not in text


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(folder):
    flags = [*FLAGS, "--opts", "TRAIN.EPOCHS", "8", "PRINT_FREQ", "1", "SAVE_STEPS", "2", "TRAIN.EMA_DECAY", "0.9"]
    compare_killed(folder, "small_detector", flags, kills=5, longest=5)


@pytest.mark.slow
def test_one_two_and_three_ranks_evaluate_alike(folder):

    def launch(script, *arguments):
        environment = {"PYTHON": sys.executable, "DEVICE_TARGET": "CPU", "MASTER_PORT": str(free_port())}
        line = ["bash", ROOT / "scripts" / script, *map(str, arguments)]
        subprocess.run(line, cwd=folder, env={**os.environ, **environment}, check=True)

    launch("run_distribute_train.sh", 2, "small.yaml", "data", "--output", "out", "--opts", "TRAIN.EPOCHS", 1)
    best = folder / "out" / "small_detector" / "default" / "best.ckpt"
    run(folder, "eval.py", "--resume", best, "--results", "1.json", "--report", "report1")
    for ranks in (2, 3):
        outputs = "--results", f"{ranks}.json", "--report", f"report{ranks}"
        launch("run_distribute_eval.sh", ranks, "small.yaml", "data", best, *outputs)
        assert (folder / f"{ranks}.json").read_bytes() == (folder / "1.json").read_bytes()
        for file in (folder / "report1").iterdir():
            assert (folder / f"report{ranks}" / file.name).read_bytes() == file.read_bytes(), file.name
