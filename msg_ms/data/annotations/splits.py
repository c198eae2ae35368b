"""Training, validation and test images: the names that exports use, and a seeded choice for those without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...errors import UserError
from .notes import Notes
from .shapes import LabelledImage

SPLITS = ("train", "val", "test")
VAL_SHARE, SEED = 0.2, 0
_NAMES = {
    "train": "train",
    "training": "train",
    "train2017": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val2017": "val",
    "test": "test",
    "testing": "test",
}


def split_name(name: str) -> str:
    """Return ``train``, ``val`` or ``test`` for the names that programs use; empty for others."""
    return _NAMES.get(name.strip().lower(), "")


def split_in_path(parts: Sequence[str]) -> str:
    """Return the split that one of the folders of a path names, the first from the left; empty if none does."""
    return next((split for part in parts if (split := split_name(part))), "")


def assign_splits(images: Sequence[LabelledImage], val_share: float | None, seed: int | None, notes: Notes) -> None:
    """Give every image a split; without validation images, draw some of the training images.

    The same names and seed give the same images in every format.

    Args:
        images: All images, in the order of their names.
        val_share: Share of the training images to draw; None for a fifth. It must be None if the source has its own.
        seed: Seed of the choice; None for 0.
        notes: Receives a remark on the choice.

    Raises:
        UserError: There are no training images, too few to split, or the source has validation images already.
    """
    for image in images:
        image.split = image.split or "train"
    counts = Counter(image.split for image in images)
    if not counts["train"]:
        raise UserError(
            f"there are no training images, but {counts['val']} for validation and {counts['test']} to test"
        )
    if counts["val"]:
        if val_share is not None or seed is not None:
            flag = "--val-share" if val_share is not None else "--seed"
            raise UserError(f"{flag}: the data set has {counts['val']} validation images of its own; leave it out")
        return
    share = VAL_SHARE if val_share is None else val_share
    seed = SEED if seed is None else seed
    training = [image for image in images if image.split == "train"]
    if len(training) < 2:
        raise UserError("one image can't be split into training and validation images; add more")
    count = min(max(1, round(share * len(training))), len(training) - 1)
    for index in np.random.default_rng(seed).permutation(len(training))[:count].tolist():
        training[index].split = "val"
    notes.remark(
        f"no validation images in the source: {count} of {len(training)} were drawn "
        f"(--val-share {share:g} --seed {seed})"
    )
