"""COCO data sets: ``annotations/instances_*.json`` beside folders of images, checked when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...config import DataConfig
from ...errors import UserError, printable, shorten
from ..images.entries import is_directory
from .arrays import CocoSplit
from .content import LARGEST, Content, lookup, starts
from .findings import Findings
from .json_lists import NOT_ANNOTATIONS, read_lists
from .layouts import LAYOUT, other_layout

MIN_SIDE = 32  # pixels of a training image's short side
TRAIN, VAL = "train2017", "val2017"


def load_coco(
    config: DataConfig, num_classes: int, training: bool, masks: bool = True
) -> tuple[CocoSplit | None, CocoSplit]:
    """Read and check both parts of the COCO data set below ``DATA.DATA_PATH``.

    Training leaves out images without annotations and images with a side below 32 pixels. As in mmdetection, an image
    with crowds alone stays; all of it is background.

    Args:
        config: The section ``DATA``.
        num_classes: Number of classes of the model.
        training: Whether the training images are needed.
        masks: Whether masks are needed.

    Returns:
        The training images (None unless ``training``) and the evaluation images.

    Raises:
        UserError: A file or folder is missing or unusable, see ``read_split``, or the classes do not match.
    """
    root = Path(config.data_path)
    if not is_directory(root):
        raise UserError(f"{root} is not a directory; {LAYOUT}")
    train = for_training(read_split(root, TRAIN, masks=masks)) if training else None
    val = read_split(root, VAL, annotated=training, masks=masks)
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
        reasons = [line.removeprefix(f"{split.annotation_file}: ") for line in split.warnings]
        raise UserError(
            f"{split.annotation_file}: none of {len(split)} images has annotations to train on and sides of at least "
            f"{MIN_SIDE} pixels" + (f" ({'; '.join(reasons)})" if reasons else "") + "; training needs some"
        )
    lines = [
        f"{split.annotation_file}: training leaves out {count} of {len(split)} images {reason}"
        for count, reason in (
            (int(empty.sum()), "without annotations"),
            (int((small & ~empty).sum()), f"with a side below {MIN_SIDE} pixels"),
        )
        if count
    ]
    if split.crowd.all():
        lines.append(f"{split.annotation_file}: all annotations are crowds, so training sees background alone")
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


def read_split(root: Path, name: str, annotated: bool = True, masks: bool = True) -> CocoSplit:
    """Read one part of a data set.

    Args:
        root: The data set's folder.
        name: The folder of the images, such as ``val2017``; the annotations are ``annotations/instances_<name>.json``.
            ``train2017`` is for training; others have a ``truth``.
        annotated: Whether the file must have annotations; those of COCO's test images have none.
        masks: Whether annotations must have masks; if not, none is read.

    Raises:
        UserError: The file can't be read or is not a COCO annotation file; ids appear twice or refer to nothing; a
            value is malformed; or an image is missing. All such problems are in the text, each with its first cases.
    """
    file, folder = root / "annotations" / f"instances_{name}.json", root / name
    for missing, exists in ((file, file.is_file()), (folder, is_directory(folder))):
        if not exists:
            raise UserError(f"{missing} is missing; {other_layout(root, name) or LAYOUT}")
    content, found = Content(masks), Findings(file)
    keys = read_lists(file, content.receivers())
    required = [key for key in content.receivers() if annotated or key != "annotations"]
    lacking = [key for key in required if key not in keys]
    if lacking == ["annotations"]:
        raise UserError(f"{file}: the key 'annotations' is missing, as in files of COCO's test images")
    if lacking:
        raise UserError(f"{file}: the key {', '.join(map(repr, lacking))} is missing; {NOT_ANNOTATIONS}")
    content.check(found)
    content.match_files(folder, found)
    found.raise_errors()
    return _split(root, folder, content, found, training=name == TRAIN, annotated="annotations" in keys)


def _split(root: Path, folder: Path, content: Content, found: Findings, training: bool, annotated: bool) -> CocoSplit:
    """Return checked content as arrays."""
    ids, heights, widths = content.image_columns()
    annotations = content.annotation_columns()
    image, _ = lookup(annotations[:, 1], ids)
    label, _ = lookup(annotations[:, 2], np.array(content.category_ids, np.int64))
    kept = content.usable(heights[image], widths[image], found, training)
    order = np.flatnonzero(kept)[np.argsort(image[kept], kind="stable")]
    x, y, width, height, _ = content.box_columns()[order].T
    boxes = np.clip(np.stack([x, y, x + width, y + height], 1), -LARGEST, LARGEST).astype(np.float32)
    truth = content.ground_truth(image, label) if annotated and not training else None
    if truth is not None:
        _warn_of_undefined(truth.objects(len(content.names)), content.names, found)
    return CocoSplit(
        root,
        folder,
        found.file,
        tuple(content.files),
        ids.copy(),
        heights.astype(np.int32),
        widths.astype(np.int32),
        tuple(content.category_ids),
        tuple(content.names),
        starts(np.bincount(image[order], minlength=len(ids))),
        boxes,
        label[order].astype(np.int16 if len(content.names) < 2**15 else np.int32),
        annotations[order, 3].astype(bool),
        order.astype(np.int32),
        content.segmentations.build(),
        truth,
        tuple(found.warnings),
    )


def _warn_of_undefined(objects: np.ndarray, names: Sequence[str], found: Findings) -> None:
    """Note the classes without ground truth, whose AP is undefined."""
    without = [name for name, count in zip(names, objects.tolist(), strict=True) if not count]
    if len(without) == len(names):
        found.warn("the AP is undefined", ["there are no objects, or crowds alone"])
    else:
        found.warn("categories without objects, which the AP leaves out", without)


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
