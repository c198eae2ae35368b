"""DATA.VAL_LIST: files and classes with blanks, numbers as names and as labels, classes without train/."""

import shutil
from pathlib import Path

import pytest
from support.data_sets import flat_set, listed, load, write

from msg_ms import UserError


def test_names_of_folders_win_over_labels(tmp_path):
    lines = flat_set(tmp_path, ("1", "10", "2"))
    val = listed(tmp_path, lines, ("1", "10", "2"))
    assert val.labels == (0, 1, 2)
    assert not val.warnings  # 10 is not a label
    _, val = load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")
    assert val.labels == (0, 1, 2)
    classes = tuple(sorted(map(str, range(11))))  # every word can be both
    val = listed(tmp_path, [("0.png", "10"), ("1.png", "2")], classes)
    assert val.labels == (2, 3)
    assert val.warnings == (f"{tmp_path / 'val.txt'}: numbers are read as names of class folders, not as labels",)


def test_labels_are_read_where_only_labels_fit(tmp_path):
    lines = flat_set(tmp_path, ("1", "10", "2"))
    val = listed(tmp_path, [(file, i) for i, (file, _) in enumerate(lines)], ("1", "10", "2"))
    assert val.labels == (0, 1, 2) and "are read as labels, not as names" in val.warnings[0]
    val = listed(tmp_path, [(file, i) for i, (file, _) in enumerate(lines)], ("cat", "dog", "newt"))
    assert val.labels == (0, 1, 2) and not val.warnings


def test_words_with_two_meanings_are_refused(tmp_path):
    flat_set(tmp_path, ("1", "10", "2"))
    with pytest.raises(UserError, match=r"mixes class folders and labels, and 1 can be both; use class folders only"):
        listed(tmp_path, [("0.png", "1"), ("1.png", "10"), ("2.png", "0")], ("1", "10", "2"))
    val = listed(tmp_path, [("0.png", "cat"), ("1.png", "2"), ("2.png", "1")], ("cat", "dog", "newt"))
    assert val.labels == (0, 2, 1)  # names and labels that can't be confused


def test_blanks_and_sub_folders_in_a_list(tmp_path):
    classes = ("golden retriever", "newt")
    write(tmp_path, "val/my photo.png", "val/sub dir/x.png", "val/y.png")
    lines = "my photo.png golden retriever\nsub dir/x.png newt\n./y.png\tgolden retriever\n\r\n"
    val = listed(tmp_path, None, classes, "\ufeff" + lines)
    assert val.labels == (0, 1, 0) and all(Path(file).is_file() for file in val.files)
    write(tmp_path, "val/y.png golden")
    with pytest.raises(UserError, match=r"line 1: 'y.png golden retriever' can be split in 2 ways; separate .* tab"):
        listed(tmp_path, None, ("golden retriever", "retriever"), "y.png golden retriever")
    for missing in ("val/y.png", "x.png", "sub dir", "gone.png"):
        with pytest.raises(UserError, match=rf"val.txt lists files that are missing or empty in \S+/val: {missing}"):
            listed(tmp_path, None, classes, f"{missing} newt")
    with pytest.raises(
        UserError, match=r"missing or empty in \S+/val: sub dir\\x.png; write / for \\, and paths relat"
    ):
        listed(tmp_path, None, classes, "sub dir\\x.png newt")
    for same in ("y.png", "./y.png", "sub dir//x.png\nsub dir/./x.png"):
        with pytest.raises(UserError, match=r"lists files twice: \S+y.png|lists files twice: \S+/sub dir/x.png"):
            listed(tmp_path, None, classes, "y.png newt\n" + "\n".join(f"{name}\t0" for name in same.split("\n")))


def test_evaluation_with_a_list_needs_no_training_images(tmp_path):
    lines = flat_set(tmp_path, ("cat", "dog", "newt"))
    (tmp_path / "val.txt").write_text("\n".join(f"{file} {name}" for file, name in lines), encoding="utf-8")
    (tmp_path / "index.txt").write_text("newt\ndog\ncat\n", encoding="utf-8")
    assert load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")[1].labels == (0, 1, 2)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")  # the training images are not looked at
    assert load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")[1].labels == (0, 1, 2)
    shutil.rmtree(tmp_path / "train")
    train, val = load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")
    assert train is None and val.classes == ("cat", "dog", "newt") and val.labels == (0, 1, 2)
    _, val = load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt", CLASS_INDEX=tmp_path / "index.txt")
    assert val.classes == ("newt", "dog", "cat") and val.labels == (2, 1, 0)
    with pytest.raises(UserError, match=r"lists 3 classes, but MODEL.NUM_CLASSES=4; list all class folders in DATA.C"):
        load(tmp_path, 4, VAL_LIST=tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text(
        "0.png 2\n1.png 10\n2.png 1\n", encoding="utf-8"
    )  # 10 is not a label, so all are names
    _, val = load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")
    assert val.classes == ("1", "10", "2") and val.labels == (2, 1, 0) and "sorted as text" in val.warnings[0]
    (tmp_path / "val.txt").write_text("0.png 2\n1.png 10\n2.png 2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"label 10 is not in 0 to 2 \(MODEL.NUM_CLASSES=3\); if the numbers are names"):
        load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")
    _, val = load(tmp_path, 11, VAL_LIST=tmp_path / "val.txt")
    assert val.labels == (2, 10, 2) and val.classes == ()
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(UserError, match=r"val is not a directory; it must hold the images of DATA.VAL_LIST"):
        load(tmp_path, 3, VAL_LIST=tmp_path / "val.txt")
