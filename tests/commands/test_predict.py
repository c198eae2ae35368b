"""Predictions: probabilities, names, JSON, drawings of the attention, and one-line errors."""

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from support.reference import SMALL
from support.small_run import CONFIG, write_images

from msg_ms import MSGTransformer
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.cli import run_command_line
from msg_ms.commands.predict import main
from msg_ms.data.images.class_names import default_class_names, imagenet_classes, read_class_names
from msg_ms.visualize.attention import draw_msg_attention

CLASSES = ["n01440764", "red", "blue"]
LINE = ["--cfg", "small.yaml", "--resume", "small.ckpt"]


@pytest.fixture
def model(tmp_path):
    """A small model, with its checkpoint, configuration and images in the working folder."""
    write_images(tmp_path)
    Path("small.yaml").write_text(CONFIG, encoding="utf-8")
    model, draws = MSGTransformer(**SMALL).set_train(False), np.random.RandomState(0)
    for parameter in model.get_parameters():
        noise = draws.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + 0.3 * noise))
    write_checkpoint(
        Path("small.ckpt"), to_numpy(parameters_by_name(model.get_parameters())), {"classes": json.dumps(CLASSES)}
    )
    return model


@pytest.fixture
def predict(monkeypatch, capsys):
    """Run the command in this process and return (standard output, standard error)."""

    def run(*flags, status=0):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            run_command_line(main)
        out, err = capsys.readouterr()
        assert ended.value.code == status, err
        return out, err

    return run


def by_pillow(model, file):
    """Class probabilities from Pillow's resizing, NumPy's arithmetic and the model's logits."""
    image = Image.open(file).convert("RGB")
    short = 36  # 256/224 of 32 pixels
    sides = [short * side // min(image.size) for side in image.size]
    left, top = (round((side - 32) / 2) for side in sides)
    crop = image.resize(sides, Image.BICUBIC).crop((left, top, left + 32, top + 32))
    x = (np.asarray(crop) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    logits = model(Tensor(x.transpose(2, 0, 1)[None].astype(np.float32))).asnumpy()[0]
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_predictions_for_folders_and_files_good_and_bad(model, predict):
    Path("data/val/1/broken.jpg").write_bytes(b"no image")
    Path("data/val/1/.hidden.png").write_bytes(b"")
    Path("data/val/1/notes.txt").write_text("ignored", encoding="utf-8")
    files = [f"data/val/{label}/{i}.png" for label in range(3) for i in range(3)]
    files.insert(6, "data/val/1/broken.jpg")
    flags = ["data/val", "data/train/2/0.png", "gone.png", "--batch-size", "4", "--top-k", "2"]
    out, err = predict(*LINE, "--json", "-", *flags, status=2)
    answers = json.loads(out)
    assert answers["model"] == "small" and [p["file"] for p in answers["images"]] == [*files, *flags[1:3]]
    (error,) = err.strip().splitlines()
    assert error == (
        "error: 2 of 12 files can't be read: data/val/1/broken.jpg (cannot identify image file), "
        "gone.png (No such file or directory)"
    )
    assert answers["images"][6] == {"file": files[6], "error": "cannot identify image file"}
    for image in (*answers["images"][:6], *answers["images"][7:11]):
        expected = by_pillow(model, image["file"])
        predictions = image["predictions"]
        assert [p["label"] for p in predictions] == np.argsort(-expected)[:2].tolist()
        assert np.abs([p["probability"] - expected[p["label"]] for p in predictions]).max() < 1e-5
        assert all(p["class"] == CLASSES[p["label"]] for p in predictions)
    names = {p["class"]: p["name"] for image in answers["images"][:6] for p in image["predictions"]}
    assert names["n01440764"] == "tench, Tinca tinca" and set(names) <= set(CLASSES)

    # The same as a table, another batch size, with names from a file, and as JSON in a file.
    Path("names.txt").write_text("# three\nfirst thing\nn02012849\nn03126707\tcrane (machine)\n", encoding="utf-8")
    out, _ = predict(*LINE, "--classes", "names.txt", *files[:2], "--picture", "sheet.png", "--top-k", "9")
    first = answers["images"][0]["predictions"]
    shown = ["first thing", "crane", "crane (machine)"]
    row, second, wrote = out.splitlines()
    assert row.startswith(f"{files[0]}: {first[0]['probability']:.1%} {shown[first[0]['label']]} | ")
    assert row.count("|") == 2 and second.startswith(files[1]) and wrote == "wrote sheet.png"
    assert cv2.imread("sheet.png").shape == (184, 320, 3)
    assert predict(*LINE, "--json", "out/answers.json", files[0])[0] == "wrote out/answers.json\n"
    (image,) = json.loads(Path("out/answers.json").read_text("utf-8"))["images"]
    assert image["predictions"][0]["label"] == first[0]["label"] and len(image["predictions"]) == 3


def test_drawings_of_the_attention(model, predict):
    out, _ = predict(*LINE, "data/val/0", "--show-messages", "rows.png", "--json", "-")
    assert len(json.loads(out)["images"]) == 3
    assert cv2.imread("rows.png").shape == (3 * (24 + 320 + 24), 3 * (320 + 12), 3)
    flags = ["--img-size", "48", "--window-size", "6", "--show-messages", "shown", "--batch-size", "2"]
    out, err = predict(*LINE, "data/val/0/1.png", "data/val/1", *flags)
    assert err == (
        "small.ckpt: relative_position_bias_table resampled from 49 to 121 positions, without training; fine-tune with "
        "train.py --pretrained\n"
    )
    files = sorted(str(path) for path in Path("shown").rglob("*.png"))
    assert files == ["shown/0/1.png.png", *(f"shown/1/{i}.png.png" for i in range(3))]
    assert cv2.imread(files[0]).shape == (24 + 336 + 24, 3 * (336 + 12), 3)  # 48 pixels times seven


def test_attention_covers_the_pixels_of_its_token():
    layouts, weights = ((8, 16, 2), (4, 8, 1)), (np.zeros((2, 4, 17)), np.zeros((2, 1, 17)))
    weights[0][1, 2, 1 + 4 * 1 + 3] = 0.5  # right region, lower left window, its row 1 and column 3
    weights[1][0, 0, 1 + 4 * 2 + 0] = 1.0
    row = draw_msg_attention(np.zeros((32, 64, 3), np.uint8), weights, layouts, 4, "black")
    for panel, (top, left, side) in enumerate(((4 + 1, 8 + 3, 40), (2, 0, 80)), 1):  # tokens, pixels of a token
        area = row[24:-24, panel * 652 + 6 :][:, :640].astype(int)
        inner = area[top * side + 4 : (top + 1) * side - 4, left * side + 4 : (left + 1) * side - 4]
        assert inner.min() > 100 and (inner == inner[0, 0]).all()
        lit = (area.min(-1) > 100) & (area != (255, 255, 255)).any(-1)  # except for the lines
        assert (
            lit.sum() <= side * side
            and lit[top * side : (top + 1) * side, left * side : (left + 1) * side].sum() == lit.sum()
        )
    # Windows of stage 1 are 160 pixels wide; lines around regions are three pixels wide.
    line = row[24 + 80, 652 + 6 : 652 + 6 + 640].tolist()
    assert [x for x in range(640) if line[x] == [0, 220, 255]] == [0, 1, 319, 320, 321, 639]
    assert [x for x in range(640) if line[x] == [255, 255, 255]] == [160, 480]


def test_imagenets_classes():
    classes = imagenet_classes()
    assert len(classes) == len({row.folder for row in classes}) == 1000
    assert [row.folder for row in classes] == sorted(row.folder for row in classes)  # the order of ImageFolder
    assert (classes[0].name, classes[999].short) == ("tench, Tinca tinca", "toilet tissue")
    assert classes[207].folder == "n02099601" and classes[207].short == "golden retriever"
    assert default_class_names(1000, "") == list(classes)
    assert [row.name for row in default_class_names(3, "")] == ["0", "1", "2"]
    for folder in ("n01440764", "zebra"):
        Path("folders", folder).mkdir(parents=True)
    assert [row.name for row in read_class_names(Path("folders"), 2)] == ["tench, Tinca tinca", "zebra"]
    Path("index").write_text("zebra\nn01440764\n", encoding="utf-8")
    assert [row.folder for row in read_class_names(Path("folders"), 2, "index")] == ["zebra", "n01440764"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nothing.png"], "no such file or folder: nothing.png"),
        (["data/val/0/0.png", "--top-k", "0"], "--top-k 0: must be at least 1"),
        (["data/val/0/0.png", "--batch-size", "0"], "DATA.BATCH_SIZE=0: must be at least 1"),
        (["data/val/0/0.png", "--classes", "gone"], "--classes gone does not exist"),
        (["data/val/0/0.png", "--classes", "data"], "--classes data has 2 classes, but MODEL.NUM_CLASSES=3"),
        (["data/val/0/0.png", "--classes", "small.ckpt"], "can't read small.ckpt"),
        (["data/val/0/0.png", "--json", "data/val/0/1.png"], "--json data/val/0/1.png: must end in .json, or be -"),
        (["data/val/0/0.png", "--picture", "x.jpg"], "--picture x.jpg: must end in .png"),
        (["data/val/0/0.png", "--show-messages", "x.jpg"], "--show-messages x.jpg: must end in .png, or be a folder"),
        (["data/val/0/0.png", "--img-size", "40"], "fit: 32 or 64; or, at this size, window_size 5"),
        (["data/val/0/0.png", "--window-size", "x"], "--window-size: invalid int value: 'x'"),
        (["data/val/0/0.png", "--resume", "gone.ckpt"], "checkpoint gone.ckpt does not exist"),
        (["empty"], "empty contains no images (.jpeg, .jpg, .png, .bmp"),
        (["data/val/0/0.png", "--opts", "MODEL.NUM_CLASSES", "4"], "head.bias is (3,), the model's is (4,)"),
        (["data/val/0/0.png", "--json", "small.ckpt/x.json"], "can't write small.ckpt/x.json"),
        (["data/train"] * 42 + ["--picture", "x.png"], "504 images are too many for one contact sheet"),
        (["data/train"] * 5 + ["--show-messages", "x.png"], "60 images are too many for one PNG; the limit is 50"),
    ],
)
def test_errors_are_one_line(flags, message, model, predict):
    Path("empty").mkdir()
    _, err = predict(*LINE, *flags, status=2)
    assert message in err.strip().splitlines()[-1] and "Traceback" not in err
    assert not list(Path().glob("*.json")) and not list(Path().glob("*.png"))


def test_the_tool_itself_keeps_standard_output_clean(model, command):
    done = command("tools/predict.py", *LINE, "--json", "-", "--device-target", "CPU", "data/val/2/0.png")
    assert json.loads(done.stdout)["images"][0]["file"] == "data/val/2/0.png"


def test_names_that_are_not_utf_8(model, predict):
    Path("data/val/0/0.png").rename(os.fsdecode(b"data/val/0/\xff.png"))
    Path(os.fsdecode(b"data/val/0/\xfe.png")).write_bytes(b"no image")
    out, err = predict(*LINE, "--json", "-", "data/val/0", status=2)
    files = {row["file"]: row for row in json.loads(out)["images"]}
    assert "predictions" in files["data/val/0/\\xff.png"] and "error" in files["data/val/0/\\xfe.png"]
    assert "data/val/0/\\xfe.png (cannot identify image file)" in err
    predict(*LINE, "--json", "a.json", "--show-messages", "drawn", "data/val/0", status=2)
    assert {row["file"] for row in json.loads(Path("a.json").read_text("utf-8"))["images"]} == set(files)
    assert Path(os.fsdecode(b"drawn/\xff.png.png")).is_file()


def test_outputs_never_replace_inputs_or_files_of_others(model, predict):
    image = Path("data/val/0/0.png")
    before = image.read_bytes()
    Path("names.json").write_text('["a", "b", "c"]', encoding="utf-8")
    Path("link.png").symlink_to(image)
    for flags, text in (
        (["--picture", image, "data/val"], "--picture would overwrite the input data/val/0/0.png"),
        (["--picture", "link.png", image], "--picture would overwrite the input data/val/0/0.png"),
        (["--show-messages", image, "data/val"], "--show-messages would overwrite the input data/val/0/0.png"),
        (
            ["--json", "names.json", "--classes", "names.json", "--", image],
            "--json would overwrite the input names.json",
        ),
        (["--picture", "a.png", "--show-messages", "a.png", image], "would overwrite the output of --picture"),
    ):
        _, err = predict(*LINE, *flags, status=2)
        assert text in err and err.count("\n") == 1
    assert image.read_bytes() == before and Path("names.json").read_text("utf-8") == '["a", "b", "c"]'
    Path("drawn").mkdir()
    Path("drawn/0.png.png").write_bytes(before)
    _, err = predict(*LINE, "--show-messages", "drawn", image, status=2)
    assert "drawn/0.png.png exists and is not a drawing of this program" in err
    assert Path("drawn/0.png.png").read_bytes() == before
    Path("drawn/0.png.png").unlink()
    for _ in range(2):  # its own drawings are replaced
        predict(*LINE, "--show-messages", "drawn", image)
    assert cv2.imread("drawn/0.png.png") is not None


def test_folders_that_cannot_be_read_are_reported(model, predict, monkeypatch):
    scan = os.scandir

    def refuse(path):  # root may read every folder
        if os.fspath(path).endswith("val/1"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    out, err = predict(*LINE, "data/val", status=2)
    assert "data/val/1: can't be read: Permission denied\n" in out and out.count("\n") == 7
    assert "1 of 7 files can't be read: data/val/1 (Permission denied)" in err
    _, err = predict(*LINE, "data/val/1", status=2)
    assert err == "error: can't read the folder data/val/1: Permission denied\n"


def test_a_named_pipe_in_a_folder_is_reported(model, predict):
    folder = Path("pipes")
    folder.mkdir()
    os.mkfifo(folder / "a.png")
    shutil.copy(next(Path("data/val").rglob("*.png")), folder / "b.png")
    out, err = predict(*LINE, folder, status=2)
    assert "pipes/a.png: can't be read: not a regular file\n" in out and "pipes/b.png: " in out
    assert "1 of 2 files can't be read: pipes/a.png (not a regular file)" in err
