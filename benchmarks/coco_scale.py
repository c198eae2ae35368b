"""Measure the start of a run on a data set of COCO's size: python benchmarks/coco_scale.py --folder coco_scale.

It writes annotations with COCO's numbers of images, objects and points, and links a few image files many times. Every
measurement is its own process: reading as training does, and as pycocotools does, which keeps all Python objects.
The annotations are drawn, so nothing can be learnt from them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from msg_ms.cli import run_command_line

CLASSES = 80
FILES = 8  # image files that are linked
# Height, width and share of the most frequent sizes of COCO's images, roughly.
SIZES = (
    *((480, 640, 0.27), (427, 640, 0.20), (426, 640, 0.07), (640, 480, 0.11), (640, 427, 0.08), (375, 500, 0.07)),
    *((333, 500, 0.03), (500, 375, 0.03), (360, 640, 0.04), (640, 640, 0.03), (612, 612, 0.01), (640, 426, 0.02)),
    *((500, 333, 0.01), (425, 640, 0.02), (640, 360, 0.01)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory to read annotations of COCO's size.")
    parser.add_argument("--folder", type=Path, required=True, help="where the data set is, or is written")
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--annotations", type=int, default=860_000)
    parser.add_argument("--val-images", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["msg_ms", "pycocotools"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child, args.folder)
        return
    per_image = args.annotations / args.images
    for name, images in (("train2017", args.images), ("val2017", args.val_images)):
        if not (args.folder / "annotations" / f"instances_{name}.json").exists():
            write_split(args.folder, name, images, round(images * per_image))
    results = {"msg_ms": [], "pycocotools": []}
    for _ in range(args.rounds):
        for name, rows in results.items():
            line = [sys.executable, __file__, "--folder", str(args.folder), "--child", name]
            done = subprocess.run(line, capture_output=True, encoding="utf-8", check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    report = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in results.items()
    }
    for name, figures in report.items():
        shown = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in figures.items())
        print(f"{name}: {shown}", file=sys.stderr)
    print(json.dumps({"images": args.images, "annotations": args.annotations, "rounds": args.rounds, **report}))


def measure(reader: str, folder: Path) -> None:
    """Print the seconds and memory of reading the training images and annotations in this process."""
    if reader == "msg_ms":
        import msg_ms.data.coco.split as coco  # imported first: MindSpore's memory is not the reader's
        from msg_ms.config import load_config

        config = load_config(None, DATA__DATA_PATH=str(folder))
        before, begin, cpu = memory(), time.perf_counter(), time.process_time()
        train, _ = coco.load_coco(config.data, CLASSES, training=True)
        figures = {"array_bytes_per_image": train.nbytes / len(train), "images_kept": len(train)}
    else:
        from pycocotools.coco import COCO

        before, begin, cpu = memory(), time.perf_counter(), time.process_time()
        files = [folder / "annotations" / f"instances_{name}.json" for name in ("train2017", "val2017")]
        kept = [COCO(file) for file in files]  # noqa: F841 (both stay in memory, as in a run)
        figures = {}
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"seconds": seconds, "cpu_seconds": cpu, "mb_after": memory() - before, "mb_peak": peak - before, **figures}
        )
    )


def memory() -> float:
    """Return the resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def write_split(folder: Path, name: str, images: int, annotations: int, seed: int = 0) -> None:
    """Write one part of the data set."""
    rng = np.random.default_rng((seed, images))
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(exist_ok=True)
    shares = np.array([share for *_, share in SIZES])
    kinds = rng.choice(len(SIZES), images, p=shares / shares.sum())
    sources = [write_image(folder, kind, number) for kind in range(len(SIZES)) for number in range(FILES // 4)]
    target = folder / "annotations" / f"instances_{name}.json"
    partial = target.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as stream:
        categories = [{"id": i + 1, "name": f"class {i + 1}"} for i in range(CLASSES)]
        stream.write(json.dumps({"info": {"year": 2017}, "categories": categories})[:-1] + ', "images": [')
        for i, kind in enumerate(kinds.tolist()):
            height, width, _ = SIZES[kind]
            file = f"{i:012d}.jpg"
            link = folder / name / file
            if not link.exists():
                os.link(sources[kind * (FILES // 4) + i % (FILES // 4)], link)
            image = {"license": 4, "file_name": file, "height": height, "width": width, "id": 3 * i + 9}
            stream.write((", " if i else "") + json.dumps(image))
        stream.write('], "annotations": [')
        # One in a hundred images has no objects, as in COCO.
        owners = rng.integers(0, images - images // 100, annotations)
        for i, owner in enumerate(owners.tolist()):
            height, width, _ = SIZES[kinds[owner]]
            stream.write((", " if i else "") + json.dumps(annotation(i, owner, height, width, rng)))
        stream.write("]}")
    partial.replace(target)


def annotation(number: int, owner: int, height: int, width: int, rng: np.random.Generator) -> dict:
    """Return an annotation with a polygon of about 25 points around a drawn ellipse."""
    points = max(4, int(rng.lognormal(3.0, 0.6)))
    side = np.minimum(np.exp(rng.uniform(2.3, 6.0, 2)), [width, height])
    corner = rng.uniform(0, 1, 2) * ([width, height] - side)
    angle = np.sort(rng.uniform(0, 2 * np.pi, points))
    ring = corner + side * (1 + np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.7, 1, (points, 1))) / 2
    ring = np.round(ring, 2)
    low, high = ring.min(0), np.maximum(ring.max(0), ring.min(0) + 1.5)
    box = [round(float(value), 2) for value in (*low, *(high - low))]
    return {
        "segmentation": [ring.reshape(-1).tolist()],
        "area": round(box[2] * box[3] * 0.7, 4),
        "iscrowd": 0,
        "image_id": 3 * owner + 9,
        "bbox": box,
        "category_id": int(rng.integers(1, CLASSES + 1)),
        "id": 1000 + number,
    }


def write_image(folder: Path, kind: int, number: int) -> Path:
    """Write an image file with structure on several scales, unless it exists."""
    height, width, _ = SIZES[kind]
    file = folder / f"source_{height}x{width}_{number}.jpg"
    if not file.exists():
        rng = np.random.RandomState(1000 * kind + number)
        pixels = np.zeros((height, width, 3), np.float32)
        for side in (4, 16, 64, 256):
            noise = rng.standard_normal((side, side, 3)).astype(np.float32)
            pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 100 / side**0.5
        image = np.clip(pixels + 118, 0, 255).astype(np.uint8)
        cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return file


if __name__ == "__main__":
    run_command_line(main)
