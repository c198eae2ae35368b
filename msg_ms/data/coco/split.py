"""COCO data sets: ``annotations/instances_*.json`` beside folders of images, checked when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...config import DataConfig
from ...errors import UserError, printable, shorten
from ..images.folder import is_directory
from .content import Content, Findings, lookup, starts
from .json_lists import read_lists
from .segmentations import Segmentations

LAYOUT = "--data-path must hold annotations/instances_{train,val}2017.json, train2017/ and val2017/"
MIN_SIDE = 32  # pixels of a training image's short side


@dataclass(frozen=True)
class Objects:
    """The annotations of one image.

    Attributes:
        boxes: (N, 4), float32, (x1, y1, x2, y2) in pixels.
        labels: Classes, int64 (N,).
        crowd: Which are crowds, bool (N,).
        masks: For each its index in ``CocoSplit.segmentations``; crowds have an empty one there.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """The images of one part of a COCO data set and their annotations, N images and A annotations, as arrays.

    Annotations that mmdetection drops are left out: outside the image, without area, or less than a pixel wide or high.

    Attributes:
        root: The data set's folder.
        images_dir: The folder of the images.
        annotation_file: The JSON file.
        files: File names of the images below ``images_dir``.
        image_ids: COCO's ids of the images, int64 (N,).
        heights: int32 (N,).
        widths: int32 (N,).
        category_ids: COCO's id of each class; a label is an index into them.
        class_names: The names of the classes.
        offsets: Where each image's annotations begin, and the end, int64 (N + 1).
        boxes: (A, 4), float32, (x1, y1, x2, y2) in pixels.
        labels: int16 or int32 (A,).
        crowd: bool (A,).
        masks: For each annotation its index in ``segmentations``, int32 (A,).
        segmentations: The masks.
        warnings: Lines on odd values and on ignored ones.
    """

    root: Path
    images_dir: Path
    annotation_file: Path
    files: tuple[str, ...]
    image_ids: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray
    segmentations: Segmentations
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, without the file names."""
        arrays = (self.image_ids, self.heights, self.widths, self.offsets, self.boxes, self.labels, self.crowd)
        return sum(values.nbytes for values in (*arrays, self.masks)) + self.segmentations.nbytes

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.images_dir}/{self.files[index]}"

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of an image, as the JSON file has them."""
        return int(self.heights[index]), int(self.widths[index])

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of all images, int64 (N, 2)."""
        return np.stack([self.heights, self.widths], 1).astype(np.int64)

    def objects(self, index: int) -> Objects:
        """Return the annotations of an image, in the order of the file."""
        part = slice(*self.offsets[index : index + 2].tolist())
        return Objects(self.boxes[part], self.labels[part].astype(np.int64), self.crowd[part], self.masks[part])

    def counts(self) -> np.ndarray:
        """Return the number of annotations of each image that are not crowds, int64 (N,)."""
        totals = np.concatenate([[0], np.cumsum(~self.crowd)])
        return totals[self.offsets[1:]] - totals[self.offsets[:-1]]

    def subset(self, chosen: np.ndarray) -> CocoSplit:
        """Return the part with some images, bool (N,), and all masks."""
        lengths = np.diff(self.offsets)
        annotations = np.repeat(chosen, lengths)
        return replace(
            self,
            files=tuple(np.array(self.files, object)[chosen]),
            image_ids=self.image_ids[chosen],
            heights=self.heights[chosen],
            widths=self.widths[chosen],
            offsets=starts(lengths[chosen]),
            boxes=self.boxes[annotations],
            labels=self.labels[annotations],
            crowd=self.crowd[annotations],
            masks=self.masks[annotations],
        )


def load_coco(config: DataConfig, num_classes: int, training: bool) -> tuple[CocoSplit | None, CocoSplit]:
    """Read and check both parts of the COCO data set below ``DATA.DATA_PATH``.

    Training leaves out images without annotations and images with a side below 32 pixels. As in mmdetection, an image
    with crowds alone stays; all of it is background.

    Args:
        config: The section ``DATA``.
        num_classes: Number of classes of the model.
        training: Whether the training images are needed.

    Returns:
        The training images (None unless ``training``) and the evaluation images.

    Raises:
        UserError: A file or folder is missing or unusable, see ``read_split``, or the classes do not match.
    """
    root = Path(config.data_path)
    if not is_directory(root):
        raise UserError(f"{root} is not a directory; {LAYOUT}")
    train = for_training(read_split(root, "train2017")) if training else None
    val = read_split(root, "val2017")
    for split in (val,) if train is None else (train, val):
        if len(split.class_names) != num_classes:
            raise UserError(
                f"{split.annotation_file} has {len(split.class_names)} categories, but MODEL.NUM_CLASSES="
                f"{num_classes}; pass --opts MODEL.NUM_CLASSES {len(split.class_names)}, or fix the file"
            )
    if train is not None:
        check_same_categories(train, val)
    return train, val


def for_training(split: CocoSplit) -> CocoSplit:
    """Return the images that training uses.

    Raises:
        UserError: None is left.
    """
    small = np.minimum(split.heights, split.widths) < MIN_SIDE
    empty = np.diff(split.offsets) == 0
    chosen = ~(small | empty)
    if not chosen.any():
        raise UserError(
            f"{split.annotation_file}: none of {len(split)} images has annotations and sides of at least {MIN_SIDE} "
            "pixels; training needs some"
        )
    lines = [
        f"{split.annotation_file}: training leaves out {count} of {len(split)} images {reason}"
        for count, reason in (
            (int(empty.sum()), "without annotations"),
            (int((small & ~empty).sum()), f"with a side below {MIN_SIDE} pixels"),
        )
        if count
    ]
    split = replace(split, warnings=(*split.warnings, *lines))
    return split if chosen.all() else split.subset(chosen)


def check_same_categories(train: CocoSplit, val: CocoSplit) -> None:
    """Raise UserError unless both parts have the same categories in the same order."""
    pairs = [list(zip(split.category_ids, split.class_names, strict=True)) for split in (train, val)]
    if pairs[0] != pairs[1]:
        different = [
            f"{i}: {a[0]} {printable(a[1], 40)} and {b[0]} {printable(b[1], 40)}"
            for i, (a, b) in enumerate(zip(*pairs, strict=False))
            if a != b
        ]
        shown = shorten(different) or f"{len(pairs[0])} and {len(pairs[1])} categories"
        raise UserError(
            f"{train.annotation_file} and {val.annotation_file} have different categories ({shown}); labels would not "
            "match"
        )


def read_split(root: Path, name: str) -> CocoSplit:
    """Read one part of a data set.

    Args:
        root: The data set's folder.
        name: The folder of the images, such as ``val2017``; the annotations are ``annotations/instances_<name>.json``.

    Raises:
        UserError: The file can't be read or is not a COCO annotation file; ids appear twice or refer to nothing; a
            value is malformed; or an image is missing. All such problems are in the text, each with its first cases.
    """
    file, folder = root / "annotations" / f"instances_{name}.json", root / name
    for missing, exists in ((file, file.is_file()), (folder, is_directory(folder))):
        if not exists:
            raise UserError(f"{missing} is missing; {LAYOUT}")
    content = Content()
    keys = read_lists(file, content.receivers())
    if lacking := [key for key in content.receivers() if key not in keys]:
        raise UserError(
            f"{file}: the key {', '.join(map(repr, lacking))} is missing; it must be a COCO annotation file such as "
            "instances_val2017.json, not results or captions"
        )
    found = Findings(file)
    content.check(found)
    content.check_files(folder, found)
    found.raise_errors()
    ids, heights, widths = content.image_columns()
    annotations = content.annotation_columns()
    image, _ = lookup(annotations[:, 1], ids)
    label, _ = lookup(annotations[:, 2], np.array(content.category_ids, np.int64))
    kept, boxes = content.usable(heights[image], widths[image], found)
    order = np.flatnonzero(kept)[np.argsort(image[kept], kind="stable")]
    return CocoSplit(
        root,
        folder,
        file,
        tuple(content.files),
        ids.copy(),
        heights.astype(np.int32),
        widths.astype(np.int32),
        tuple(content.category_ids),
        tuple(content.names),
        starts(np.bincount(image[order], minlength=len(ids))),
        boxes[order],
        label[order].astype(np.int16 if len(content.names) < 2**15 else np.int32),
        annotations[order, 3].astype(bool),
        order.astype(np.int32),
        content.segmentations.build(),
        tuple(found.warnings),
    )


def ground_truth_warnings(split: CocoSplit, max_gt: int) -> Sequence[str]:
    """Return a line if images have more objects than training uses (``DETECTION.MAX_GT``)."""
    counts = split.counts()
    many = counts > max_gt
    if not many.any():
        return []
    return [
        f"{split.annotation_file}: {int(many.sum())} of {len(split)} images have more than DETECTION.MAX_GT={max_gt} "
        f"objects, at most {int(counts.max())}; each time, others of them are left out at random "
        f"({int((counts[many] - max_gt).sum())} of {int(counts.sum())} objects)"
    ]
