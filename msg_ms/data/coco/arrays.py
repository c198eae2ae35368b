"""COCO splits as arrays, so that the processes of a machine can share one copy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from .content import starts
from .ground_truth import GroundTruth
from .segmentations import Segmentations


@dataclass(frozen=True)
class Objects:
    """The annotations of one image.

    Attributes:
        boxes: (N, 4), float32, (x1, y1, x2, y2) in pixels.
        labels: Classes, int64 (N,).
        crowd: Which are crowds, bool (N,).
        masks: For each its index in ``CocoSplit.segmentations``.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """The images of one part of a COCO data set and their annotations, N images and A annotations, as arrays.

    Annotations that mmdetection drops are left out, except in ``truth``: those outside the image, without area, less
    than a pixel wide or high, or with ``ignore``.

    Attributes:
        root: The data set's folder.
        images_dir: The folder of the images.
        annotation_file: The JSON file.
        files: Paths of the images below ``images_dir``.
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
        segmentations: The masks; none for a detector without masks.
        truth: All annotations as pycocotools counts them; None for training images, and for files without annotations.
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
    truth: GroundTruth | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, without the file names."""
        arrays = (self.image_ids, self.heights, self.widths, self.offsets, self.boxes, self.labels, self.crowd)
        own = sum(values.nbytes for values in (*arrays, self.masks)) + self.segmentations.nbytes
        return own + (0 if self.truth is None else self.truth.nbytes)

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

    def truth_content(self) -> dict[str, Any]:
        """Return ``truth`` as the content of an annotation file, see ``GroundTruth.to_coco``."""
        assert self.truth is not None  # evaluation needs it
        return self.truth.to_coco(self.segmentations, self.image_ids, self.sizes, self.category_ids, self.class_names)

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


Splits = tuple[CocoSplit | None, CocoSplit]
NAMES = ("train", "val")
_PATHS, _TUPLES = ("root", "images_dir", "annotation_file"), ("files", "category_ids", "class_names", "warnings")
_OWN_PLACE = (*_PATHS, "warnings")  # may differ between machines with the same data


def splits_to_arrays(splits: Splits) -> dict[str, np.ndarray]:
    """Return the training images (which may be None) and the evaluation images as arrays by name."""
    arrays = {}
    for name, split in zip(NAMES, splits, strict=True):
        if split is not None:
            arrays[name] = np.frombuffer(json.dumps(_others(split)).encode(), np.uint8)
            arrays |= {f"{name}.{field}": values for field, values in _arrays(split)}
    return arrays


def splits_from_arrays(arrays: Mapping[str, np.ndarray]) -> Splits:
    """Return the splits of ``splits_to_arrays``; arrays that are mapped into memory stay so."""
    train, val = NAMES
    return _split(train, arrays) if train in arrays else None, _split(val, arrays)


def data_pieces(split: CocoSplit) -> Iterator[bytes]:
    """Yield everything that training and evaluation use, for a checksum: machines may have it in other folders."""
    others = {field: value for field, value in _others(split).items() if field not in _OWN_PLACE}
    yield json.dumps(others).encode()
    for name, values in _arrays(split):
        yield f"{name} {values.shape} {values.dtype}".encode()
        # Like bytes, but not copied.
        yield cast(bytes, np.ascontiguousarray(values).data.cast("B")) if values.size else b""


def _others(split: CocoSplit) -> dict[str, Any]:
    """Return the fields that are no arrays."""
    others: dict[str, Any] = {field: str(getattr(split, field)) for field in _PATHS}
    others |= {field: list(getattr(split, field)) for field in _TUPLES}
    return {**others, "units": split.segmentations.units}


def _arrays(owner: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a split and of its parts with their names."""
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if isinstance(value, np.ndarray):
            yield prefix + field.name, value
        elif dataclasses.is_dataclass(value):
            yield from _arrays(value, f"{field.name}.")


def _split(name: str, arrays: Mapping[str, np.ndarray]) -> CocoSplit:
    others = json.loads(arrays[name].tobytes())
    masks = Segmentations(units=others["units"], **_fields(f"{name}.segmentations", arrays))
    truth = _fields(f"{name}.truth", arrays)
    own: dict[str, Any] = {field: Path(others[field]) for field in _PATHS}
    own |= {field: tuple(others[field]) for field in _TUPLES}
    own |= _fields(name, arrays)
    return CocoSplit(**own, segmentations=masks, truth=GroundTruth(**truth) if truth else None)


def _fields(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with this prefix and one more word, by that word."""
    pairs = ((key.rpartition("."), values) for key, values in arrays.items())
    return {field: values for (owner, _, field), values in pairs if owner == prefix}
