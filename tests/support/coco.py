"""Small COCO data sets on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .detection import FIXTURES, FOLDER


def reference_images() -> Path:
    """Return the folder of the images of the vectors ``pipeline``."""
    own = FOLDER / "images"
    return own if own.is_dir() else FIXTURES.parent / "images"


def write_split(root: Path, name: str, content: Any, images: dict[str, Any]) -> Path:
    """Write a part of a data set, with bytes or arrays as images; return its JSON file."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / name).mkdir(exist_ok=True)
    for file, image in images.items():
        target = root / name / file
        target.parent.mkdir(exist_ok=True)
        if isinstance(image, np.ndarray):
            image = cv2.imencode(target.suffix, image)[1].tobytes()
        target.write_bytes(image)
    file = root / "annotations" / f"instances_{name}.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def square(number: int, image: int, x: float, y: float, side: float = 20, category: int = 7) -> dict[str, Any]:
    """Return an annotation whose mask is a triangle in a square box."""
    polygon = [round(value, 2) for value in (x, y, x + side, y, x, y + side)]
    box = {"bbox": [x, y, side, side], "area": side * side / 2}
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "segmentation": [polygon], **box}


def small_coco(sizes: list[tuple[int, int]], objects: int = 2, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON content and the images of sizes (height, width), with two categories and noise as pixels."""
    rng = np.random.default_rng(seed)
    images, annotations, pixels = [], [], {}
    for i, (height, width) in enumerate(sizes):
        images.append({"id": 10 + 3 * i, "file_name": f"{i:04d}.png", "height": height, "width": width})
        pixels[f"{i:04d}.png"] = rng.integers(0, 256, (height, width, 3), np.uint8)
        for _ in range(objects):
            x, y = rng.uniform(0, width - 21), rng.uniform(0, height - 21)
            number = len(annotations) + 1
            annotations.append(square(number, 10 + 3 * i, round(x, 2), round(y, 2), category=int(rng.choice([7, 5]))))
    categories = [{"id": 7, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}, pixels
