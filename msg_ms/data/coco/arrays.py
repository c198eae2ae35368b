"""COCO splits as arrays, so that the processes of a machine can share one copy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .segmentations import Segmentations
from .split import CocoSplit

Splits = tuple[CocoSplit | None, CocoSplit]
NAMES = ("train", "val")
_PATHS, _TUPLES = ("root", "images_dir", "annotation_file"), ("files", "category_ids", "class_names", "warnings")
_MASKS = "segmentations"


def splits_to_arrays(splits: Splits) -> dict[str, np.ndarray]:
    """Return the training images (which may be None) and the evaluation images as arrays by name."""
    arrays = {}
    for name, split in zip(NAMES, splits, strict=True):
        if split is None:
            continue
        others = {field: str(getattr(split, field)) for field in _PATHS}
        others |= {field: list(getattr(split, field)) for field in _TUPLES} | {"units": split.segmentations.units}
        arrays[name] = np.frombuffer(json.dumps(others).encode(), np.uint8)
        for owner, prefix in ((split, name), (split.segmentations, f"{name}.{_MASKS}")):
            for field in dataclasses.fields(owner):
                value = getattr(owner, field.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{prefix}.{field.name}"] = value
    return arrays


def splits_from_arrays(arrays: Mapping[str, np.ndarray]) -> Splits:
    """Return the splits of ``splits_to_arrays``; arrays that are mapped into memory stay so."""
    train, val = (_split(name, arrays) if name in arrays else None for name in NAMES)
    return train, val


def _split(name: str, arrays: Mapping[str, np.ndarray]) -> CocoSplit:
    others = json.loads(arrays[name].tobytes())
    masks = Segmentations(units=others["units"], **_fields(f"{name}.{_MASKS}", arrays))
    paths = {field: Path(others[field]) for field in _PATHS}
    tuples = {field: tuple(others[field]) for field in _TUPLES}
    return CocoSplit(**paths, **tuples, **_fields(name, arrays), segmentations=masks)


def _fields(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with this prefix and one more word, by that word."""
    pairs = ((key.rpartition("."), values) for key, values in arrays.items())
    return {field: values for (owner, _, field), values in pairs if owner == prefix}
