"""The guide docs/own_data.md by its own blocks: from labels in each of the five formats to an image with detections."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import pytest
from pages import ROOT, blocks, without_comments
from support.annotation_formats import CLASSES, WRITERS, Drawn, Scene, import_annotations

PAGE = ROOT / "docs" / "own_data.md"
DRAWN = "my_shapes"


def run(line, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = line.replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def guide_folder(folder):
    """Return a folder with the drawn images, the configuration, and the repository's commands."""
    folder.mkdir(parents=True)
    for name in ("configs", "tools", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    for language, name in (("python", "draw_shapes.py"), ("yaml", "my_shapes.yaml")):
        ((_, text),) = blocks(PAGE, language)
        (folder / name).write_text(text, encoding="utf-8")
    run("python draw_shapes.py", folder)
    return folder


def commands_of_the_guide():
    text = "".join(block for _, block in blocks(PAGE, "bash")).replace("\\\n", " ")
    return without_comments(text).splitlines()


def drawn_scenes(root):
    """Return the drawn images with their labels in pixels."""
    scenes = []
    for file in sorted((root / "images").iterdir()):
        scene = Scene(file.name, cv2.imread(str(file)))
        height, width = scene.size
        for line in (root / "labels" / file.name).with_suffix(".txt").read_text("utf-8").splitlines():
            label, x, y, w, h = map(float, line.split())
            x1, y1, x2, y2 = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
            scene.objects.append(Drawn(CLASSES[int(label)], tuple(map(round, (x1, y1, x2, y2))), []))
        scenes.append(scene)
    return scenes


def expected_output(word):
    """Return the block of output on the page that begins with a word."""
    return next(text for _, text in blocks(PAGE, "") if text.startswith(word))


def test_import_as_on_the_page_from_each_format(tmp_path):
    ((_, script),) = blocks(PAGE, "python")
    exec(compile(script, "draw_shapes.py", "exec"), {})  # in tmp_path
    shutil.move(DRAWN, "yolo")
    scenes = drawn_scenes(tmp_path / "yolo")
    _, _, *arguments = commands_of_the_guide()[0].split()
    written = {}
    for name, write in WRITERS.items():
        if name != "yolo":
            write(tmp_path / name, scenes)
        (tmp_path / name).rename(DRAWN)
        lines = import_annotations(*arguments).splitlines()
        assert lines[-3:] == expected_output(f"{DRAWN}: YOLO").splitlines()[-3:]
        annotations = tmp_path / "demo" / DRAWN / "annotations"
        written[name] = {path.name: path.read_bytes() for path in sorted(annotations.iterdir())}
        shutil.rmtree(tmp_path / "demo")
        shutil.rmtree(DRAWN)
    assert len(written["yolo"]) == 2 and all(files == written["yolo"] for files in written.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_the_guide_ends_with_detections_in_images(name, tmp_path):
    folder = guide_folder(tmp_path / "guide")
    if name != "yolo":
        scenes = drawn_scenes(folder / DRAWN)
        shutil.rmtree(folder / DRAWN)
        WRITERS[name](folder / DRAWN, scenes)
    output = {line: run(line, folder) for line in commands_of_the_guide()}
    assert output["python tools/check_dataset.py demo/my_shapes --boxes"] == expected_output(
        "demo/my_shapes/train2017:"
    )
    rows = [
        json.loads(line) for line in (folder / "demo/my_shapes/default/metrics.jsonl").read_text("utf-8").splitlines()
    ]
    best = max(row["bbox_mAP_50"] for row in rows if "bbox_mAP_50" in row)
    assert best > 0.85, rows[-1]
    found = json.loads((folder / "found.json").read_text("utf-8"))["images"]
    truth = json.loads((folder / "demo/my_shapes/annotations/instances_val2017.json").read_text("utf-8"))
    assert len(found) == len(truth["images"]) and {o["name"] for image in found for o in image["objects"]} == set(
        CLASSES
    )
    assert cv2.imread(str(folder / "found.png")).std() > 0
    assert not (folder / DRAWN / "train2017").exists()  # the images stay as they are
