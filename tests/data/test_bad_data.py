"""Bad files and folders: error messages, and that no files are left behind."""

import os
import shutil

import cv2
import numpy as np
import pytest

from msg_ms import UserError
from msg_ms.config import load_config
from msg_ms.data import EvalDataset, TrainDataset, load_folders, scan_folder
from msg_ms.data.pipeline import WHOLE
from msg_ms.tasks import build_task

CLASSES = ("cat", "dog", "newt")
PER_CLASS = 8


@pytest.fixture
def data(tmp_path):
    draws = np.random.RandomState(0)
    for part in ("train", "val"):
        for name in CLASSES:
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                pixels = cv2.resize(draws.randint(0, 256, (6, 6, 3), np.uint8), (40, 50))
                cv2.imwrite(str(tmp_path / part / name / f"{i}.jpg"), pixels)
    return tmp_path


def load(data, **keys):
    config = load_config(None, DATA__DATA_PATH=str(data), **keys)
    return load_folders(config.data, 3, training=True)


def damage(file, kind):
    """Damage a file; some kinds keep JPEG data, so that the damage is harder to detect."""
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut in the middle": content[: len(content) // 2],
            "cut by two bytes": content[:-2],
            "cut to its header": content[:20],
            "text under an image's name": b"<html>404 not found</html>",
            "a GIF's first bytes": b"GIF89a",
            "zeros": bytes(len(content)),
        }[kind]
    )


FILE_KINDS = (
    "cut in the middle",
    "cut by two bytes",
    "cut to its header",
    "text under an image's name",
    "a GIF's first bytes",
    "zeros",
)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_training_names_counts_and_replaces_a_bad_file(kind, data):
    bad = data / "train" / "dog" / "3.jpg"
    damage(bad, kind)
    before = {str(path) for path in data.rglob("*")}
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "8"])
    lines: list[str] = []
    dataset = TrainDataset(scan_folder(data / "train"), config.data, config.aug, 3, 0.1, 0, 1)
    batches = list(dataset.batches(0, 2, lines.append))
    assert len(batches) == 6 and all(np.isfinite(batch.images).all() for batch in batches)
    assert len(lines) == 1 and lines[0].startswith(f"can't decode {bad} (")
    assert lines[0].endswith("another image replaces it")
    again = TrainDataset(scan_folder(data / "train"), config.data, config.aug, 3, 0.1, 0, 2)
    replaced = list(again.batches(0, 2, lines.append))
    assert all((a[0] == b[0]).all() for a, b in zip(batches, replaced, strict=True))  # the same replacement every time
    assert {str(path) for path in data.rglob("*")} == before


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_evaluation_stops_at_a_bad_file_and_names_it(kind, data):
    bad = data / "val" / "newt" / "7.jpg"
    damage(bad, kind)
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "8"])
    with pytest.raises(UserError, match=r"can't evaluate: .*newt/7.jpg can't be decoded") as error:
        list(EvalDataset(scan_folder(data / "val"), config.data, True, 1).batches())
    assert "\n" not in str(error.value) and "abnormal_image.jpg" not in os.listdir()


def test_training_stops_where_too_many_files_are_bad(data):
    bad = [data / "train" / "cat" / f"{i}.jpg" for i in range(4)]
    for file in bad:
        damage(file, "zeros")
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "24", "DATA.MAX_BAD_FILES", "3"])
    dataset = TrainDataset(scan_folder(data / "train"), config.data, config.aug, 3, 0.1, 0, 1)
    with pytest.raises(UserError, match=r"more than DATA.MAX_BAD_FILES=3 files can't be decoded") as error:
        list(dataset.batches(0, 2, lambda line: None))
    assert all(str(file) in str(error.value) for file in bad)


def test_a_file_that_vanishes_during_training_counts_as_bad(data):
    config = load_config(None, ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "8"])
    dataset = TrainDataset(scan_folder(data / "train"), config.data, config.aug, 3, 0.1, 0, 1)
    (data / "train" / "dog" / "3.jpg").unlink()
    lines: list[str] = []
    assert len(list(dataset.batches(0, 2, lines.append))) == 6
    assert "No such file" in lines[0]


def test_folders_that_are_refused(data):
    (data / "val" / "dog").rename(data / "val" / "dogs")
    with pytest.raises(UserError, match=r"have different class folders: dog, dogs; labels would not match"):
        load(data)
    (data / "val" / "dogs").rename(data / "val" / "dog")
    (data / "train" / "empty").mkdir()
    with pytest.raises(UserError, match=r"class folders without images: empty; remove or fill them"):
        load(data)
    (data / "train" / "empty").rmdir()
    with pytest.raises(UserError, match=r"nowhere is not a directory; --data-path must hold train/ and val/ with one"):
        load(data / "nowhere")
    coco = data / "coco"
    (coco / "annotations").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"coco holds annotations/, as COCO's data sets .* configuration with TASK: detec"
    ):
        load(coco)
    (coco / "annotations").rename(coco / "train")
    (coco / "train" / "_annotations.coco.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"no class folders; it holds COCO annotations, which TASK: detection reads"):
        load(coco)
    (coco / "train" / "_annotations.coco.json").rename(coco / "train" / "0.jpg")
    with pytest.raises(
        UserError, match=r"no class folders; it holds images directly \(0.jpg\): move each into the fold"
    ):
        load(coco)
    (data / "train" / "cat" / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"links to missing files: cat/loop.png; remove or repair them"):
        load(data)
    (data / "train" / "cat" / "loop.png").unlink()
    for name in ("0.jpg", "1.jpg"):
        (data / "train" / "cat" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"empty files: cat/0.jpg, cat/1.jpg; remove or download them again"):
        load(data)
    with pytest.raises(UserError, match=r"nowhere is not a directory; --data-path must hold train/ and val/"):
        scan_folder(data / "nowhere")
    (data / "bare").mkdir()
    with pytest.raises(UserError, match=r"bare has no class folders"):
        scan_folder(data / "bare")


def test_the_number_of_classes_must_fit(data):
    config = load_config(None, DATA__DATA_PATH=str(data))
    with pytest.raises(
        UserError, match=r"3 class folders, but MODEL.NUM_CLASSES=1000; pass --opts MODEL.NUM_CLASSES 3"
    ):
        load_folders(config.data, 1000, training=True)
    listed = scan_folder(data / "train")
    with pytest.raises(UserError, match=r"24 samples, fewer than one batch of DATA.BATCH_SIZE=128"):
        TrainDataset(listed, config.data, config.aug, 3, 0.1, 0, 1)


def test_other_files_and_hidden_folders_are_ignored_and_reported(data):
    (data / "train" / ".cache").mkdir()
    (data / "train" / "cat" / "notes.txt").write_text("no image", encoding="utf-8")
    (data / "train" / "cat" / "._0.jpg").write_text("a file manager's leftovers", encoding="utf-8")
    (data / "train" / "list.txt").write_text("x", encoding="utf-8")
    (data / "train" / "cat" / "more").mkdir()
    train, _ = load(data)
    assert train.classes == CLASSES and len(train) == 3 * PER_CLASS
    hidden, other = train.warnings
    assert hidden.endswith("ignored 1 hidden folders: .cache")
    assert "ignored 3 entries that are not images: list.txt, cat/._0.jpg, cat/notes.txt" in other


def test_suffixes_in_any_case(data):
    for i, suffix in enumerate((".JPEG", ".Jpg", ".jpeg", ".PNG")):
        shutil.copy(data / "train" / "cat" / "0.jpg", data / "train" / "cat" / f"x{i}{suffix}")
    assert len(scan_folder(data / "train")) == 3 * PER_CLASS + 4


def test_check_dataset_lists_problems(data, command, tmp_path):
    done = command("tools/check_dataset.py", data)
    assert "train: 24 images in 3 classes" in done.stdout and done.stdout.endswith("no problems found\n")
    damage(data / "train" / "dog" / "3.jpg", "cut in the middle")
    (data / "val" / "dog").rename(data / "val" / "dogs")
    done = command("tools/check_dataset.py", data, "--list", tmp_path / "bad.txt", status=1)
    assert "have different class folders: dog, dogs" in done.stdout
    assert "1 files can't be decoded" in done.stdout
    assert (tmp_path / "bad.txt").read_text("utf-8").startswith(str(data / "train" / "dog" / "3.jpg") + "\t")


def test_show_batch_draws_a_sheet(data, command, tmp_path):
    (tmp_path / "c.yaml").write_text("DATA: {IMG_SIZE: 32, BATCH_SIZE: 6}\nMODEL: {NUM_CLASSES: 3}", encoding="utf-8")
    flags = ["--cfg", "c.yaml", "--data-path", data, "--picture", "batch.png", "--opts", "AUG.REMODE", "const"]
    done = command("tools/show_batch.py", *flags)
    assert "6 images of step 0" in done.stdout
    assert cv2.imread(str(tmp_path / "batch.png")).shape == (2 * 184, 5 * 160, 3)
    drawn = (tmp_path / "batch.png").read_bytes()
    command("tools/show_batch.py", *flags, "DATA.NORMALIZE_ON_DEVICE", "True")  # its own file
    assert (tmp_path / "batch.png").read_bytes() == drawn
    image = data / "train" / "cat" / "0.png"
    image.write_bytes(b"mine")
    done = command("tools/show_batch.py", "--cfg", "c.yaml", "--data-path", data, "--picture", image, status=2)
    assert done.stderr.endswith(
        f"error: {image} exists and is not a drawing of this program: move it, or name another folder\n"
    )
    assert image.read_bytes() == b"mine"


def test_batches_of_one_channel_are_drawn_grey(data):
    opts = ["DATA.IMG_SIZE", "32", "DATA.BATCH_SIZE", "6", "MODEL.NUM_CLASSES", "3", "MODEL.MSG.IN_CHANS", "1"]
    task = build_task(load_config(None, opts, DATA__DATA_PATH=str(data)))
    drawings, tile = task.draw_batch(next(task.train_data(WHOLE, 1).batches(0, 1)))
    assert len(drawings) == 6 and tile == 160 and {c for _, text in drawings for c in text.split()} >= set(CLASSES)
    assert all(image.shape == (32, 32, 3) and np.ptp(image, axis=2).max() == 0 for image, _ in drawings)


def test_check_dataset_replaces_its_own_list_only(data, command, tmp_path):
    (tmp_path / "bad_files.txt").write_text("mine", encoding="utf-8")
    done = command("tools/check_dataset.py", data, status=2)
    assert f"bad_files.txt exists and does not list files of {data}: name another file with --list" in done.stderr
    assert (tmp_path / "bad_files.txt").read_text("utf-8") == "mine"
    damage(data / "train" / "dog" / "3.jpg", "cut in the middle")
    for _ in range(2):
        command("tools/check_dataset.py", data, "--list", "own.txt", status=1)
