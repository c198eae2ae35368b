"""A PyTorch data loader with mmdetection's transforms and data structures, for benchmarks/coco_data.py.

As in mmdetection, every mask is a bitmap of the image's size from the start, is transformed with the image, and the
batch is padded to its largest image. Anchors are not assigned here: mmdetection does that on the device.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
SHORT, FIRST, LONG = tuple(range(480, 801, 32)), (400, 500, 600), 1333


class Peer(torch.utils.data.Dataset):
    """Training samples of a COCO data set."""

    def __init__(self, annotation_file: str, images_dir: str):
        self.coco, self.images_dir = COCO(annotation_file), images_dir
        self.ids = [i for i in self.coco.getImgIds() if self.coco.imgToAnns[i]]
        self.labels = {category: label for label, category in enumerate(self.coco.getCatIds())}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        info = self.coco.imgs[self.ids[index]]
        image = cv2.imdecode(np.fromfile(f"{self.images_dir}/{info['file_name']}", np.uint8), cv2.IMREAD_COLOR)
        boxes, labels, masks = self.annotations(info)
        if np.random.rand() < 0.5:
            image, masks = np.flip(image, 1), masks[:, :, ::-1]
            boxes = np.stack([info["width"] - boxes[:, 2], boxes[:, 1], info["width"] - boxes[:, 0], boxes[:, 3]], 1)
        if np.random.rand() < 0.5:
            image, boxes, masks = resize(image, boxes, masks, np.random.choice(FIRST))
            image, boxes, masks, labels = crop(image, boxes, masks, labels)
        image, boxes, masks = resize(image, boxes, masks, np.random.choice(SHORT))
        image = image.astype(np.float32)
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        cv2.subtract(image, MEAN.reshape(1, -1), image)
        cv2.multiply(image, 1 / STD.reshape(1, -1), image)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": pixels, "boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels), "masks": masks}

    def annotations(self, info: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = info["height"], info["width"]
        boxes, labels, masks = [], [], []
        for annotation in self.coco.imgToAnns[info["id"]]:
            x, y, w, h = annotation["bbox"]
            boxes.append([x, y, x + w, y + h])
            labels.append(self.labels[annotation["category_id"]])
            runs = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], height, width))
            masks.append(coco_mask.decode(runs))
        return np.array(boxes, np.float32), np.array(labels, np.int64), np.stack(masks)


def resize(image: np.ndarray, boxes: np.ndarray, masks: np.ndarray, short: int):
    height, width = image.shape[:2]
    factor = min(LONG / max(height, width), short / min(height, width))
    size = int(width * factor + 0.5), int(height * factor + 0.5)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    boxes = boxes * np.array([size[0] / width, size[1] / height] * 2, np.float32)
    boxes = np.clip(boxes, 0, np.array(size * 2, np.float32))
    if len(masks):
        masks = np.stack(
            [cv2.resize(np.ascontiguousarray(mask), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
        )
    else:
        masks = np.empty((0, size[1], size[0]), np.uint8)
    return image, boxes, masks


def crop(image: np.ndarray, boxes: np.ndarray, masks: np.ndarray, labels: np.ndarray):
    height, width = image.shape[:2]
    h, w = (np.random.randint(min(side, 384), min(side, 600) + 1) for side in (height, width))
    top, left = np.random.randint(0, height - h + 1), np.random.randint(0, width - w + 1)
    image = image[top : top + h, left : left + w]
    boxes = np.clip(boxes - np.array([left, top] * 2, np.float32), 0, np.array([w, h] * 2, np.float32))
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return image, boxes[kept], masks[kept][:, top : top + h, left : left + w], labels[kept]


def collate(samples: list[dict]) -> tuple:
    sides = [max(-(-sample["image"].shape[1 + axis] // 32) * 32 for sample in samples) for axis in range(2)]
    images = torch.zeros(len(samples), 3, *sides)
    for output, sample in zip(images, samples, strict=True):
        output[:, : sample["image"].shape[1], : sample["image"].shape[2]] = sample["image"]
    return images, *([sample[key] for sample in samples] for key in ("boxes", "labels", "masks"))


def loader(annotation_file: str, images_dir: str, batch: int, workers: int):
    """Return batches of shuffled samples from worker processes."""
    cv2.setNumThreads(1)
    return torch.utils.data.DataLoader(
        Peer(annotation_file, images_dir), batch, shuffle=True, num_workers=workers, collate_fn=collate, drop_last=True
    )
