"""The ground truth of evaluation images, as pycocotools counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .segmentations import Segmentations


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """All A annotations of the evaluation images, in the order of the file.

    Unlike the annotations for training, these include crowds, annotations with ``ignore`` (which pycocotools counts),
    and boxes outside their images or without area.

    Attributes:
        images: Index of each annotation's image, int32 (A,).
        labels: int32 (A,).
        crowd: bool (A,).
        boxes: float64 (A, 4), (x, y, width, height) as in the file.
        areas: float64 (A,); NaN for the area of the mask.
    """

    images: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(values.nbytes for values in (self.images, self.labels, self.crowd, self.boxes, self.areas))

    def objects(self, classes: int) -> np.ndarray:
        """Return the number of objects of each class that are not crowds, int64 (classes,)."""
        return np.bincount(self.labels[~self.crowd], minlength=classes)

    def to_coco(
        self,
        segmentations: Segmentations,
        image_ids: np.ndarray,
        sizes: np.ndarray,
        category_ids: tuple[int, ...],
        class_names: tuple[str, ...],
    ) -> dict[str, Any]:
        """Return the content of an annotation file for pycocotools, with ids from 1: it counts no match with id 0.

        Args:
            segmentations: The masks, one for each annotation, or none at all.
            image_ids: COCO's ids of the N images, (N,).
            sizes: Heights and widths of the images, (N, 2).
            category_ids: COCO's ids of the classes.
            class_names: Names of the classes.
        """
        ids, sizes = image_ids.tolist(), sizes.tolist()
        annotations = []
        columns = (self.images, self.labels, self.crowd, self.boxes, self.areas)
        for row, (image, label, crowd, box, area) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            annotation = {"id": row + 1, "image_id": ids[image], "category_id": category_ids[label], "bbox": box}
            if len(segmentations):
                annotation["segmentation"] = mask = segmentations.encoded(row, *sizes[image])
                area = float(coco_mask.area(mask)) if area != area else area
            annotations.append({**annotation, "area": area, "iscrowd": int(crowd)})
        return {
            "info": {},  # pycocotools 2.0.9 and 2.0.10 need one
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in zip(ids, sizes, strict=True)],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in zip(category_ids, class_names, strict=True)],
        }
