"""Layouts of other programs, recognised to explain how to get to COCO's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from ...errors import shorten
from ..images.folder import IMAGE_SUFFIXES

LAYOUT = "--data-path must hold annotations/instances_{train,val}2017.json, train2017/ and val2017/"
_MOST = 200  # entries of a folder that are looked at
_ROBOFLOW = "_annotations.coco.json"
_PARTS = {"train2017": ("train",), "val2017": ("valid", "val", "test")}


def has_coco_files(root: Path) -> bool:
    """Return whether a folder holds annotations of objects, in COCO's layout or in another one."""
    others = (_roboflow, _deeper, _yolo, _voc)
    return (root / "annotations").is_dir() or any(find(root, name) for find in others for name in _PARTS)


def other_layout(root: Path, name: str) -> str:
    """Return the layout that a folder has instead of COCO's, with the way there; empty if it is not known.

    Args:
        root: The data set's folder.
        name: The part that is missing, such as ``val2017``.
    """
    for find in (_roboflow, _deeper, _other_names, _yolo, _voc):
        if hint := find(root, name):
            return f"{hint}; {LAYOUT}"
    return ""


def _roboflow(root: Path, name: str) -> str:
    for part in _PARTS.get(name, ()):
        if (root / part / _ROBOFLOW).is_file():
            return f"this is Roboflow's layout: {_import_from(root)}"
    return ""


def _deeper(root: Path, name: str) -> str:
    """Recognise a layout one folder deeper, as after unpacking."""
    file = f"annotations/instances_{name}.json"
    for folder in _folders(root):
        if (folder / file).is_file():
            if folder.name == "annotations":
                return f"move the files of {folder}/annotations/ to {folder}/"
            return f"pass --data-path {folder}"
    if (root / name / name).is_dir():
        return f"move the images of {root / name / name}/ to {root / name}/"
    return ""


def _other_names(root: Path, name: str) -> str:
    """Recognise annotation files and folders of images with other names."""
    part = name.removesuffix("2017")
    wanted = f"annotations/instances_{name}.json"
    lines = []
    if not (root / wanted).is_file():
        files = [path for path in _entries(root / "annotations") if path.suffix == ".json"]
        files += [path for path in _entries(root) if path.suffix == ".json"]
        similar = [str(path.relative_to(root)) for path in files if part in path.name]
        if similar:
            lines.append(f"rename {shorten(similar, 2)} to {wanted}")
    if not (root / name).is_dir():
        candidates = [folder for folder in (*_folders(root), *_folders(root / "images")) if part in folder.name]
        similar = [str(folder.relative_to(root)) for folder in candidates if _has_files(folder, *IMAGE_SUFFIXES)]
        if similar and (lines or (root / wanted).is_file()):
            lines.append(f"rename {shorten([f'{folder}/' for folder in similar], 2)} to {name}/")
    return " and ".join(lines)


def _yolo(root: Path, name: str) -> str:
    folders = [root / "labels", *(root / part / "labels" for part in ("train", "valid", "val"))]
    if any(folder.is_dir() for folder in folders) and (
        _has_files(root, ".yaml", ".yml") or any(_has_files(f, ".txt") for f in (*folders, *_folders(root / "labels")))
    ):
        return f"this is YOLO's layout: {_import_from(root)}"
    return ""


def _voc(root: Path, name: str) -> str:
    if _has_files(root / "Annotations", ".xml") or _has_files(root / "annotations", ".xml"):
        return f"this is Pascal VOC's layout: {_import_from(root)}"
    return ""


def _import_from(root: Path) -> str:
    return f"python tools/import_annotations.py {root} <new folder> writes a data set with links to the images"


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(itertools.islice(folder.iterdir(), _MOST))
    except OSError:
        return


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _has_files(folder: Path, *suffixes: str) -> bool:
    return any(path.name.lower().endswith(suffixes) for path in _entries(folder))
