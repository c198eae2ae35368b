"""The details of each format that people meet: what is converted, and what is skipped, counted and named."""

import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from support.annotation_formats import (
    draw_scenes,
    import_annotations,
    write_cvat,
    write_label_studio,
    write_roboflow,
    write_voc,
    write_yolo,
)
from test_import_annotations import content

from msg_ms import UserError
from msg_ms.data.annotations.brush import decode_brush
from msg_ms.data.annotations.coco_writer import write_data_set
from msg_ms.data.annotations.formats import find_export, read_export
from msg_ms.data.annotations.notes import Notes
from msg_ms.data.annotations.shapes import box_polygon
from msg_ms.data.annotations.voc import VocOptions

SCENES = draw_scenes(3)
HEIGHT, WIDTH = SCENES[0].size


def read(source, **options):
    """Return the shapes of the first image, and everything that was noted."""
    export = find_export(source)
    notes = Notes(export.root)
    labelled = read_export(export, options.pop("images", None), VocOptions(**options), notes)
    first = next((image.shapes for image in labelled.images if image.file.name == SCENES[0].name), None)
    return first, "\n".join(notes.lines())


# YOLO


def test_lines_of_every_kind(tmp_path):
    write_yolo(tmp_path, SCENES)
    (tmp_path / "labels" / "0000.txt").write_text(
        "1 0.5 0.5 0.5 0.25\n"
        "\n"
        "0 0.5 0.5 0.2 0.2 0.93\n"  # with a confidence
        "2 0.1 0.1 0.9 0.1 0.5 0.9\n"  # a triangle
        "1.0 0.02 0.5 0.1 0.1\n"  # reaches outside at the left
        "3 0.5 0.5 0.1 0.1\n"
        "-1 0.5 0.5 0.1 0.1\n"
        "0 0.5 0.5 0.1\n"
        "0 50 60 20 20\n"
        "0 0.5 0.5 0 0.1\n"
        "0 0.5 0.5 nan 0.1\n"
        "0 x y w h\n"
        "0 0.1 0.1 0.9 0.1 0.5 0.9 0.3\n",
        "utf-8",
    )
    shapes, notes = read(tmp_path)
    w, h = WIDTH, HEIGHT
    assert [shape.label for shape in shapes] == ["square", "circle", "triangle", "square"]
    assert shapes[0].box == pytest.approx((0.25 * w, 0.375 * h, 0.75 * w, 0.625 * h))
    assert shapes[2].polygons == (pytest.approx((0.1 * w, 0.1 * h, 0.9 * w, 0.1 * h, 0.5 * w, 0.9 * h)),)
    assert shapes[3].box == pytest.approx((-0.03 * w, 0.45 * h, 0.07 * w, 0.55 * h))
    for kind, lines in (
        ("2: lines whose class is not a number from 0 to 2", "6 7"),
        ("1: lines with fewer than five numbers", "8"),
        ("1: lines whose coordinates are not fractions of the image", "9"),
        ("1: boxes without width or height", "10"),
        ("1: lines with numbers that are not finite", "11"),
        ("1: lines that hold other words than numbers", "12"),
        ("1: polygons with an odd count of coordinates", "13"),
    ):
        places = ", ".join(f"labels/0000.txt:{line}" for line in lines.split())
        assert f"skipped {kind}: {places}" in notes.splitlines()
    import_annotations(tmp_path, tmp_path / "out", "--val-share", 0.1)
    image = next(i for i in content(tmp_path / "out")["images"] if i["file_name"] == "0000.png")
    own = [a for a in content(tmp_path / "out")["annotations"] if a["image_id"] == image["id"]]
    assert own[3]["bbox"] == [0, round(0.45 * h, 2), round(0.07 * w, 2), pytest.approx(0.1 * h, abs=0.02)]


def test_background_missing_and_repeated_label_files(tmp_path):
    write_yolo(tmp_path, SCENES)
    line = (tmp_path / "labels" / "0000.txt").read_text("utf-8").splitlines()[0]
    (tmp_path / "labels" / "0000.txt").write_text(f"{line}\n{line}\n", "utf-8")
    (tmp_path / "labels" / "0001.txt").write_text("", "utf-8")
    (tmp_path / "labels" / "0002.txt").unlink()
    (tmp_path / "labels" / "other.txt").write_text(line, "utf-8")
    output = import_annotations(tmp_path, tmp_path / "out")
    assert "1 images have no label file: they are background" in output
    assert "skipped 1: objects that an image has twice" in output
    assert "skipped 1: label files without an image: labels/other.txt" in output
    assert sum(len(content(tmp_path / "out", name)["images"]) for name in ("train", "val")) == 3
    assert sum(len(content(tmp_path / "out", name)["annotations"]) for name in ("train", "val")) == 1


def test_lists_of_images_and_names_that_yaml_reads_as_values(tmp_path):
    write_yolo(tmp_path, SCENES)
    (tmp_path / "train.txt").write_text("./images/0000.png\ndata/images/0001.png\nimages/gone.png\n", "utf-8")
    (tmp_path / "val.txt").write_text("images/0002.png\n./images/0000.png\n", "utf-8")
    (tmp_path / "data.yaml").write_text("train: [train.txt]\nval: val.txt\nnames: {0: no, 1: 1.0, 2: null}\n", "utf-8")
    notes = Notes()
    labelled = read_export(find_export(tmp_path / "data.yaml"), None, VocOptions(), notes)
    assert labelled.names == ["no", "1.0", "null"]
    assert {image.file.name: image.split for image in labelled.images} == {
        "0000.png": "train",
        "0001.png": "train",
        "0002.png": "val",
    }
    assert notes.skipped["images that are not found"][1] == [f"{tmp_path}/train.txt:3: images/gone.png"]
    assert notes.skipped["images of another split that val lists, too"][0] == 1


def test_classes_txt_and_poses(tmp_path):
    write_yolo(tmp_path, SCENES)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("circle\nsquare\ntriangle\n", "utf-8")
    assert len(read(tmp_path)[0]) == len(SCENES[0].objects)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a, b, c]\nkpt_shape: [2, 3]\n", "utf-8")
    (tmp_path / "labels" / "0000.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 1\n", "utf-8")
    shapes, notes = read(tmp_path / "data.yaml")
    assert shapes[0].box == pytest.approx((0.25 * WIDTH, 0.25 * HEIGHT, 0.75 * WIDTH, 0.75 * HEIGHT))
    assert "changed 1: poses whose box alone is kept" in notes


# Pascal VOC


def edit(path, *changes):
    text = path.read_text("utf-8")
    for before, after in changes:
        assert re.search(before, text), before
        text = re.sub(before, after, text, count=1)
    path.write_text(text, encoding="utf-8")


def test_voc_counts_pixels_from_1_unless_a_0_or_decimals_show_edges(tmp_path):
    write_voc(tmp_path, SCENES)
    file = tmp_path / "Annotations" / "0000.xml"
    x1, y1, x2, y2 = SCENES[0].objects[0].box
    shapes, notes = read(tmp_path)
    assert shapes[0].box == (x1, y1, x2, y2) and "pixels from 1, the last one included (--voc-origin 1)" in notes
    for value in ("0", f"{x1}.5"):
        edit(file, (r"<xmin>[\d.]+<", f"<xmin>{value}<"))
        shapes, notes = read(tmp_path)
        assert shapes[0].box == (float(value), y1 + 1, x2, y2) and "(--voc-origin 0)" in notes
    assert read(tmp_path, origin=1)[0][0].box == (x1 - 0.5, y1, x2, y2)


def test_difficult_objects(tmp_path):
    write_voc(tmp_path, SCENES)
    edit(tmp_path / "Annotations" / "0000.xml", ("<difficult>0<", "<difficult>1<"))
    count = len(SCENES[0].objects)
    for choice, kept, crowds in (("crowd", count, 1), ("keep", count, 0), ("drop", count - 1, 0)):
        shapes, notes = read(tmp_path, difficult=choice)
        assert len(shapes) == kept and sum(shape.crowd for shape in shapes) == crowds
        assert ("difficult objects" in notes) == (choice != "keep")
    import_annotations(tmp_path, tmp_path / "out")
    both = [a for name in ("train", "val") for a in content(tmp_path / "out", name)["annotations"]]
    assert sum(a["iscrowd"] for a in both) == 1


def test_voc_lists_renamed_images_and_bad_files(tmp_path):
    write_voc(tmp_path, SCENES)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0000\n", "utf-8")
    (lists / "val.txt").write_text("0001\n", "utf-8")
    (lists / "circle_train.txt").write_text("0002  1\n", "utf-8")
    edit(tmp_path / "Annotations" / "0000.xml", ("0000.png", "IMG_1.JPG"), (r"<xmin>\d+<", "<xmin>left<"))
    shapes, notes = read(tmp_path)
    assert len(shapes) == len(SCENES[0].objects) - 1
    assert "objects whose xmin is not a number: Annotations/0000.xml, object 1" in notes
    assert "XML files that no list in ImageSets/Main names: Annotations/0002.xml" in notes
    edit(tmp_path / "Annotations" / "0000.xml", (r"<width>\d+<", "<width>11<"))
    (tmp_path / "Annotations" / "0001.xml").write_text("<annotation><object>", "utf-8")
    (lists / "trainval.txt").write_text("0002\n", "utf-8")
    (lists / "train.txt").write_text("0000\n0002\n", "utf-8")
    _, notes = read(tmp_path)
    assert f"({WIDTH} x {HEIGHT}, annotated 11 x {HEIGHT})" in notes and "not valid XML" in notes


def test_roboflow_voc_beside_the_images(tmp_path):
    for part, scenes in (("train", SCENES[:2]), ("valid", SCENES[2:])):
        write_voc(tmp_path / part, scenes)
        for path in [*(tmp_path / part).glob("*/*")]:
            path.rename(tmp_path / part / path.name)
    output = import_annotations(tmp_path, tmp_path / "out")
    assert "train2017: 2 images" in output and "val2017: 1 images" in output and "skipped" not in output


# Label Studio


def task(source, change):
    file = source / "project-1.json"
    tasks = json.loads(file.read_text("utf-8"))
    change(tasks[0])
    file.write_text(json.dumps(tasks), "utf-8")


def results(task):
    return task["annotations"][0]["result"]


def test_label_studio_turned_boxes(tmp_path):
    """A rectangle turns around its upper left corner: the corners are those of OpenCV's rotation matrix."""
    write_label_studio(tmp_path, SCENES)
    task(tmp_path, lambda t: results(t)[0]["value"].update(rotation=30))
    shapes, notes = read(tmp_path)
    x1, y1, x2, y2 = SCENES[0].objects[0].box
    matrix = cv2.getRotationMatrix2D((x1, y1), -30, 1)  # OpenCV's angles are counter-clockwise
    corners = cv2.transform(np.array([[(x1, y1), (x2, y1), (x2, y2), (x1, y2)]], float), matrix)
    assert shapes[0].polygons[0] == pytest.approx(corners.ravel(), abs=1e-9)
    assert "changed 1: turned boxes" in notes


def pack_bits(mask):
    """Return a brush of Label Studio: every row of RGBA values as one run of values or of a repeated value."""
    values = np.repeat(np.where(mask, 255, 0).astype(np.uint8).ravel(), 4)
    bits = f"{len(values):032b}" + f"{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    place = 0
    while place < len(values):
        end = place + 1
        while end < len(values) and values[end] == values[place] and end - place < 2**16:
            end += 1
        if end - place >= 12:
            bits += "1" + "11" + f"{end - place - 1:016b}" + f"{values[place]:08b}"
        else:
            end = min(place + 8, len(values))
            bits += "0" + "00" + f"{end - place - 1:03b}" + "".join(f"{value:08b}" for value in values[place:end])
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_label_studio_brushes(tmp_path):
    write_label_studio(tmp_path, SCENES)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 7:19] = mask[20:23, 40:41] = True
    packed = pack_bits(mask)
    assert np.array_equal(decode_brush(packed, HEIGHT, WIDTH), mask)
    for wrong in (packed[:-2], packed[:3], [300], [], ["a"], packed[:4] + [255] * 20):
        with pytest.raises(ValueError):
            decode_brush(wrong, HEIGHT, WIDTH)

    def brush(t):
        value = {"format": "rle", "rle": packed, "brushlabels": ["circle"]}
        results(t)[0] = results(t)[0] | {"type": "brushlabels", "value": value}
        results(t)[1] = results(t)[0] | {"id": "other", "value": value | {"rle": packed[:-4]}}

    task(tmp_path, brush)
    shapes, notes = read(tmp_path)
    assert np.array_equal(coco_mask.decode(shapes[0].mask), mask)
    assert "skipped 1: regions whose brush can't be decoded (the values end early)" in notes
    import_annotations(tmp_path, tmp_path / "out")
    own = next(a for n in ("train", "val") for a in content(tmp_path / "out", n)["annotations"] if "segmentation" in a)
    assert own["bbox"] == [7, 10, 34, 20] and own["area"] == mask.sum()


def test_label_studio_tasks_and_regions_of_every_kind(tmp_path):
    write_label_studio(tmp_path, SCENES)

    def change(t):
        region = results(t)[0]
        value = {key: v for key, v in region["value"].items() if key != "rectanglelabels"}
        t["annotations"][0]["result"] = [
            region | {"id": "a", "type": "rectangle", "value": value},  # <Rectangle> and <Labels> apart
            region | {"id": "a", "type": "labels", "value": value | {"labels": ["square"]}},
            region | {"id": "b", "value": value},
            region | {"id": "c", "image_rotation": 90},
            region | {"id": "d", "original_width": 7},
            region | {"id": "e", "value": {"x": 1, "y": 1, "width": 2, "keypointlabels": ["circle"]}},
            region | {"id": "f", "value": region["value"] | {"x": None}},
            {"id": "g", "type": "choices", "value": {"choices": ["good"]}},
        ]
        other = {"result": [], "was_cancelled": False, "updated_at": "2030-01-01"}
        t["annotations"][0]["ground_truth"] = True
        t["annotations"] += [other, {"was_cancelled": True, "result": [region]}]

    task(tmp_path, change)
    tasks = json.loads((tmp_path / "project-1.json").read_text("utf-8"))
    tasks[1] |= {"annotations": [], "predictions": [{"result": []}]}
    tasks[2]["data"]["image"] = "s3://bucket/else/gone.png"
    (tmp_path / "project-1.json").write_text(json.dumps(tasks), "utf-8")
    shapes, notes = read(tmp_path)
    assert [(shape.label, shape.box) for shape in shapes] == [("square", pytest.approx(SCENES[0].objects[0].box))]
    for line in (
        "1: regions without a class",
        "1: regions of images that were turned in Label Studio",
        "1: regions of images of another size than in the export",
        "1: regions that are neither rectangles, polygons nor brushes",
        "1: regions whose x is missing",
        "1: further annotations of a task: the ground truth counts, or the newest one",
        "1: tasks that nobody has annotated (predictions are not read)",
        "1: images that are not found",
        "2: images without annotations",
    ):
        assert f"skipped {line}: " in notes


def test_label_studio_json_min_and_local_files(tmp_path):
    write_label_studio(tmp_path, SCENES)
    tasks = json.loads((tmp_path / "project-1.json").read_text("utf-8"))
    short = [
        {
            "id": t["id"],
            "annotation_id": t["id"],
            "image": f"/data/local-files/?d=some/images/{scene.name}",
            "label": [r["value"] | {key: r[key] for key in ("original_width", "original_height")} for r in results(t)],
        }
        for t, scene in zip(tasks, SCENES, strict=True)
    ]
    import_annotations(tmp_path / "project-1.json", tmp_path / "whole")
    (tmp_path / "short.json").write_text(json.dumps(short), "utf-8")
    import_annotations(tmp_path / "short.json", tmp_path / "short", "--images", tmp_path / "images")
    assert content(tmp_path / "short") == content(tmp_path / "whole")


def test_links_of_an_earlier_import_are_the_same_images(tmp_path):
    write_label_studio(tmp_path, SCENES)
    outputs = [import_annotations(tmp_path, tmp_path / name) for name in ("first", "second")]
    assert "skipped" not in outputs[1] and content(tmp_path / "first") == content(tmp_path / "second")


# CVAT


def test_cvat_turned_boxes_masks_and_other_shapes(tmp_path):
    write_cvat(tmp_path, SCENES)
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:8] = mask[5, 0] = True
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()  # background first, the rest is background
    more = (
        f'<mask label="circle" left="11" top="20" width="9" height="6" rle="{", ".join(map(str, runs))}"/>'
        '<mask label="circle" left="90" top="20" width="900" height="6" rle="1, 2"/>'
        '<mask label="circle" left="1" top="2" width="3" height="2" rle="7, 7"/>'
        '<polyline label="circle" points="1,2;3,4"/><ellipse label="square" cx="5" cy="5" rx="2" ry="2"/>'
        '<polygon label="square" points="1,2;3"/><polygon label="square" points="1,2;3,4"/><box xtl="1"/>'
        '<tag label="circle"/></image>'
    )
    edit(tmp_path / "annotations.xml", (r"<box (.*?)/>", r'<box \1 rotation="40.0"/>'), ("</image>", more))
    shapes, notes = read(tmp_path)
    x1, y1, x2, y2 = SCENES[0].objects[0].box
    corners = cv2.boxPoints((((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), 40))
    points = np.array(shapes[0].polygons[0]).reshape(-1, 2)
    assert np.allclose(sorted(points.tolist()), sorted(corners.tolist()), atol=1e-3)
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[20:26, 11:20] = mask
    assert np.array_equal(coco_mask.decode(next(s.mask for s in shapes if s.mask)), whole)
    for line in (
        "1: shapes whose mask reaches outside its image",
        "1: shapes whose rle does not add up to width x height",
        "1: shapes of the kind polyline, which are neither boxes, polygons nor masks",
        "1: shapes of the kind ellipse, which are neither boxes, polygons nor masks",
        "1: shapes whose points are not pairs x,y",
        "1: shapes without a label",
    ):
        assert f"skipped {line}: " in notes
    output = import_annotations(tmp_path, tmp_path / "out")
    assert "skipped 1: polygons with fewer than three points" in output


def test_cvat_subsets_and_videos(tmp_path):
    write_cvat(tmp_path, SCENES)
    edit(
        tmp_path / "annotations.xml",
        ('name="0000.png"', 'name="0000.png" subset="Train"'),
        ('name="0001.png"', 'name="0001.png" subset="Validation"'),
        ('name="0002.png"', 'name="0002.png" subset="other"'),
    )
    output = import_annotations(tmp_path, tmp_path / "out")
    assert "1 images of the subset 'other' have no split" in output
    assert [image["file_name"] for image in content(tmp_path / "out", "val")["images"]] == ["0001.png"]
    edit(tmp_path / "annotations.xml", ("<image ", "<track></track><image "))
    with pytest.raises(UserError, match="CVAT for video; export the task as CVAT for images"):
        read(tmp_path)


# COCO files


def test_coco_annotations_that_can_not_be_used(tmp_path):
    write_roboflow(tmp_path, SCENES, True)
    file = tmp_path / "train" / "_annotations.coco.json"
    data = json.loads(file.read_text("utf-8"))
    first = data["annotations"][0]
    encoded = coco_mask.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH), np.uint8)))
    runs = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    data["annotations"] += [
        first | {"id": 91, "category_id": 9},
        first | {"id": 92, "image_id": 9},
        first | {"id": 93, "bbox": [1, 2]},
        first | {"id": 94, "bbox": [1, 2, 10, 10], "segmentation": [[1, 2]]},
        first | {"id": 95, "bbox": [0, 0, WIDTH, HEIGHT], "segmentation": runs, "iscrowd": 1},
        first | {"id": 96, "bbox": [-50, -50, 20, 20], "segmentation": []},
    ]
    file.write_text(json.dumps(data), "utf-8")
    shapes, notes = read(tmp_path)
    assert shapes[-2].mask == runs and shapes[-2].crowd
    for line in (
        "skipped 1: annotations of categories that are not in the file: ",
        "skipped 1: annotations of images that are not in the file: ",
        "skipped 1: annotations whose bbox has 2 entries, not four",
        "changed 1: annotations whose segmentation has no polygon of three points or more; the box is kept: ",
    ):
        assert line in notes
    output = import_annotations(tmp_path, tmp_path / "out")
    assert "skipped 1: objects without area in their image: " in output and "(id 96)" in output


def test_a_used_category_0_is_a_class(tmp_path):
    write_roboflow(tmp_path, SCENES)
    file = tmp_path / "train" / "_annotations.coco.json"
    data = json.loads(file.read_text("utf-8"))
    data["annotations"][0]["category_id"] = 0
    file.write_text(json.dumps(data), "utf-8")
    assert read(tmp_path)[0][0].label == "shapes"


def test_a_data_set_of_this_project_gets_masks_from_its_boxes(tmp_path):
    write_voc(tmp_path / "voc", SCENES)
    import_annotations(tmp_path / "voc", tmp_path / "boxes")
    for link in (tmp_path / "boxes" / "val2017").iterdir():  # the same name in both folders
        (tmp_path / "boxes" / "train2017" / link.name).write_bytes(b"another image")
    output = import_annotations(tmp_path / "boxes", tmp_path / "masks", "--box-masks")
    assert "skipped 1: images without annotations" in output
    for name in ("train", "val"):
        before, after = content(tmp_path / "boxes", name), content(tmp_path / "masks", name)
        for annotation in before["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        assert after == before


# Images


def test_images_that_viewers_turn_are_left_out(tmp_path):
    write_yolo(tmp_path, SCENES)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "images" / "0000.png") as image:
        image.save(tmp_path / "images" / "0000.png", exif=exif)
    (tmp_path / "images" / "0001.png").write_bytes(b"no image")
    shapes, notes = read(tmp_path)
    assert shapes is None
    assert "images that viewers turn by their EXIF orientation, which training ignores; turn the pixels" in notes
    assert "skipped 1: images that can't be read: images/0001.png (not an image)" in notes


def test_box_polygon_without_a_turn():
    assert box_polygon((1, 2, 5, 8)) == (1, 2, 5, 2, 5, 8, 1, 8)


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    labelled = read_export(find_export(write_yolo(tmp_path / "yolo", SCENES)), None, VocOptions(), Notes())
    for image in labelled.images:
        image.split = "train"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.symlink_to", fail)
    with pytest.raises(UserError, match=r"can't write .*out: No space left on device"):
        write_data_set(tmp_path / "out", labelled.images, labelled.names, Notes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yolo"]
