"""YOLO's layout, as Ultralytics documents it: one text file per image, and a YAML file with the classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import yaml

from ...errors import UserError, printable, shorten
from ..images.class_files import composed, read_text
from .image_index import ImageIndex, image_files, plain_path
from .notes import Notes
from .shapes import Labelled, LabelledImage, Shape
from .splits import split_in_path, split_name

CLASS_FILES = ("classes.txt", "obj.names")  # of Label Studio, labelImg and darknet
_YAML = (".yaml", ".yml")
_STEMS = ("data", "dataset")  # of YOLO's own files
_FAR = 0.5  # of the image that coordinates may be outside; beyond, they are not fractions of it


def yolo_file(folder: Path) -> Path | None:
    """Return the file with the classes of a folder in YOLO's layout; None if there is none.

    Raises:
        UserError: There are several YAML files with classes.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _YAML and path.is_file())
    found = [path for path in files if "names" in _read_yaml(path, strict=path.stem in _STEMS)]
    named = [path for path in found if path.stem in _STEMS]
    if len(found) > 1 and len(named) != 1:
        raise UserError(f"{folder} has several YAML files with 'names': {shorten([f.name for f in found])}; name one")
    if found:
        return (named or found)[0]
    return next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)


def read_yolo(source: Path, index: ImageIndex, notes: Notes) -> Labelled:
    """Read boxes and polygons in YOLO's form.

    Args:
        source: The YAML file, or a file with one class per line; then all images below its folder belong to it.
        index: The images below the folder of the file.
        notes: Receives lines and images that are skipped or changed.

    Raises:
        UserError: The file has no usable classes, names no training images, or no image has a label file.
    """
    if source.suffix.lower() in _YAML:
        content = _read_yaml(source)
        names = _class_names(source, content)
        keypoints = _keypoints(source, content)
        files = list(_listed_images(source, content, index, notes))
    else:
        names = [composed(line.strip()) for line in read_text(source).splitlines() if line.strip()]
        keypoints = 0
        files = [(file, split_in_path(file.relative_to(source.parent).parts[:-1])) for file in image_files(index.root)]
    reader = _Lines(names, keypoints, notes)
    images, without, folders = [], [], set()
    for file, split in files:
        label_file = _label_file(file)
        if label_file is None:
            without.append(file)
        else:
            folders.add(label_file.parent)
        image = index.measure(file, split=split)
        if image is not None:
            if label_file is not None:
                image.shapes = list(reader.read(label_file, image))
            images.append(image)
    if len(without) == len(files):
        first = (
            f"; for {files[0][0]} neither {' nor '.join(map(str, _label_files(files[0][0])))} exists" if files else ""
        )
        raise UserError(f"{source}: none of {len(files)} images has a label file{first}")
    if without:
        notes.remark(f"{len(without)} images have no label file: they are background, as in YOLO")
    _note_unused_labels(folders, {path for file, _ in files for path in _label_files(file)}, notes)
    return Labelled("YOLO", images, names)


def _read_yaml(path: Path, strict: bool = True) -> dict:
    """Return the content of a YAML file, all scalars as text: a class may be called "no" or "1.0"."""
    try:
        content = yaml.load(read_text(path), yaml.BaseLoader)
        if isinstance(content, dict):
            return content
        problem = "not a mapping"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = f"not valid YAML{where}: {getattr(error, 'problem', error)}"
    except RecursionError:
        problem = "nested too deeply"
    if strict:
        raise UserError(f"{path}: {problem}; expected the keys names, train and val")
    return {}


def _class_names(path: Path, content: dict) -> list[str]:
    """Return the classes, which are a list or a mapping from numbers."""
    names = content.get("names")
    right = "expected a list such as [cat, dog], or a mapping such as {0: cat, 1: dog}"
    if isinstance(names, dict):
        missing = [str(number) for number in range(len(names)) if str(number) not in names]
        if missing:
            raise UserError(f"{path}: names has {len(names)} classes, but not {shorten(missing)}; {right}")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{path}: names={printable(repr(names), 80)}: {right}")
    count = content.get("nc", str(len(names)))
    if count != str(len(names)):
        raise UserError(f"{path}: nc={printable(str(count), 20)}, but names has {len(names)} classes")
    return [composed(name.strip()) for name in names]


def _keypoints(path: Path, content: dict) -> int:
    """Return how many numbers of keypoints follow each box; 0 without."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(v, str) and v.isdecimal() for v in shape)):
        raise UserError(f"{path}: kpt_shape={printable(repr(shape), 40)}: expected two numbers such as [17, 3]")
    return int(shape[0]) * int(shape[1])


def _listed_images(path: Path, content: dict, index: ImageIndex, notes: Notes) -> Iterator[tuple[Path, str]]:
    """Yield the images of each split; an image in two splits belongs to the first one."""
    seen: dict[Path, str] = {}
    for key in content:
        split = split_name(key)
        if not split or content[key] in (None, ""):
            continue
        entries = content[key] if isinstance(content[key], list) else [content[key]]
        for entry in entries:
            if not isinstance(entry, str):
                raise UserError(f"{path}: {key}={printable(repr(entry), 60)}: expected a folder or a list of images")
            place = _place(path, content.get("path"), entry)
            if place is None and split == "train":
                raise UserError(
                    f"{path}: {key}: {printable(entry, 200)} does not exist; write it relative to {path.parent}"
                )
            if place is None:
                notes.skip("splits whose images do not exist", f"{path.name}: {key}: {entry}")
                continue
            for file in _images_of(place, index):
                if (real := plain_path(file)) in seen:
                    if seen[real] != split:
                        notes.skip(f"images of another split that {split} lists, too", file)
                    continue
                seen[real] = split
                yield real, split
    if "train" not in seen.values():
        raise UserError(f"{path}: there are no training images; the key train names their folder or a list of them")


def _place(path: Path, base: object, entry: str) -> Path | None:
    """Return the folder or list that an entry means, relative to ``path:`` or to the YAML file, as in Ultralytics."""
    bases = [path.parent]
    if isinstance(base, str) and base:
        bases = [path.parent / Path(base).expanduser(), *bases]
    # Roboflow's files have ../train/images for train/images.
    names = [entry, entry.removeprefix("../")]
    return next((folder / name for name in names for folder in bases if (folder / name).exists()), None)


def _images_of(place: Path, index: ImageIndex) -> Iterator[Path]:
    """Yield the images below a folder, or those that a text file lists."""
    if place.is_dir():
        yield from image_files(place)
        return
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if name := line.strip():
            file = place.parent / name
            # Some programs write paths that begin with a folder of their own, such as CVAT's data/.
            found = file if file.is_file() else index.find(name, f"{place}:{number}")
            if found is not None:
                yield found


def _label_files(image: Path) -> list[Path]:
    """Return where the labels of an image may be: the last images/ in its path replaced by labels/, or beside it."""
    beside = image.with_suffix(".txt")
    parts = list(beside.parts)
    if "images" not in parts[:-1]:
        return [beside]
    last = len(parts) - 2 - parts[-2::-1].index("images")
    return [Path(*parts[:last], "labels", *parts[last + 1 :]), beside]


def _label_file(image: Path) -> Path | None:
    return next((path for path in _label_files(image) if path.is_file()), None)


def _note_unused_labels(folders: set[Path], known: set[Path], notes: Notes) -> None:
    for folder in sorted(folders):
        for path in sorted(folder.glob("*.txt")):
            if path not in known and path.name not in CLASS_FILES:
                notes.skip("label files without an image", path)


class _Lines:
    """Reads the lines of label files."""

    def __init__(self, names: list[str], keypoints: int, notes: Notes):
        self.names, self.keypoints, self.notes = names, keypoints, notes

    def read(self, file: Path, image: LabelledImage) -> Iterator[Shape]:
        """Yield the objects of a label file."""
        for number, line in enumerate(read_text(file).splitlines(), 1):
            words = line.split()
            if words:
                place = f"{file}:{number}"
                shape = self._shape(words, image, place)
                if isinstance(shape, Shape):
                    yield shape
                else:
                    self.notes.skip(shape, place)

    def _shape(self, words: list[str], image: LabelledImage, place: str) -> Shape | str:
        """Return the object of a line, or why there is none."""
        try:
            number, *values = map(float, words)
        except ValueError:
            return "lines that hold other words than numbers"
        if not all(map(math.isfinite, (number, *values))):
            return "lines with numbers that are not finite"
        if not number.is_integer() or not 0 <= number < len(self.names):
            return f"lines whose class is not a number from 0 to {len(self.names) - 1}"
        if self.keypoints and len(values) == 4 + self.keypoints:
            values = values[:4]
            self.notes.change("poses whose box alone is kept", place)
        if len(values) < 4:
            return "lines with fewer than five numbers"
        coordinates = values[:4] if len(values) <= 5 else values
        if min(coordinates) < -_FAR or max(coordinates) > 1 + _FAR:
            return "lines whose coordinates are not fractions of the image"
        label = self.names[int(number)]
        if len(values) <= 5:  # a fifth one is a confidence or the number of a track
            x, y, width, height = values[:4]
            if width <= 0 or height <= 0:
                return "boxes without width or height"
            w, h = image.width, image.height
            box = (x - width / 2) * w, (y - height / 2) * h, (x + width / 2) * w, (y + height / 2) * h
            return Shape(label, place, box)
        if len(values) % 2:
            return "polygons with an odd count of coordinates"
        scaled = tuple(value * (image.height if i % 2 else image.width) for i, value in enumerate(values))
        return Shape(label, place, polygons=(scaled,))
