"""Class names and labels: folders, lists, index files and --classes agree, or the text shows where they differ."""

import json
import os
import shutil
import tempfile
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.data_sets import data_set, listed, load, write

from msg_ms import UserError
from msg_ms.data import scan_folder
from msg_ms.data.images.class_names import ClassName, class_order_warning, read_class_names
from msg_ms.data.images.file_list import FileList
from msg_ms.data.images.folder import IMAGE_SUFFIXES, ImageFolder

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


# Class folders


def test_images_at_any_depth(tmp_path):
    write(tmp_path, "b/images/x.JPEG", "b/images/deep/y.png", "b/z.jpg", "b/images-2/w.png", "a/images/1.png")
    write(tmp_path, "b/images/boxes.txt", "b/.thumbnails/z.jpg", "b/folder.png/in.png")
    folder = scan_folder(tmp_path)
    below = [os.path.relpath(file, tmp_path) for file in folder.files]
    walked = [  # torchvision's order
        str(Path(top, name).relative_to(tmp_path))
        for label in ("a", "b")
        for top, _, names in sorted(os.walk(tmp_path / label))
        for name in sorted(names)
        if name.lower().endswith(IMAGE_SUFFIXES) and ".thumbnails" not in top
    ]
    assert below == walked and len(below) == 6 and folder.labels == (0, 1, 1, 1, 1, 1)
    hidden, others = folder.warnings
    assert "1 hidden folders: b/.thumbnails" in hidden and "b/images/boxes.txt" in others


def test_links_that_loop_end_and_are_reported(tmp_path):
    write(tmp_path, "a/images/0.png", "a/images/deep/1.png", "b/0.png")
    (tmp_path / "a" / "images" / "deep" / "up").symlink_to("../..")
    (tmp_path / "a" / "again").symlink_to("images")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "root").symlink_to(tmp_path)
    folder = scan_folder(tmp_path)
    assert len(folder) == 3
    assert any("links to folders that are listed already" in line and "a/root" in line for line in folder.warnings)
    (tmp_path / "c").symlink_to(tmp_path)
    (tmp_path / "c2").symlink_to("c2")
    with pytest.raises(UserError, match=r"class folders without images: c; remove or fill them"):
        scan_folder(tmp_path)


def test_a_linked_class_folder_is_a_class(tmp_path):
    write(tmp_path, "store/a/0.png", "data/b/0.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "store" / "a")
    assert scan_folder(tmp_path / "data").classes == ("a", "b")


def test_links_to_missing_files_are_named(tmp_path):
    write(tmp_path, "a/0.png")
    (tmp_path / "a" / "1.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"links to missing files: a/1.png; remove or repair them"):
        scan_folder(tmp_path)


def test_every_suffix_in_upper_and_lower_case(tmp_path):
    names = [f"a/{i}{change(suffix)}" for i, suffix in enumerate(IMAGE_SUFFIXES) for change in (str.lower, str.upper)]
    write(tmp_path, *names, "a/text.txt")
    assert len(scan_folder(tmp_path)) == 2 * len(IMAGE_SUFFIXES)
    assert {".webp", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".png"} < set(IMAGE_SUFFIXES)


def test_numeric_names_keep_torchvisions_order_with_a_hint(tmp_path):
    data_set(tmp_path, ("0", "1", "2", "10"))
    train, val = load(tmp_path, 4, training=True)
    assert train.classes == ("0", "1", "10", "2")
    assert [line for line in (*train.warnings, *val.warnings) if "sorted as text (0, 1, 10, 2)" in line] == [
        "class folders are sorted as text (0, 1, 10, 2), as in torchvision; DATA.CLASS_INDEX sets another order"
    ]
    (tmp_path / "index.txt").write_text("0\n1\n2\n10\n", encoding="utf-8")
    train, _ = load(tmp_path, 4, training=True, CLASS_INDEX=tmp_path / "index.txt")
    assert train.classes == ("0", "1", "2", "10") and not train.warnings
    for classes in (("n01440764", "n01443537"), ("00", "01", "10"), ("cat", "dog")):
        write(tmp_path / classes[0], *(f"{name}/0.png" for name in classes))
        assert not scan_folder(tmp_path / classes[0]).warnings


def test_accents_stored_in_two_ways_are_one_name(tmp_path):
    write(tmp_path, f"train/{NFC}/0.png", "train/cafz/0.png", f"val/{NFD}/{NFD}.png", "val/cafz/0.png")
    train, val = load(tmp_path, 2, training=True)
    assert train.classes == val.classes == ("cafz", NFC)
    assert val.labels == (0, 1) and Path(val.files[1]).exists()
    for name in (NFC, NFD):
        (tmp_path / "index.txt").write_text(f"{name}\ncafz\n", encoding="utf-8")
        train, val = load(tmp_path, 2, training=True, CLASS_INDEX=tmp_path / "index.txt")
        assert train.classes == val.classes == (NFC, "cafz")
    shutil.move(tmp_path / "val" / NFD / f"{NFD}.png", tmp_path / "val" / f"{NFD}.png")
    val = listed(tmp_path, [(f"{NFC}.png", NFD)], ("cafz", NFC))
    assert val.labels == (1,) and Path(val.files[0]).exists()
    write(tmp_path, f"train/{NFD}/0.png")
    with pytest.raises(UserError, match=r"has a class twice, with its accents stored in two ways: 'cafe\\u0301'"):
        scan_folder(tmp_path / "train")


def test_names_that_look_alike_are_shown_with_escapes(tmp_path):
    write(tmp_path, "train/cat/0.png", "train/dog/0.png", "val/c\u0430t/0.png", "val/dog/0.png")  # a Cyrillic letter
    with pytest.raises(UserError, match=r"different class folders: cat, c\u0430t \('c\\u0430t'\)"):
        load(tmp_path, 2, training=True)


@pytest.fixture
def unprivileged():
    """Yield a folder of a user whom file permissions concern."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for top, _, _ in os.walk(folder):
            Path(top).chmod(0o777)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("locked", ("", "train", "train/a", "train/a/images"))
@pytest.mark.parametrize("mode", (0o000, 0o444))
def test_unreadable_folders_are_one_line(locked, mode, unprivileged):
    write(unprivileged, "train/a/images/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png")
    (unprivileged / locked).chmod(mode)
    try:
        with pytest.raises(UserError, match=r"^can't read (the folder )?\S+: Permission denied$"):
            load(unprivileged, 2, training=True)
    finally:
        for part in ("", "train", "train/a", "train/a/images"):
            (unprivileged / part).chmod(0o777)


# DATA.CLASS_INDEX and --classes


def test_one_class_per_line_with_blanks(tmp_path):
    data_set(tmp_path, ("golden retriever", "newt"))
    texts = {
        "a.txt": "newt\r\ngolden retriever\r\n",
        "b.txt": "\ufeff# the order of the paper\nnewt\teft\n\ngolden retriever\n",
        "a.json": json.dumps({"0": "newt", "1": ["golden retriever", "dog"]}),
        "b.json": json.dumps(["newt", "golden retriever"]),
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        train, val = load(tmp_path, 2, training=True, CLASS_INDEX=tmp_path / name)
        assert train.classes == val.classes == ("newt", "golden retriever"), name
        assert [row.folder for row in read_class_names(tmp_path / name, 2)] == list(train.classes), name
        both = read_class_names(tmp_path / "train", 2, str(tmp_path / name))
        assert [row.folder for row in both] == list(train.classes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "newt golden retriever", r"differ: golden retriever, newt, newt golden retriever; separate a folder"),
        ("a.txt", "newt\nnewt\ngolden retriever", r"lists a class twice: newt"),
        ("a.txt", "newt\ngolden retreiver", r"differ: golden retreiver, golden retriever; did you mean 'golden retri"),
        ("a.txt", "# nothing\n", r"expected one class per line, .* there are no classes"),
        ("a.json", '{"0": "newt", "2": "golden retriever"}', r"expected one class per line, or JSON"),
        ("a.json", '{"0": {}, "1": []}', r"expected one class per line, or JSON"),
        ("a.json", "7", r"expected one class per line, or JSON"),
        ("a.json", "[" * 100_000, r"expected one class per line, or JSON"),
        ("a.json", "{", r"expected one class per line, or JSON"),
    ],
)
def test_index_files_that_are_refused(name, text, message, tmp_path):
    data_set(tmp_path, ("golden retriever", "newt"))
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load(tmp_path, 2, training=True, CLASS_INDEX=tmp_path / name)


def test_another_order_than_the_checkpoints_is_shown():
    stored = json.dumps(["cat", "dog", NFD])
    rows = [ClassName(name, name) for name in ("dog", "cat", NFC)]
    (line,) = class_order_warning(rows, stored)
    assert line.endswith("(0: dog here, cat there, 1: cat here, dog there)")
    assert not class_order_warning([rows[1], rows[0], rows[2]], stored)
    assert not class_order_warning([ClassName(name, name) for name in ("Katze", "Hund", "Café")], stored)
    assert not class_order_warning(rows, "")


def test_the_digits_are_never_written_over_files(command, tmp_path):
    write(tmp_path, "results/best.ckpt")
    done = command("tools/make_digits.py", tmp_path / "results", status=2)
    assert "results exists and has no train/ and val/; name a new folder" in done.stderr
    assert (tmp_path / "results" / "best.ckpt").exists()


@pytest.mark.slow
def test_check_dataset_accepts_lists_and_indexes(command, tmp_path):
    for i, name in enumerate(("cat", "dog")):
        for file in (tmp_path / "data" / "train" / name / "0.png", tmp_path / "data" / "val" / f"{i}.png"):
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "val.txt").write_text("0.png cat\n1.png dog\n", encoding="utf-8")
    (tmp_path / "index.txt").write_text("dog\ncat\n", encoding="utf-8")
    done = command("tools/check_dataset.py", tmp_path / "data", "--val-list", "val.txt", "--class-index", "index.txt")
    assert "val: 2 images in 2 classes" in done.stdout and done.stdout.endswith("no problems found\n")
    os.rename(tmp_path / "data" / "val" / "1.png", os.fsencode(tmp_path / "data" / "val") + b"/\xff.png")  # noqa: PTH104
    (tmp_path / "data" / "train" / "dog" / "0.png").write_bytes(b"text")
    done = command("tools/check_dataset.py", tmp_path / "data", "--val-list", "val.txt", status=1)
    assert "lists files that are missing or empty" in done.stdout and "1 files can't be decoded" in done.stdout


def test_a_packed_list_is_the_list_of_its_names():
    groups = [["a/0.png", "a/caf\u00e9 1.png"], [], ["b/\udcff.png"]]  # the last one is not UTF-8
    files = FileList.of("root", groups)
    paths = ["root/a/0.png", "root/a/caf\u00e9 1.png", "root/b/\udcff.png"]
    assert list(files) == paths and files[-1] == paths[-1] and files[1:] == paths[1:] and len(files) == 3
    with pytest.raises(IndexError):
        files[3]
    folder = ImageFolder(Path("root"), ("a", "b\udcff"), files, (0, 0, 1), ("a warning",))
    copy = ImageFolder.from_arrays(folder.to_arrays())
    assert list(copy.files) == paths and (copy.classes, copy.labels) == (folder.classes, folder.labels)
    assert (copy.root, copy.warnings) == (folder.root, folder.warnings)
    assert len(FileList.of("root", [])) == 0
