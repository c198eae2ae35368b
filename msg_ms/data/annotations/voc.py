"""Pascal VOC's layout: one XML file per image, lists of the splits, and boxes as pixels from 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import UserError
from ..images.class_files import composed, read_text
from .image_index import ImageIndex
from .notes import Notes
from .shapes import Labelled, LabelledImage, Shape
from .splits import SPLITS, split_in_path
from .xml_files import BadValue, number_from, parse_xml, text_of

DIFFICULT = ("crowd", "keep", "drop")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LISTS = ("ImageSets", "Main")


@dataclass(frozen=True)
class VocOptions:
    """How values of VOC's files are read.

    Attributes:
        difficult: ``crowd``, ``keep`` or ``drop``: the form of objects that are marked as difficult.
        origin: The number of the first pixel, 0 or 1; None to conclude it from the coordinates.
    """

    difficult: str = DIFFICULT[0]
    origin: int | None = None


@dataclass
class _Object:
    """An object as a file has it, in the file's coordinates."""

    image: LabelledImage
    label: str
    place: str
    corners: list[float]
    polygons: list[list[float]]
    difficult: bool


def read_voc(source: Path, files: list[Path], index: ImageIndex, options: VocOptions, notes: Notes) -> Labelled:
    """Read boxes and polygons in Pascal VOC's form.

    Args:
        source: Folder of the data set.
        files: Its XML files.
        index: The images.
        options: How values are read.
        notes: Receives files and objects that are skipped or changed.

    Raises:
        UserError: No file can be used.
    """
    lists = _split_lists(source)
    images: list[LabelledImage] = []
    objects: list[_Object] = []
    for file in files:
        split = lists.get(file.stem, "") if lists else split_in_path(file.relative_to(source).parts[:-1])
        if lists and not split:
            notes.skip(f"XML files that no list in {'/'.join(_LISTS)} names", file)
            continue
        try:
            root = parse_xml(file)
        except UserError as error:
            notes.skip("XML files that can't be read", error)
            continue
        image = _image(root, file, split, index, notes)
        if image is not None:
            images.append(image)
            objects += _objects(root, image, file, notes)
    if any((folder / "SegmentationObject").is_dir() for folder in (source, *{file.parents[1] for file in files})):
        notes.remark("SegmentationObject/ is not read: the objects have their boxes only")
    _add_shapes(objects, options, notes)
    index.note_unused()
    return Labelled("Pascal VOC", images)


def _split_lists(source: Path) -> dict[str, str]:
    """Return the split of each image by its name without suffix; none without lists."""
    splits: dict[str, str] = {}
    for folder in sorted(source.glob("**/" + "/".join(_LISTS))):
        for split in SPLITS:
            splits |= {name: split for name in _listed(folder / f"{split}.txt") if name not in splits}
        if "train" not in splits.values():
            splits |= {name: "train" for name in _listed(folder / "trainval.txt") if name not in splits}
    return splits


def _listed(path: Path) -> list[str]:
    return [line.split()[0] for line in read_text(path).splitlines() if line.strip()] if path.is_file() else []


def _image(root: Element, file: Path, split: str, index: ImageIndex, notes: Notes) -> LabelledImage | None:
    """Return the image of an XML file: by its name in the file, or with the file's own name."""
    near = [file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images"]
    name = text_of(root, "filename")
    base = name.replace("\\", "/").rpartition("/")[2]
    exists = any(base and (folder / base).is_file() for folder in near)
    found = None if exists else index.find_stem(file.stem, near)  # files are often renamed
    found = found or index.find(name, str(file), near)
    if found is None:
        return None
    size = root.find("size")
    recorded = None
    if size is not None:
        try:
            height, width = (int(number_from(text_of(size, key), key)) for key in ("height", "width"))
        except BadValue:
            height = width = 0
        recorded = (height, width) if height > 0 and width > 0 else None  # some programs write 0
    return index.measure(found, recorded, split, str(file))


def _objects(root: Element, image: LabelledImage, file: Path, notes: Notes) -> Iterator[_Object]:
    for number, element in enumerate(root.findall("object"), 1):
        place = f"{file}, object {number}"
        label = composed(text_of(element, "name"))
        box = element.find("bndbox")
        try:
            if not label:
                raise BadValue("without a name")
            if box is None:
                raise BadValue("without bndbox")
            corners = [number_from(text_of(box, name), name) for name in _CORNERS]
            polygons = [
                [number_from(value.text, "polygon") for value in polygon.iter() if not len(value)]
                for polygon in element.findall("polygon")
            ]
        except BadValue as problem:
            notes.skip(f"objects {problem}", place)
            continue
        if any(len(polygon) % 2 or len(polygon) < 6 for polygon in polygons):
            notes.change("objects with an unusable polygon, whose box is kept", place)
            polygons = []
        difficult = text_of(element, "difficult").lower() in ("1", "true", "yes")
        yield _Object(image, label, place, corners, polygons, difficult)


def _add_shapes(objects: list[_Object], options: VocOptions, notes: Notes) -> None:
    """Give the images their objects, in coordinates from 0."""
    origin = options.origin
    if origin is None:
        firsts = [value for found in objects for value in found.corners[:2]]
        values = [value for found in objects for value in found.corners]
        # A pixel's number is a whole one from 1; other values are edges in coordinates from 0.
        origin = int(min(firsts, default=1) >= 1 and all(value.is_integer() for value in values))
        form = "pixels from 1, the last one included" if origin else "edges from 0, as some are 0 or have decimals"
        notes.remark(f"VOC's boxes are read as {form} (--voc-origin {origin})")
    for found in objects:
        if found.difficult and options.difficult == "drop":
            notes.skip("difficult objects (--difficult drop)", found.place)
            continue
        crowd = found.difficult and options.difficult == "crowd"
        if crowd:
            notes.change("difficult objects that become crowds (--difficult)", found.place)
        x1, y1, x2, y2 = found.corners
        if x2 < x1 or y2 < y1:
            notes.change("boxes whose corners are exchanged", found.place)
            x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        polygons = tuple(tuple(value - origin for value in polygon) for polygon in found.polygons)
        box = None if polygons else (x1 - origin, y1 - origin, x2, y2)
        found.image.shapes.append(Shape(found.label, found.place, box, polygons, crowd=crowd))
