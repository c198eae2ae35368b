"""One set of scenes in five formats gives the same COCO files, which the project's reader and pycocotools accept."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from pycocotools.coco import COCO
from support.annotation_formats import CLASSES, WRITERS, draw_scenes, import_annotations, write_voc, write_yolo

from msg_ms import UserError
from msg_ms.data.coco.split import TRAIN, VAL, read_split

SCENES = draw_scenes(10)
FILES = [f"annotations/instances_{name}2017.json" for name in ("train", "val")]


def content(folder, name="train"):
    return json.loads((folder / f"annotations/instances_{name}2017.json").read_text("utf-8"))


def truth(scenes):
    """Return the boxes (x, y, width, height) of scenes by file name and class."""
    return {
        scene.name: sorted(
            (drawn.label, [drawn.box[0], drawn.box[1], drawn.box[2] - drawn.box[0], drawn.box[3] - drawn.box[1]])
            for drawn in scene.objects
        )
        for scene in scenes
    }


def boxes(folder):
    """Return the same of a written data set, by pycocotools."""
    found = {}
    for file in FILES:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(folder / file))
        for number, image in coco.imgs.items():
            own = coco.loadAnns(coco.getAnnIds(number))
            found[image["file_name"]] = sorted((coco.cats[a["category_id"]]["name"], a["bbox"]) for a in own)
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    return {name: write(root / name, SCENES) for name, write in WRITERS.items()}


def test_five_formats_give_the_same_files(sources, tmp_path):
    written = {}
    for name, source in sources.items():
        before = sorted((str(path), path.stat().st_mtime_ns) for path in source.rglob("*"))
        output = import_annotations(source, tmp_path / name)
        assert "skipped" not in output and "train2017: 8 images" in output and "val2017: 2 images" in output
        written[name] = [(tmp_path / name / file).read_bytes() for file in FILES]
        assert sorted((str(path), path.stat().st_mtime_ns) for path in source.rglob("*")) == before
    assert all(files == written["yolo"] for files in written.values())
    assert boxes(tmp_path / "yolo") == truth(SCENES)
    train = content(tmp_path / "yolo")
    assert [category["name"] for category in train["categories"]] == list(CLASSES)
    assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and "segmentation" not in a for a in train["annotations"])


def test_outlines_of_four_formats_give_the_same_files(tmp_path):
    written = []
    for name, write in WRITERS.items():
        if name != "voc":
            import_annotations(write(tmp_path / name, SCENES, True), tmp_path / f"{name}_coco")
            written.append([(tmp_path / f"{name}_coco" / file).read_bytes() for file in FILES])
    assert len(written) == 4 and all(files == written[0] for files in written)
    assert boxes(tmp_path / "yolo_coco") == truth(SCENES)
    split = read_split(tmp_path / "yolo_coco", VAL)
    scenes = {scene.name: scene for scene in SCENES}
    for i, file in enumerate(split.files):
        outlines = sorted([value for point in drawn.outline for value in point] for drawn in scenes[file].objects)
        objects = split.objects(i)
        assert sorted(split.segmentations.polygons(mask)[0].tolist() for mask in objects.masks) == outlines


def test_the_reader_and_check_dataset_accept_the_result(sources, tmp_path, command):
    output = import_annotations(sources["voc"], "coco", "--box-masks", "--val-share", 0.3)
    assert "3 of 10 were drawn (--val-share 0.3 --seed 0)" in output
    train, val = read_split(tmp_path / "coco", TRAIN), read_split(tmp_path / "coco", VAL)
    assert len(train) == 7 and len(val) == 3 and train.class_names == CLASSES and not train.warnings
    assert "no problems found" in command("tools/check_dataset.py", "coco").stdout
    x1, y1, x2, y2 = train.boxes[0]
    assert train.segmentations.polygons(int(train.masks[0]))[0].tolist() == [x1, y1, x2, y1, x2, y2, x1, y2]
    done = command("tools/import_annotations.py", sources["voc"], "coco", status=2)
    assert done.stderr == "error: coco exists; name a new folder\n"


def test_the_seed_chooses_the_images_and_a_split_of_the_source_stays(tmp_path):
    source = write_yolo(tmp_path / "yolo", SCENES)
    names = {}
    for seed in (0, 1, 2):
        import_annotations(source, tmp_path / f"out{seed}", "--seed", seed)
        names[seed] = tuple(image["file_name"] for image in content(tmp_path / f"out{seed}", "val")["images"])
    assert len(set(names.values())) > 1
    for part, chosen in (("train", SCENES[2:]), ("valid", SCENES[:2])):  # Roboflow's folders, names and "../"
        write_yolo(tmp_path / "rf" / part, chosen)
        (tmp_path / "rf" / part / "data.yaml").unlink()
    (tmp_path / "rf" / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 3\n"
        "names: ['circle', 'square', 'triangle']\n",
        "utf-8",
    )
    output = import_annotations(tmp_path / "rf", tmp_path / "out")
    assert "skipped 1: splits whose images do not exist: data.yaml: test: ../test/images" in output
    assert [image["file_name"] for image in content(tmp_path / "out", "val")["images"]] == ["0000.png", "0001.png"]
    assert boxes(tmp_path / "out") == truth(SCENES)
    with pytest.raises(UserError, match="--seed: the data set has 2 validation images of its own; leave it out"):
        import_annotations(tmp_path / "rf", tmp_path / "other", "--seed", 1)
    assert not (tmp_path / "other").exists()


def test_links_survive_a_move_of_all(tmp_path):
    source = write_voc(tmp_path / "a" / "voc", SCENES)
    import_annotations(source, tmp_path / "a" / "deeper" / "coco")
    (tmp_path / "a").rename(tmp_path / "b")
    links = sorted((tmp_path / "b" / "deeper" / "coco" / "train2017").iterdir())
    assert len(links) == 8 and all(link.is_symlink() and not link.readlink().is_absolute() for link in links)
    assert links[0].read_bytes() == (tmp_path / "b" / "voc" / "JPEGImages" / links[0].name).read_bytes()


def test_classes_choose_an_order_and_leave_others_out(sources, tmp_path):
    (tmp_path / "classes.txt").write_text("triangle\ncircle\n", "utf-8")
    output = import_annotations(sources["cvat"], tmp_path / "out", "--classes", tmp_path / "classes.txt")
    squares = sum(drawn.label == "square" for scene in SCENES for drawn in scene.objects)
    assert f"skipped {squares}: objects of the class square, which --classes does not list" in output
    assert [(c["id"], c["name"]) for c in content(tmp_path / "out")["categories"]] == [(1, "triangle"), (2, "circle")]
    both = [a for name in ("train", "val") for a in content(tmp_path / "out", name)["annotations"]]
    assert len(both) == sum(drawn.label != "square" for scene in SCENES for drawn in scene.objects)


def test_random_outlines_keep_their_masks(tmp_path):
    """Polygons beyond the border: pycocotools' mask of the annotation lies in its box, which lies in the image."""
    rng = np.random.default_rng(0)
    scenes = draw_scenes(4, seed=1)
    for scene in scenes:
        height, width = scene.size
        points = rng.uniform(-0.4, 1.4, (3, 5, 2)) * [width, height]
        for drawn, outline in zip(scene.objects, points, strict=False):
            drawn.outline = [tuple(point) for point in outline.tolist()]
    output = import_annotations(write_yolo(tmp_path / "yolo", scenes, True), tmp_path / "out")
    assert "outlines that reach outside their image, whose box ends at its border" in output
    for file in FILES:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(tmp_path / "out" / file))
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            assert x >= 0 and y >= 0 and x + w <= image["width"] and y + h <= image["height"]
            rows, columns = np.nonzero(coco.annToMask(annotation))
            assert columns.min() >= np.floor(x) and columns.max() < np.ceil(x + w) + 1e-9
            assert rows.min() >= np.floor(y) and rows.max() < np.ceil(y + h) + 1e-9


# Errors


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: (d / "data.yaml").write_text("names: [a, b", "utf-8"), r"data.yaml: not valid YAML at line 1"),
        (
            lambda d: (d / "data.yaml").write_text("names: {0: a, 2: b}\ntrain: images", "utf-8"),
            "names has 2 classes, but not 1",
        ),
        (
            lambda d: (d / "data.yaml").write_text("names: [a]\nnc: 3\ntrain: images", "utf-8"),
            "nc=3, but names has 1 classes",
        ),
        (
            lambda d: (d / "data.yaml").write_text("names: [a]\ntrain: x/y", "utf-8"),
            "train: x/y does not exist; write it relative",
        ),
        (lambda d: (d / "data.yaml").write_text("names: [a]\nval: images", "utf-8"), "there are no training images"),
        (lambda d: shutil.rmtree(d / "labels"), r"none of 10 images has a label file; for .*labels/0000.txt nor "),
        (lambda d: shutil.rmtree(d / "images"), "contains no images"),
        (lambda d: (d / "data.yaml").unlink(), "no files of a known format"),
        (lambda d: [path.write_text("", "utf-8") for path in d.glob("labels/*")], "no image has an object"),
    ],
    ids=range(9),
)
def test_yolo_exports_that_are_errors(change, message, tmp_path):
    source = write_yolo(tmp_path / "yolo", SCENES)
    change(source)
    with pytest.raises(UserError, match=message):
        import_annotations(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing"], "no such file or folder: missing"),
        (["both"], r"both has files of several formats \(yolo, voc\); choose one with --format"),
        (["both", "--format", "cvat"], "both has no files of the format cvat, but of yolo"),
        (["both/Annotations/0000.xml"], "is one file of Pascal VOC; name the folder"),
        (["both", "--format", "voc", "--images", "both/labels"], "both/labels contains no images"),
        (["both", "--format", "voc", "--val-share", "1"], "--val-share 1: must be between 0 and 1"),
        (["both", "--format", "voc", "--seed", "-1"], "--seed -1: must be at least 0"),
        (["text.json"], "text.json: not valid JSON: Expecting value"),
        (["other.json"], r"other.json: the key 'images', 'categories', 'annotations' is missing"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, tmp_path):
    write_yolo(tmp_path / "both", SCENES[:3])
    write_voc(tmp_path / "both", SCENES[:3])
    (tmp_path / "text.json").write_text("text", "utf-8")
    (tmp_path / "other.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match=message):
        import_annotations(*arguments, "out")
    assert not (tmp_path / "out").exists()
