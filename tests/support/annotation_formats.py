"""One set of drawn scenes in the formats of annotation programs, written as their documentation describes them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from conftest import ROOT

CLASSES = ("circle", "square", "triangle")
COLOURS = ((60, 60, 220), (60, 200, 60), (220, 120, 40))


@dataclass
class Drawn:
    """An object: its class, box (x1, y1, x2, y2) in whole pixels, and outline [(x, y), ...]."""

    label: str
    box: tuple[int, int, int, int]
    outline: list[tuple[float, float]]


@dataclass
class Scene:
    name: str
    pixels: np.ndarray
    objects: list[Drawn] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[:2]


def draw_scenes(count: int, seed: int = 0, sides: tuple[int, int] = (96, 128)) -> list[Scene]:
    """Return scenes of circles, squares and triangles that do not touch; the fourth one is background."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        height, width = rng.integers(sides[0], sides[1] + 1, 2).tolist()
        pixels = rng.integers(200, 256, (height, width, 3)).astype(np.uint8)
        scene = Scene(f"{number:04d}.png", pixels)
        taken = np.zeros((height, width), bool)
        for _ in range(0 if number == 3 else int(rng.integers(2, 5))):
            side = int(rng.integers(20, 41))
            x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
            if not taken[y : y + side, x : x + side].any():
                taken[y : y + side, x : x + side] = True
                scene.objects.append(_draw(pixels, int(rng.integers(3)), x, y, side))
        scenes.append(scene)
    return scenes


def _draw(pixels: np.ndarray, label: int, x: int, y: int, side: int) -> Drawn:
    x2, y2, colour = x + side, y + side, COLOURS[label]
    if label == 0:
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        outline = [(x + side / 2 * (1 + np.cos(a)), y + side / 2 * (1 + np.sin(a))) for a in angles]
    elif label == 1:
        outline = [(x, y), (x2, y), (x2, y2), (x, y2)]
    else:
        outline = [(x + side / 2, y), (x2, y2), (x, y2)]
    cv2.fillPoly(pixels, [np.array(outline).round().astype(np.int32)], colour)
    return Drawn(CLASSES[label], (x, y, x2, y2), [(round(a, 2), round(b, 2)) for a, b in outline])


def write_images(folder: Path, scenes: list[Scene]) -> None:
    folder.mkdir(parents=True)
    for scene in scenes:
        (folder / scene.name).write_bytes(cv2.imencode(".png", scene.pixels)[1].tobytes())


def write_yolo(root: Path, scenes: list[Scene], outlines: bool = False) -> Path:
    """docs.ultralytics.com/datasets/detect and /segment: "class x_center y_center width height", "class x1 y1 ..."."""
    write_images(root / "images", scenes)
    (root / "labels").mkdir()
    for scene in scenes:
        height, width = scene.size
        lines = []
        for drawn in scene.objects:
            x1, y1, x2, y2 = drawn.box
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            if outlines:
                values = [value for x, y in drawn.outline for value in (x / width, y / height)]
            lines.append(" ".join([str(CLASSES.index(drawn.label)), *(f"{value:.6f}" for value in values)]))
        (root / "labels" / scene.name).with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images\nval:\nnames:\n{names}", "utf-8")
    return root


def write_voc(root: Path, scenes: list[Scene]) -> Path:
    """The development kit's "Annotation of the image": pixels from 1, the last one included."""
    write_images(root / "JPEGImages", scenes)
    (root / "Annotations").mkdir()
    for scene in scenes:
        top = ET.Element("annotation")
        for tag, text in (("folder", "VOC2012"), ("filename", scene.name)):
            ET.SubElement(top, tag).text = text
        size = ET.SubElement(top, "size")
        for tag, value in (("width", scene.size[1]), ("height", scene.size[0]), ("depth", 3)):
            ET.SubElement(size, tag).text = str(value)
        ET.SubElement(top, "segmented").text = "0"
        for drawn in scene.objects:
            item = ET.SubElement(top, "object")
            for tag, text in (("name", drawn.label), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
                ET.SubElement(item, tag).text = text
            box = ET.SubElement(item, "bndbox")
            x1, y1, x2, y2 = drawn.box
            for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
                ET.SubElement(box, tag).text = str(value)
        ET.ElementTree(top).write((root / "Annotations" / scene.name).with_suffix(".xml"))
    return root


def write_label_studio(root: Path, scenes: list[Scene], outlines: bool = False) -> Path:
    """labelstud.io/guide/export: "Raw JSON format of completed labeled tasks", in percent of the original size."""
    write_images(root / "images", scenes)
    tasks = []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.size
        results = []
        for i, drawn in enumerate(scene.objects):
            x1, y1, x2, y2 = drawn.box
            value = {"x": x1 * 100 / width, "y": y1 * 100 / height, "rotation": 0}
            value |= {"width": (x2 - x1) * 100 / width, "height": (y2 - y1) * 100 / height}
            if outlines:
                value = {"points": [[x * 100 / width, y * 100 / height] for x, y in drawn.outline], "closed": True}
            kind = "polygonlabels" if outlines else "rectanglelabels"
            results.append(
                {
                    "id": f"r{i}",
                    "type": kind,
                    "value": value | {kind: [drawn.label]},
                    "to_name": "image",
                    "from_name": "label",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                }
            )
        annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": results}
        data = {"image": f"/data/upload/1/{number:08x}-{scene.name}"}
        tasks.append({"id": number, "annotations": [annotation], "predictions": [], "data": data})
    (root / "project-1.json").write_text(json.dumps(tasks), "utf-8")
    return root


def write_cvat(root: Path, scenes: list[Scene], outlines: bool = False) -> Path:
    """docs.cvat.ai: XML annotation format, "Annotation for images", version 1.1."""
    write_images(root / "images", scenes)
    top = ET.Element("annotations")
    ET.SubElement(top, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(top, "meta"), "task")
    labels = ET.SubElement(task, "labels")
    for name in CLASSES:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    for number, scene in enumerate(scenes):
        height, width = scene.size
        image = ET.SubElement(top, "image", id=str(number), name=scene.name, width=str(width), height=str(height))
        for drawn in scene.objects:
            common = {"label": drawn.label, "source": "manual", "occluded": "0", "z_order": "0"}
            if outlines:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in drawn.outline)
                ET.SubElement(image, "polygon", **common, points=points)
            else:
                corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map("{:.2f}".format, drawn.box), strict=True))
                ET.SubElement(image, "box", **common, **corners)
    ET.ElementTree(top).write(root / "annotations.xml", encoding="utf-8", xml_declaration=True)
    return root


def write_roboflow(root: Path, scenes: list[Scene], outlines: bool = False) -> Path:
    """Roboflow's COCO JSON: beside the images of each split, with a category 0 for the group of all classes."""
    write_images(root / "train", scenes)
    categories = [{"id": 0, "name": "shapes", "supercategory": "none"}]
    categories += [{"id": i, "name": name, "supercategory": "shapes"} for i, name in enumerate(CLASSES, 1)]
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        height, width = scene.size
        images.append({"id": number, "license": 1, "file_name": scene.name, "height": height, "width": width})
        for drawn in scene.objects:
            x1, y1, x2, y2 = drawn.box
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": CLASSES.index(drawn.label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "segmentation": [[v for point in drawn.outline for v in point]] if outlines else [],
                    "iscrowd": 0,
                }
            )
    content = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content), "utf-8")
    return root


WRITERS = {
    "yolo": write_yolo,
    "voc": write_voc,
    "label-studio": write_label_studio,
    "cvat": write_cvat,
    "roboflow": write_roboflow,
}


def import_annotations(*arguments):
    """Run the tool in this process; return its output and the notes in it."""
    spec = importlib.util.spec_from_file_location("import_annotations", ROOT / "tools" / "import_annotations.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    before, sys.argv = sys.argv, ["import_annotations.py", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            tool.main()
    finally:
        sys.argv = before
    return output.getvalue()
