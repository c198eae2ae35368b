"""Bad COCO data: each kind ends with one line that names the file, the case and the remedy, or is a warning."""

import gzip
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fuzz import coco as fuzz_coco
from PIL import Image
from support.coco import small_coco, square, write_split

from msg_ms import UserError
from msg_ms.boxes.rle import decode_columns
from msg_ms.config import load_config
from msg_ms.data.coco import json_lists
from msg_ms.data.coco.split import load_coco
from msg_ms.data.detection import read_image
from msg_ms.data.pixels.image_files import BadFiles

SIZES = [(60, 80), (80, 60), (50, 70)]
FILE = "annotations/instances_train2017.json"


def change(content, path, value):
    """Set content[a][b]... = value, or delete it if the value is None."""
    *parents, last = path
    for key in parents:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


def text(root, function):
    file = root / FILE
    file.write_text(function(file.read_text("utf-8")), encoding="utf-8")


def edit(root, *changes):
    content = json.loads((root / FILE).read_text("utf-8"))
    for path, value in changes:
        change(content, path, value)
    (root / FILE).write_text(json.dumps(content), encoding="utf-8")


def append(root, key, *values):
    content = json.loads((root / FILE).read_text("utf-8"))
    content[key] += values
    (root / FILE).write_text(json.dumps(content), encoding="utf-8")


def add_image(root, annotations, height=31):
    append(root, "images", {"id": 1, "file_name": "more.png", "width": 60, "height": height})
    append(root, "annotations", *annotations)
    shutil.copy(root / "train2017/0000.png", root / "train2017/more.png")


def set_value(*path_and_value):
    *path, value = path_and_value
    return lambda root: edit(root, (path, value))


def segmentation(value):
    return set_value("annotations", 1, "segmentation", value)


def every(change):
    """Change all annotations."""

    def damage(root):
        content = json.loads((root / FILE).read_text("utf-8"))
        for annotation in content["annotations"]:
            change(annotation)
        (root / FILE).write_text(json.dumps(content), encoding="utf-8")

    return damage


def name(value, on_disk=None):
    """Give the first image another name in the file, and perhaps on the disk."""

    def damage(root):
        edit(root, (("images", 0, "file_name"), value(root) if callable(value) else value))
        if on_disk is not None:
            (root / "train2017" / on_disk).parent.mkdir(exist_ok=True)
            (root / "train2017/0000.png").rename(root / "train2017" / on_disk)

    return damage


def crowd(value):
    return lambda root: edit(root, (("annotations", 1, "iscrowd"), 1), (("annotations", 1, "segmentation"), value))


def twice_in_an_object(root):
    text(root, lambda t: t.replace('"id": 13', '"id": 5, "id": 13', 1))


def link_to_nothing(root):
    (root / "train2017/0001.png").unlink()
    (root / "train2017/0001.png").symlink_to("gone.png")


def move(*pairs):
    def damage(root):
        for source, target in pairs:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / source).rename(root / target)

    return damage


ROBOFLOW = [("train2017", "train"), (FILE, "train/_annotations.coco.json")]
RING = [[1, 1], [9, 1], [9, 9], [1, 9]]
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9.png") for form in ("NFC", "NFD"))


RUNS = {"size": [60, 80], "counts": [0, 10, 4790]}
# What is done to a valid data set, and parts of the message.
ERRORS = {
    "no annotation file": (lambda root: (root / FILE).unlink(), [FILE, "is missing", "--data-path must hold"]),
    "no image folder": (lambda root: shutil.rmtree(root / "train2017"), ["/train2017 is missing", "must hold"]),
    "no data set": (shutil.rmtree, ["is not a directory", "--data-path must hold annotations/"]),
    "cut file": (lambda root: text(root, lambda t: t[:500]), ["not valid JSON at line 1", "cut off; copy it again"]),
    "damaged file": (
        lambda root: text(root, lambda t: t.replace('"height"', "'height'", 1)),
        ["not valid JSON at line 1, column", "correct it or copy the file again"],
    ),
    "text after the end": (lambda root: text(root, lambda t: t + "{}"), ["expected the end of the file"]),
    "not text": (lambda root: (root / FILE).write_bytes(b'{"images": "\xff\xfe"}'), ["not UTF-8 text"]),
    "deeply nested": (lambda root: text(root, lambda t: '{"info": ' + "[" * 10**5), ["nested too deeply"]),
    "a list of results": (
        lambda root: text(root, lambda t: '[{"image_id": 1, "score": 0.5}]'),
        ["expected an object with images, annotations and categories", "not results or captions"],
    ),
    "no categories key": (set_value("categories", None), ["the key 'categories' is missing", "COCO annotation file"]),
    "a key that is no list": (set_value("images", {"id": 1}), ["images must be a list"]),
    "no categories": (set_value("categories", []), ["no categories: categories is empty"]),
    "no images": (set_value("images", []), ["no images: images is empty"]),
    "a missing image": (
        lambda root: (root / "train2017/0001.png").unlink(),
        ["1 images are not in", "train2017: 0001.png; copy them there or remove them"],
    ),
    "an image outside the folder": (
        set_value("images", 0, "file_name", "../val2017/0000.png"),
        ["not below the folder of the images: ../val2017/0000.png"],
    ),
    "too few classes in the configuration": (
        lambda root: append(root, "categories", {"id": 9, "name": "bird"}),
        ["has 3 categories, but MODEL.NUM_CLASSES=2; pass --opts MODEL.NUM_CLASSES 3"],
    ),
    "other categories than in val": (
        set_value("categories", 0, "name", "lynx"),
        ["different categories (0: 7 lynx and 7 cat); labels would not match"],
    ),
    "an image id twice": (set_value("images", 1, "id", 10), ["image ids that appear twice: 10; ids must be unique"]),
    "a file twice": (set_value("images", 1, "file_name", "0000.png"), ["file names that appear twice: 0000.png"]),
    "an annotation id twice": (set_value("annotations", 3, "id", 1), ["annotation ids that appear twice: 1;"]),
    "a category id twice": (set_value("categories", 1, "id", 7), ["category ids that appear twice: 7"]),
    "a category name twice": (set_value("categories", 1, "name", "cat"), ["categories that appear twice: cat"]),
    "an unknown image": (
        set_value("annotations", 0, "image_id", 99),
        ["annotations of images that are not in the file: annotation 1 (image 99); remove them or add the images"],
    ),
    "an unknown category": (
        set_value("annotations", 0, "category_id", 6),
        ["annotations of categories that are not in the file: annotation 1 (category 6); remove them"],
    ),
    "an image without a size": (
        set_value("images", 2, "width", None),
        ["images whose width is missing: number 3 (id 16); correct these"],
    ),
    "an image of size 0": (
        set_value("images", 2, "height", 0),
        ["images whose height is not above 0: number 3 (id 16)"],
    ),
    "an image that is text": (
        set_value("images", 2, "0002.png"),
        ["images that are text, not an object: number 3; correct"],
    ),
    "an id that is text": (
        set_value("annotations", 1, "id", "2"),
        ['annotations whose id is text, not a whole number: number 2 (id "2"); correct these'],
    ),
    "a number of crowds": (
        set_value("annotations", 1, "iscrowd", 2),
        ["annotations whose iscrowd is neither 0 nor 1: number 2 (id 2)"],
    ),
    "a category without a name": (
        set_value("categories", 1, "name", None),
        ["categories whose name is missing: number 2 (id 5)"],
    ),
    "a box of three numbers": (
        set_value("annotations", 1, "bbox", [1, 2, 3]),
        ["whose bbox has 3 entries, not four: [x, y, width, height]: number 2 (id 2); correct these"],
    ),
    "a box of text": (
        set_value("annotations", 1, "bbox", ["1", 2, 3, 4]),
        ["bbox holds an entry that is text, not a number: number 2 (id 2)"],
    ),
    "a box that is not a number": (
        set_value("annotations", 1, "bbox", [1, 2, float("nan"), 4]),
        ["annotations whose bbox or area is not finite: annotation 2"],
    ),
    "an infinite area": (
        set_value("annotations", 1, "area", float("inf")),
        ["bbox or area is not finite: annotation 2"],
    ),
    "no segmentation": (
        segmentation(None),
        ["whose segmentation is missing: annotation 2; pass --opts MODEL.RCNN.MASKS False to learn boxes alone"],
    ),
    "an empty segmentation": (
        segmentation([]),
        ["annotations whose segmentation is empty: annotation 2; pass --opts MODEL.RCNN.MASKS False"],
    ),
    "an odd polygon": (
        segmentation([[1, 1, 9, 1, 9, 9, 1]]),
        ["whose segmentation has a polygon of 7 numbers, an odd count: annotation 2; correct these or remove"],
    ),
    "a polygon of two points": (segmentation([[1, 1, 9, 9]]), ["has no polygon of three points or more: annotation 2"]),
    "a polygon of text": (
        segmentation([["1", 1, 9, 1, 9, 9]]),
        ["has a polygon that holds text, not numbers: annotation 2"],
    ),
    "a polygon without brackets": (
        segmentation([1, 1, 9, 1, 9, 9]),
        ["is a list of numbers, not of polygons", "annotation 2"],
    ),
    "a polygon with NaN": (
        segmentation([[1, 1, 9, 1, 9, float("nan")]]),
        ["has numbers that are not finite", "annotation 2"],
    ),
    "a polygon far away": (segmentation([[1, 1, 9e99, 1, 9, 9]]), ["or beyond all images: annotation 2"]),
    "run lengths of another image": (
        segmentation({**RUNS, "size": [80, 60]}),
        ["has size [80, 60], its image [60, 80]; height comes first: annotation 2"],
    ),
    "run lengths that are too short": (
        segmentation({**RUNS, "counts": [0, 10, 4780]}),
        ["has run lengths that do not add up to its size 60 x 80: annotation 2"],
    ),
    "damaged compressed run lengths": (
        segmentation({"size": [60, 80], "counts": "0:nope"}),
        ["has run lengths that do not add up"],
    ),
    "run lengths without a size": (segmentation({"counts": [4800]}), ["run lengths without a size [height, width]"]),
    "pairs as polygons": (segmentation([RING]), ["has polygons of points as lists; a polygon is one list [x1, y1"]),
    "points as objects": (
        segmentation([{"x": x, "y": y} for x, y in RING]),
        ["has points as objects; a polygon is one list [x1, y1"],
    ),
    "polygons of objects": (
        segmentation([[{"x": x, "y": y} for x, y in RING]]),
        ["has polygons of points as objects; a polygon is one list"],
    ),
    "an object beside a polygon": (segmentation([[1, 1, 9, 1, 9, 9], {"x": 1}]), ["has points as objects"]),
    "a list of run lengths": (segmentation([RUNS]), ["is a list of run lengths, not one object with size and counts"]),
    "a segmentation that is text": (
        segmentation("[[1, 1]]"),
        ["whose segmentation is text, not a list or run lengths"],
    ),
    "run lengths with parts of pixels": (
        segmentation({**RUNS, "counts": [0, 10.5, 4789.5]}),
        ["has run lengths that hold 10.5, not a whole number: annotation 2"],
    ),
    "run lengths beyond 64 bits": (segmentation({**RUNS, "counts": [0, 10**400]}), ["a number beyond 64 bits"]),
    "run lengths as printed bytes": (segmentation({**RUNS, "counts": "b'0:'"}), ["b'...': decode them before"]),
    "a crowd without a mask": (crowd([]), ["segmentation is empty: annotation 2; pass --opts MODEL.RCNN.MASKS False"]),
    "a crowd with damaged run lengths": (crowd({**RUNS, "counts": "~~~zz"}), ["do not add up to its size 60 x 80"]),
    "a crowd with short run lengths": (crowd({**RUNS, "counts": [10, 10]}), ["do not add up to its size 60 x 80"]),
    "a crowd of swapped size": (crowd({**RUNS, "size": [80, 60]}), ["its image [60, 80]; height comes first"]),
    "no masks at all": (
        every(lambda a: a.update(segmentation=[])),
        ["no annotation has a mask, its segmentation is empty: annotation 1", "pass --opts MODEL.RCNN.MASKS False"],
    ),
    "a key twice": (
        lambda root: text(root, lambda t: t[:-1] + ', "images": []}'),
        ["the key 'images' appears twice in an object, at or after line 1; keep one"],
    ),
    "a key twice in an element": (twice_in_an_object, ["the key 'id' appears twice in an object"]),
    "UTF-16": (
        lambda root: (root / FILE).write_text((root / FILE).read_text("utf-8"), encoding="utf-16"),
        ["not UTF-8 text (it is UTF-16)"],
    ),
    "compressed": (
        lambda root: (root / FILE).write_bytes(gzip.compress((root / FILE).read_bytes())),
        ["not UTF-8 text (it is compressed with gzip)"],
    ),
    "a number of 5,000 digits": (
        lambda root: text(root, lambda t: t.replace('"id": 13', '"id": 1' + "0" * 5000, 1)),
        # Python has a limit since 3.10.7.
        ["a number has too many digits" if hasattr(sys, "set_int_max_str_digits") else "id is beyond 64 bits"],
    ),
    "an id beyond 64 bits": (set_value("images", 2, "id", 2**70), ["images whose id is beyond 64 bits"]),
    "an id with a fraction": (set_value("images", 2, "id", 1.5), ["images whose id is not a whole number"]),
    "a category name that is a number": (set_value("categories", 1, "name", 5), ["whose name is a number, not text"]),
    "half of a character": (set_value("images", 2, "file_name", "\ud83d.png"), ["holds half of a surrogate pair"]),
    "a box with names": (
        set_value("annotations", 1, "bbox", {"x": 1}),
        ["whose bbox is an object of x, y, width, height, not a list [x, y, width, height]"],
    ),
    "more pixels than are decoded": (
        lambda root: edit(root, *((("images", 2, side), 500_000) for side in ("height", "width"))),
        ["images with more than 178,956,970 pixels, which are not decoded: number 3"],
    ),
    "fractions of the image as boxes": (
        every(lambda a: a.update(bbox=[0.1, 0.2, 0.3, 0.4])),
        ["none of 3 images has annotations to train on", "all boxes are from 0 to 1, as fractions of the image"],
    ),
    "areas of 0": (
        every(lambda a: a.update(area=0)),
        ["none of 3 images", "(boxes less than a pixel wide or high, or without area, are left out of training: anno"],
    ),
    "a name with Windows separators": (
        name("images\\0000.png"),
        ["file names that have Windows separators: images\\0000.png; write / for \\, and paths relative to"],
    ),
    "an absolute name": (
        name(lambda root: str(root / "train2017/0000.png")),
        ["file names that are absolute paths or addresses: ", "write paths relative to"],
    ),
    "a drive's name": (name("C:\\x\\0000.png"), ["are absolute paths or addresses: C:\\x\\0000.png"]),
    "an address": (name("https://x.org/0000.png"), ["are absolute paths or addresses: https://x.org/0000.png"]),
    "a name in capitals": (
        name("0000.PNG"),
        ["have other upper or lower case letters than the files: 0000.PNG (the file is 0000.png); correct the names"],
    ),
    "a name with a folder": (name("x/0000.png"), ["have folders that do not exist here: x/0000.png (the file is 0000"]),
    "another suffix": (name("0000.jpg"), ["have another suffix than the files: 0000.jpg (the file is 0000.png)"]),
    "images one folder deeper": (
        lambda root: [move(("train2017", "t"), ("t", "train2017/train2017"))(root)],
        ["file names that are one folder deeper: 0000.png, 0001.png, 0002.png; move the files of"],
    ),
    "one file under two names": (
        set_value("images", 1, "file_name", "./0000.png"),
        ["file names that appear twice: 0000.png; list each image once"],
    ),
    "a folder as an image": (name("sub", "sub/0000.png"), ["file names that are folders or devices, not files: sub"]),
    "a pipe as an image": (
        lambda root: [(root / "train2017/0000.png").unlink(), os.mkfifo(root / "train2017/0000.png")],
        ["file names that are folders or devices, not files: 0000.png"],
    ),
    "a link to a missing file": (
        link_to_nothing,
        ["file names that are links to missing files: 0001.png; remove or re"],
    ),
    "an empty file": (
        lambda root: (root / "train2017/0001.png").write_bytes(b""),
        ["empty files: 0001.png; remove or download them again"],
    ),
    "Roboflow's layout": (
        move(*ROBOFLOW),
        ["this is Roboflow's layout: python tools/import_annotations.py ", "writes a data set with links"],
    ),
    "YOLO's layout": (
        lambda root: [
            (root / FILE).unlink(),
            (root / "labels/train").mkdir(parents=True),
            (root / "data.yaml").touch(),
        ],
        ["this is YOLO's layout: python tools/import_annotations.py "],
    ),
    "Pascal VOC's layout": (
        lambda root: [(root / FILE).unlink(), (root / "annotations/0000.xml").touch()],
        ["this is Pascal VOC's layout: python tools/import_annotations.py "],
    ),
    "a data set one folder deeper": (
        lambda root: [root.rename(root.parent / "x"), root.mkdir(), (root.parent / "x").rename(root / "deep")],
        ["instances_train2017.json is missing; pass --data-path", "/deep;"],
    ),
    "the files of another year": (
        move((FILE, FILE.replace("2017", "2014")), ("train2017", "train2014")),
        ["rename annotations/instances_train2014.json to " + FILE + " and rename train2014/ to train2017/"],
    ),
    "several kinds at once": (
        lambda root: edit(root, (("annotations", 0, "image_id"), 99), (("annotations", 1, "bbox"), [])),
        ["annotation 1 (image 99)", "bbox has 0 entries", "number 2 (id 2)"],
    ),
    "no usable image": (
        lambda root: edit(root, (("annotations",), [])),
        ["none of 3 images has annotations to train on and sides of at least 32 pixels; training needs some"],
    ),
}
WARNINGS = {
    "a file that is not listed": (
        lambda root: shutil.copy(root / "train2017/0000.png", root / "train2017/more.png"),
        "1 files of .*train2017 are not in the file and are ignored: more.png",
    ),
    "a box outside the image": (
        lambda root: append(root, "annotations", square(90, 10, 100, 20)),
        "boxes outside their images are left out of training: annotation 90",
    ),
    "a box partly outside": (
        lambda root: append(root, "annotations", square(90, 10, 70, 20)),
        "boxes that reach more than 1 pixel outside their images are clipped: annotation 90",
    ),
    "a box without area": (
        lambda root: append(root, "annotations", square(90, 10, 20, 20, side=0.5)),
        "boxes less than a pixel wide or high, or without area, are left out of training: annotation 90",
    ),
    "a short polygon beside others": (
        segmentation([[1, 1, 2, 2], [1, 1, 30, 1, 30, 30]]),
        "polygons with fewer than three points are ignored: 1 polygons",
    ),
    "an annotation with ignore": (
        set_value("annotations", 1, "ignore", 1),
        "annotations with 'ignore' are left out of training: annotation 2",
    ),
    "crowds alone": (
        every(lambda a: a.update(iscrowd=1)),
        "all annotations are crowds, so training sees background alone",
    ),
    "an image without annotations": (
        lambda root: add_image(root, [], height=60),
        "training leaves out 1 of 4 images without annotations",
    ),
    "a small image": (
        lambda root: add_image(root, [square(90, 1, 5, 5)]),
        "training leaves out 1 of 4 images with a side below 32 pixels",
    ),
}


# Valid data in another form.
ACCEPTED = {
    "no iscrowd": every(lambda a: a.pop("iscrowd")),
    "iscrowd null": every(lambda a: a.update(iscrowd=None)),
    "iscrowd false": every(lambda a: a.update(iscrowd=False)),
    "no area": every(lambda a: a.pop("area")),
    "ids with .0": every(lambda a: a.update(image_id=float(a["image_id"]), category_id=float(a["category_id"]))),
    "sizes with .0": set_value("images", 0, "height", 60.0),
    "run lengths with .0": segmentation({"size": [60.0, 80], "counts": [0.0, 10.0, 4790]}),
    "a byte order mark": lambda root: (root / FILE).write_bytes(b"\xef\xbb\xbf" + (root / FILE).read_bytes()),
    "no suffix": name("0000", "0000"),
    "another suffix": name("0000.jfif", "0000.jfif"),
    "a hidden file": name(".0000.png", ".0000.png"),
    "a dot before": name("./0000.png"),
    "folders": name("a//b.png", "a/b.png"),
    "decomposed accents on the disk": name(NFC, NFD),
    "decomposed accents in a folder": name("a/" + NFD, "a/" + NFC),
    "a backslash in a name": name("a\\b.png", "a\\b.png"),
    "a name that is not UTF-8": name("\udcff.png", "\udcff.png"),
}


@pytest.fixture
def root(tmp_path):
    for name in ("train2017", "val2017"):
        write_split(tmp_path / "coco", name, *small_coco(SIZES))
    return tmp_path / "coco"


def load(root):
    return load_coco(load_config(None, DATA__DATA_PATH=str(root)).data, 2, training=True)


@pytest.mark.parametrize("kind", ERRORS)
def test_errors(kind, root):
    damage, parts = ERRORS[kind]
    damage(root)
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    assert all(part in message for part in parts), message
    assert str(root) in message


@pytest.mark.parametrize("kind", WARNINGS)
def test_warnings(kind, root):
    damage, line = WARNINGS[kind]
    damage(root)
    train, val = load(root)
    (warning,) = train.warnings
    assert FILE in warning and re.search(line, warning)
    assert not val.warnings and len(train) >= 2


@pytest.mark.parametrize("kind", ACCEPTED)
def test_other_forms_are_the_same_data(kind, root):
    expected, _ = load(root)
    ACCEPTED[kind](root)
    train, _ = load(root)
    assert not train.warnings and len(train) == 3
    assert (train.boxes == expected.boxes).all() and (train.labels == expected.labels).all()
    assert not train.crowd.any() and all(Path(train.path(i)).is_file() for i in range(3))


def test_good_data_has_no_warnings(root):
    train, val = load(root)
    assert not train.warnings and not val.warnings and len(train) == len(val) == 3


def test_any_chunk_size_reads_the_same(root, monkeypatch):
    file = root / FILE
    file.write_text(
        json.dumps(
            {"info": {"n": 1234567, "ü": "\n\u2028"}, **json.loads(file.read_text("utf-8")), "x": 12.5},
            indent=1,
        ),
        encoding="utf-8",
    )
    expected = json.loads(file.read_text("utf-8"))
    for chunk in (1, 2, 7, 1000):
        monkeypatch.setattr(json_lists, "CHUNK", chunk)
        lists = {key: [] for key in ("images", "annotations", "categories")}
        keys = json_lists.read_lists(file, {key: values.append for key, values in lists.items()})
        assert keys == set(expected) and all(values == expected[key] for key, values in lists.items())
    monkeypatch.setattr(json_lists, "CHUNK", 50)
    lines = file.read_text("utf-8").split("\n")
    lines[40] += "?"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=r"line 4[12], column \d+: "):
        json_lists.read_lists(file, {})


def test_run_lengths_of_all_kinds_are_the_same_mask(root):
    from pycocotools import mask as coco_mask

    bitmap = np.zeros((60, 80), np.uint8, "F")
    bitmap[20:40, 10:33] = 1
    bitmap[25:28, 12:20] = 0
    compressed = coco_mask.encode(bitmap)["counts"].decode()
    flat = bitmap.ravel("F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]]))).tolist()
    counts = np.diff([0, *edges]).tolist()
    for value in (compressed, counts):
        segmentation({"size": [60, 80], "counts": value})(root)
        train = load(root)[0]
        encoded = [train.segmentations.encoded(int(mask), 60, 80)["counts"] for mask in train.objects(0).masks[:2]]
        assert (decode_columns(encoded[1], 60, 0, 80) == bitmap).all()
        # The polygons before and after are unchanged.
        assert decode_columns(encoded[0], 60, 0, 80).sum() > 150


@pytest.mark.parametrize("shift, kind", [(0, np.uint16), (-30, np.int32), (0.001, np.float64)])
def test_polygons_are_kept_exactly(root, shift, kind):
    content = json.loads((root / FILE).read_text("utf-8"))
    polygon = [round(value + shift, 3) for value in (1.11, 2.29, 40.57, 2.35, 40.03, 33.33)]
    content["annotations"][1]["segmentation"] = [polygon, [1, 1, 30, 1, 30, 30]]
    (root / FILE).write_text(json.dumps(content), encoding="utf-8")
    segmentations = load(root)[0].segmentations
    assert segmentations.coordinates.dtype == kind
    stored = [ring.tolist() for ring in segmentations.polygons(1)]
    assert stored == [polygon, [1, 1, 30, 1, 30, 30]]


def test_check_dataset_reads_coco(root, command, tmp_path):
    done = command("tools/check_dataset.py", root)
    assert "train2017: 3 images, 6 objects in 2 classes" in done.stdout and "no problems found" in done.stdout
    (root / "val2017/0001.png").write_bytes(b"no image")
    shutil.copy(root / "val2017/0000.png", root / "val2017/0002.png")
    segmentation([])(root)
    done = command("tools/check_dataset.py", root, "--list", "bad.txt", status=1)
    assert "problem: " in done.stdout and "whose segmentation is empty: annotation 2" in done.stdout
    assert "2 files can't be decoded or have the wrong size; they are listed in bad.txt" in done.stdout
    assert "problem: " not in command("tools/check_dataset.py", root, "--boxes", "--list", "bad.txt", status=1).stdout
    damaged, other = (tmp_path / "bad.txt").read_text("utf-8").splitlines()
    assert damaged.startswith(f"{root}/val2017/0001.png\t")
    assert other == (
        f"{root}/val2017/0002.png\t80 x 60 pixels (width x height), but the annotations have 70 x 50: use the original "
        "file, or correct the annotations"
    )
    done = command("tools/check_dataset.py", root, "--val-list", "x", status=2)
    assert "--val-list are for class folders" in done.stderr


def test_check_dataset_recognises_layouts_as_training_does(root, monkeypatch, capsys):
    def check(path):
        monkeypatch.setattr(sys, "argv", ["check_dataset.py", str(path), "--workers", "1"])
        importlib.import_module("check_dataset").main()
        return capsys.readouterr().out

    monkeypatch.syspath_prepend(ROOT / "tools")
    every(lambda a: a.update(iscrowd=1))(root)
    edit(root, (("images", 0, "file_name"), "0000.PNG"))
    assert "0000.PNG (the file is 0000.png); correct the names" in check(root)
    edit(root, (("images", 0, "file_name"), "0000.png"))
    assert "all annotations are crowds, so training sees background alone" in check(root)
    move(*ROBOFLOW)(root)
    assert "problem: " in (shown := check(root)) and "this is Roboflow's layout" in shown
    with pytest.raises(UserError, match=r"coco2 is not a directory; name the folder of the data set"):
        check(f"{root}2")


@pytest.mark.parametrize(
    ("orientation", "reason"),
    [
        (6, "viewers turn it by its EXIF orientation, which is ignored here as in COCO's tools; turn the pixels"),
        (1, "width and height are swapped in one of them"),
    ],
)
def test_turned_images_are_named(orientation, reason, root):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = root / "train2017" / "0000.png"
    Image.open(file).save(file, exif=exif)
    edit(root, (("images", 0, "height"), 80), (("images", 0, "width"), 60))
    bad_files = BadFiles(0)
    assert read_image(load(root)[0], 0, bad_files) is None
    assert bad_files.mismatch.startswith(
        f"{file} is 80 x 60 pixels (width x height), but the annotations have 60 x 80: "
    )
    assert reason in bad_files.mismatch and bad_files.mismatch.endswith("); the boxes would not match")


def test_boxes_as_corners_are_noted(root):
    def corners(annotation):
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]

    every(corners)(root)
    lines = load(root)[0].warnings
    assert any("reach more than 1 pixel outside their images are clipped" in line for line in lines)
    assert lines[-1].endswith("as corners [x1, y1, x2, y2]: COCO's are [x, y, width, height] in pixels")


def test_evaluation_counts_what_training_leaves_out(root):
    file = root / FILE.replace("train", "val")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][0]["ignore"] = 1
    content["annotations"] += [square(90, 10, 100, 20), {**square(91, 10, 1, 1), "area": 0}]
    file.write_text(json.dumps(content), encoding="utf-8")
    val = load(root)[1]
    assert len(val.labels) == 5 and len(val.truth.labels) == 8
    assert [line.rpartition(": ")[0].rpartition(": ")[2] for line in val.warnings] == [
        "boxes less than a pixel wide or high, or without area, count in the AP",
        "boxes outside their images count in the AP",
        "annotations with 'ignore' count in the AP",
    ]


@pytest.mark.slow
def test_names_beyond_ascii_in_a_locale_without_them(root):
    name("\u7ea2.png", "\u7ea2.png")(root)
    code = f"""
import os
from msg_ms.data.coco.split import read_split
split = read_split({Path("coco")!r}, "train2017")
print([os.path.isfile(split.path(i)) for i in range(3)])
"""
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code.replace("PosixPath", "__import__('pathlib').Path")]
    done = subprocess.run(line, env={**os.environ, **variables}, cwd=root.parent, capture_output=True, encoding="utf-8")
    assert done.stdout == "[True, True, True]\n", done.stderr


def test_the_fuzz_script_finds_nothing():
    counts, failures = fuzz_coco.run(seed=5, seconds=3)
    assert not failures and counts["accepted"] and counts["refused"]
