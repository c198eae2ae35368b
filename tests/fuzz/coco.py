"""Damage COCO data sets at random and read them as a run does: python tests/fuzz/coco.py --seconds 300.

A case changes types, values, structure, encoding or files of a small data set. It must be refused in one line, or be
accepted: then a training batch has its shapes and finite values, and random detections have pycocotools' own numbers
for the raw file. The script prints the numbers of cases, and exits with status 1 if one fails.
"""

from __future__ import annotations

import copy
import faulthandler
import functools
import gzip
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from support.fuzzing import fuzz_command  # noqa: E402
from support.random_coco import compare, random_content, write  # noqa: E402

from msg_ms import UserError  # noqa: E402
from msg_ms.boxes.batches import DetectionBatch  # noqa: E402
from msg_ms.config import Config, load_config  # noqa: E402
from msg_ms.data import DetectionTrainDataset, load_coco  # noqa: E402
from msg_ms.data.pipeline import arrays_of  # noqa: E402

HANG = 60  # seconds for one case
LONGEST = 6000  # characters of a message
CLASSES, SIDE, MAX_GT = 3, 64, 4
PARTS = ("train2017", "val2017")
VALUES: list[Any] = [
    *(None, True, False, "", "text", "1", 0, -1, 1, 1.0, 1.5, -0.0, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**40),
    *(1e-300, 1e20, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), [], {}, [1], [[]], [[], []], {"a": 1}),
    *(
        "\0",
        "../x.png",
        "/etc/passwd",
        "a\\b.png",
        "C:\\x.png",
        "./0.png",
        "0.PNG",
        "\u00e9",
        "e\u0301",
        "\u2028",
        "\ud83d",
    ),
    *(
        [0, 0, 0, 0],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [[1, 1, 9, 1, 9, 9]],
        [[1, 1, 9, 9]],
        [[1, 1], [9, 9], [1, 9]],
        10**400,
    ),
    *({"size": [40, 40], "counts": [1600]}, {"size": [40, 40], "counts": "0"}, {"counts": [1]}, "x" * 300, "~~~zz"),
    *([{"x": 1, "y": 1}], [[{"x": 1}]], [1, 1, 9, 1, 9, 9], [[1, 1, 1e9, 1, 9, 9]], [[float("nan")] * 6], [["1"] * 6]),
]
KEYS = (
    *(
        "images",
        "annotations",
        "categories",
        "info",
        "id",
        "image_id",
        "category_id",
        "bbox",
        "area",
        "iscrowd",
        "ignore",
    ),
    *(
        "segmentation",
        "size",
        "counts",
        "file_name",
        "height",
        "width",
        "name",
        "score",
        "caption",
        "keypoints",
        "\u00e9",
    ),
)


def containers(content: Any) -> list[Any]:
    """Return all lists and objects of a JSON value that have entries."""
    found, pending = [], [content]
    while pending:
        value = pending.pop()
        if isinstance(value, list | dict) and value:
            found.append(value)
            pending += value.values() if isinstance(value, dict) else value
    return found


def change(content: Any, rng: np.random.Generator) -> None:
    """Change one place of a JSON value."""
    groups = containers(content)
    if not groups:
        return
    group = groups[rng.integers(len(groups))]
    keys = list(group) if isinstance(group, dict) else list(range(len(group)))
    key, other = keys[rng.integers(len(keys))], keys[rng.integers(len(keys))]
    value, kind = group[key], rng.integers(10)
    if kind < 4:
        group[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind == 4:
        del group[key]
    elif kind == 5:
        group[key], group[other] = group[other], group[key]
    elif kind == 6 and isinstance(value, int | float) and abs(value) < 1e300:
        group[key] = value * float(rng.choice([-1, 0, 0.001, 1.5, 1000])) if rng.random() < 0.7 else str(value)
    elif kind == 7:
        group[key] = [value] if rng.random() < 0.5 or not isinstance(value, list) or not value else value[0]
    elif isinstance(group, list):
        group.insert(int(rng.integers(len(group) + 1)), copy.deepcopy(value))
    else:
        group[KEYS[rng.integers(len(KEYS))]] = copy.deepcopy(value)


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the bytes of a file."""
    at, kind = int(rng.integers(len(data))), rng.integers(10)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([rng.integers(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + int(rng.integers(1, 40)) :]
    if kind == 3:
        return data[:at] + data[at : at + int(rng.integers(1, 40))] + data[at:]
    if kind == 4:
        return b"\xef\xbb\xbf" + data
    if kind == 5:
        encoding = ("utf-16", "utf-32", "utf-16-le")[rng.integers(3)]
        return data.decode("utf-8", "replace").encode(encoding)
    if kind == 6:
        return gzip.compress(data)
    if kind == 7:  # a key twice
        key = b'"%s":' % KEYS[rng.integers(len(KEYS))].encode()
        return data.replace(key, key + b" 1, " + key, 1)
    if kind == 8:
        return data + [b" ", b"\n\n", b"{}", b"\0", b"]", b"\xff"][rng.integers(6)]
    return json.dumps(json.loads(data), indent=int(rng.integers(5))).encode() if is_json(data) else data


def is_json(data: bytes) -> bool:
    """Return whether data is a JSON text."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def change_files(folder: Path, rng: np.random.Generator) -> None:
    """Change a file of a folder of images."""
    file = sorted(folder.iterdir())[0]
    kinds: list[Callable[[], Any]] = [
        file.unlink,
        lambda: file.write_bytes(b""),
        lambda: file.rename(folder / file.name.upper()),
        lambda: (file.unlink(), file.symlink_to("gone")),
        lambda: (file.unlink(), file.symlink_to(file.name)),
        lambda: (file.unlink(), file.mkdir()),
        lambda: ((folder / "more").mkdir(), file.rename(folder / "more" / file.name)),
        lambda: (folder / "more.jpg").write_bytes(b"x"),
        lambda: file.write_bytes(b"no image"),
        lambda: shutil.rmtree(folder),
    ]
    kinds[rng.integers(len(kinds))]()


def write_case(root: Path, rng: np.random.Generator) -> None:
    """Write both parts of a data set, one of them damaged."""
    damaged = PARTS[rng.integers(2)]
    categories = None
    for part in PARTS:
        content = random_content(rng, low=33, classes=CLASSES)
        if categories is not None:  # both parts have the same ones
            ids = {old["id"]: new["id"] for old, new in zip(content["categories"], categories, strict=True)}
            for annotation in content["annotations"]:
                annotation["category_id"] = ids[annotation["category_id"]]
            content["categories"] = categories
        categories = copy.deepcopy(content["categories"])
        write(root, b"", [], part)
        for image in content["images"]:
            pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
            cv2.imwrite(str(root / part / image["file_name"]), pixels)
        if part == damaged:
            for _ in range(rng.integers(0, 4)):
                change(content, rng)
        text = json.dumps(content, ensure_ascii=bool(rng.integers(2)))
        data = text.encode("utf-8", "surrogatepass")
        if part == damaged and rng.random() < 0.25:
            data = damage(data, rng)
        write(root, data, [], part)
        if part == damaged and rng.random() < 0.1:
            change_files(root / part, rng)


def check_batch(data: DetectionTrainDataset) -> str:
    """Return why a training batch can't be used; empty if it can."""
    indices = np.arange(min(2, len(data)))
    batch = data.build_batch(0, 0, indices)
    expected = arrays_of(DetectionBatch.zeros(len(indices), (SIDE, SIDE), *data.sizes))
    for number, (array, zeros) in enumerate(zip(arrays_of(batch), expected, strict=True)):
        if array.shape != zeros.shape or array.dtype != zeros.dtype or not np.isfinite(array.astype(np.float64)).all():
            return f"array {number} has shape {array.shape}, {array.dtype}, or values that are not finite"
    boxes, valid, labels = batch.gt.boxes, batch.gt.valid, batch.gt.labels
    inside = (boxes >= 0).all() and (boxes <= SIDE).all() and (boxes[..., 2:] >= boxes[..., :2])[valid].all()
    return "" if inside and 0 <= labels.min() <= labels.max() < CLASSES else f"boxes {boxes[valid]}, labels {labels}"


@functools.cache
def settings() -> Config:
    """Return the configuration of a small detector."""
    options = {
        **{"DATA.BATCH_SIZE": "1", "DETECTION.CANVASES": f"[[{SIDE}, {SIDE}]]", "DETECTION.MAX_GT": str(MAX_GT)},
        **{"DETECTION.SHORT_SIDES": "[48]", "DETECTION.LONG_SIDE": str(SIDE), "DETECTION.CROP": "0.5"},
        **{"DETECTION.TEST_SHORT_SIDE": str(SIDE), "DETECTION.TEST_LONG_SIDE": str(SIDE), "TASK": "detection"},
    }
    return load_config(None, [word for pair in options.items() for word in pair])


def try_case(root: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Return the outcome of a case, and why it is wrong, if it is."""
    config = settings()
    config = replace(config, data=replace(config.data, data_path=str(root)))
    try:
        train, val = load_coco(config.data, CLASSES, training=True)
        data = DetectionTrainDataset(train, config.data, config.detection, 0, 1, anchors=16, proposals=8, rois=4)
    except UserError as error:
        text = str(error)
        wrong = "the message has several lines" if "\n" in text else "a long message" if len(text) > LONGEST else ""
        return "refused", wrong or ("" if str(root) in text else f"the message names no file: {text}")
    return "accepted", check_batch(data) or compare(val, root, rng)


def run(seed: int, seconds: float, cases: int = 0, keep: Path | None = None) -> tuple[Counter, list[str]]:
    """Try ``cases`` cases, or as many as fit in some seconds; return outcomes and a line for each failure."""
    counts, failures, number, end = Counter(), [], 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while number < cases if cases else time.monotonic() < end:
            root, rng = Path(folder) / str(number), np.random.default_rng((seed, number))
            faulthandler.dump_traceback_later(HANG, exit=True)
            write_case(root, rng)
            try:
                outcome, wrong = try_case(root, rng)
            except Exception:
                outcome, wrong = "traceback", traceback.format_exc()
            faulthandler.cancel_dump_traceback_later()
            counts[outcome] += 1
            if wrong:
                failures.append(f"case {number} of seed {seed}: {wrong}")
                if keep is not None:
                    shutil.copytree(root, keep / f"{seed}_{number}", symlinks=True)
            shutil.rmtree(root)
            number += 1
    return counts, failures


if __name__ == "__main__":
    sys.exit(fuzz_command("Read damaged COCO data sets.", "data sets", run))
