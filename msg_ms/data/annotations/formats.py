"""The formats of annotations, recognised by the files of an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, shorten
from ..images.entries import is_directory
from .coco_files import ROBOFLOW, read_coco_files
from .cvat import read_cvat
from .image_index import ImageIndex
from .json_files import read_json
from .label_studio import is_label_studio, read_label_studio
from .notes import Notes
from .shapes import Labelled
from .voc import VocOptions, read_voc
from .xml_files import root_tag
from .yolo import read_yolo, yolo_file

FORMATS = {
    "yolo": "data.yaml or classes.txt, and labels/*.txt",
    "voc": "*.xml files with the element annotation",
    "label-studio": "a JSON file with a list of tasks",
    "cvat": "an XML file with the element annotations",
    "coco": f"{ROBOFLOW}, or annotations/*.json",
}


@dataclass(frozen=True)
class Export:
    """An export of an annotation program.

    Attributes:
        format: A key of ``FORMATS``.
        root: Its folder.
        files: The files with annotations; of YOLO the file with the classes.
    """

    format: str
    root: Path
    files: tuple[Path, ...]


def find_export(source: Path, wanted: str | None = None) -> Export:
    """Return the format and files of an export.

    Args:
        source: A folder, or a file with annotations or classes.
        wanted: A key of ``FORMATS``; None to conclude it from the files.

    Raises:
        UserError: There are no such files, or those of several formats.
    """
    if not source.exists():
        raise UserError(f"no such file or folder: {source}")
    found = list(_exports(source) if is_directory(source) else _file_export(source))
    fitting = [export for export in found if wanted in (None, export.format)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        formats = [export.format for export in fitting]
        raise UserError(f"{source} has files of several formats ({', '.join(formats)}); choose one with --format")
    known = "; ".join(f"{name}: {files}" for name, files in FORMATS.items() if wanted in (None, name))
    other = f", but of {found[0].format}" if found else ""
    raise UserError(
        f"{source} has no files of {f'the format {wanted}' if wanted else 'a known format'}{other} ({known})"
    )


def read_export(export: Export, images: Path | None, options: VocOptions, notes: Notes) -> Labelled:
    """Read an export with its images.

    Args:
        export: See ``find_export``.
        images: Folder of the images; None for the export's.
        options: How values of VOC's files are read.
        notes: Receives all that is skipped or changed.

    Raises:
        UserError: A file can't be read, or no image can be used.
    """
    index = ImageIndex(images or export.root, notes)
    files = list(export.files)
    if export.format == "yolo":
        labelled = read_yolo(files[0], index, notes)
    elif export.format == "voc":
        labelled = read_voc(export.root, files, index, options, notes)
    elif export.format == "label-studio":
        labelled = read_label_studio(files[0], index, notes)
    elif export.format == "cvat":
        labelled = read_cvat(files, index, notes)
    else:
        labelled = read_coco_files(export.root, files, index, notes)
    if not labelled.images:
        reasons = notes.reasons()
        raise UserError(f"{export.root}: no image can be used{f'; {reasons}' if reasons else ''}")
    labelled.images.sort(key=lambda image: image.file.as_posix())
    return labelled


def _exports(folder: Path) -> Iterator[Export]:
    """Yield an export for each format whose files a folder has."""
    if (classes := yolo_file(folder)) is not None:
        yield Export("yolo", folder, (classes,))
    json_files = [path for path in _files(folder, ".json") if path.name != "notes.json"]
    tasks = [path for path in json_files if is_label_studio(read_json(path))]
    if len(tasks) > 1:
        raise UserError(f"{folder} has several files with tasks: {shorten([f.name for f in tasks])}; name one")
    if tasks:
        yield Export("label-studio", folder, tuple(tasks))
    coco = [path for path in (folder, *_folders(folder)) if (path / ROBOFLOW).is_file()]
    files = [path / ROBOFLOW for path in coco] or _files(folder / "annotations", ".json")
    files = files or [path for path in json_files if path not in tasks and isinstance(read_json(path), dict)]
    if files:
        yield Export("coco", folder, tuple(files))
    tags = {path: root_tag(path) for path in sorted(folder.rglob("*.xml"))}
    for name, tag in (("cvat", "annotations"), ("voc", "annotation")):
        if own := tuple(path for path in tags if tags[path] == tag):
            yield Export(name, folder, own)


def _file_export(file: Path) -> Iterator[Export]:
    """Yield the export that a file is a part of."""
    suffix, folder = file.suffix.lower(), file.parent
    if suffix in (".yaml", ".yml", ".txt", ".names"):
        yield Export("yolo", folder, (file,))
    elif suffix == ".json":
        tasks = is_label_studio(read_json(file))
        yield Export("label-studio" if tasks else "coco", folder, (file,))
    elif root_tag(file) == "annotations":
        yield Export("cvat", folder, (file,))
    elif root_tag(file) == "annotation":
        raise UserError(f"{file} is one file of Pascal VOC; name the folder of all of them")


def _files(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == suffix and path.is_file())


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
