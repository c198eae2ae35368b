"""tools/export.py: files, their metadata, and one-line errors."""

import re
import sys

import numpy as np
import pytest
from support.reference import SMALL, random_weights
from support.small_run import CONFIG

from msg_ms import MSGTransformer, UserError
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.commands.export import main


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    model = random_weights(MSGTransformer(**SMALL))
    write_checkpoint(tmp_path / "small.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    return ["--cfg", "small.yaml", "--resume", "small.ckpt", "--output"]


def test_both_formats_from_the_command_line(flags, command, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    output = command("tools/export.py", *flags, "small.onnx", "--dynamic-batch", "--img-size", 32, 64).stdout
    assert "input    images, float32 batch,3,32,64\noutput   logits, float32 batch,3\nchecked  ONNX Runtime" in output
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["model_name"], metadata["num_classes"], metadata["checkpoint"]) == ("small", "3", "small.ckpt")
    assert (metadata["mean"], metadata["std"]) == ("0.485,0.456,0.406", "0.229,0.224,0.225")
    assert session.run(None, {"images": np.zeros((3, 3, 32, 64), np.float32)})[0].shape == (3, 3)
    resized = ("--img-size", 48, "--window-size", 6)
    done = command("tools/export.py", *flags, "out/small.mindir", "--batch-size", 2, "--softmax", *resized)
    assert "float32 2,3,48,48\noutput   probabilities, float32 2,3\nchecked  MindSpore" in done.stdout
    assert len(re.findall(r"small\.ckpt: .* without training", done.stderr)) == 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["small.mindir"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["small.pth"], r"--output small\.pth: must end in \.onnx or \.mindir"),
        (["x.mindir", "--opset", "18"], "--opset is for .onnx files, but --output is x.mindir"),
        (["x.onnx", "--convolution", "conv2d"], "--convolution is for .mindir files"),
        (["x.onnx", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (
            ["x.onnx", "--img-size", "1", "2", "3"],
            "--img-size 1 2 3: expected the side of a square, or height and width",
        ),
        (["x.onnx", "--img-size", "40"], "img_size=40 can't be cut .* fit: 32 or 64"),
        (["x.onnx", "--opts", "MODEL.NUM_CLASSES", "4"], r"head\.weight is \(3, 32\), the model's is \(4, 32\)"),
        (["x.onnx", "--resume", "gone.ckpt"], "checkpoint gone.ckpt does not exist"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(more, message, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["export.py", *flags, *more])
    with pytest.raises(UserError, match=message):
        main()
    assert {file.name for file in tmp_path.iterdir()} == {"small.yaml", "small.ckpt"}


def test_a_missing_package_is_named(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["export.py", *flags, "x.onnx"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match=r"ONNX files need onnxruntime: pip install 'msg-ms\[export\]'"):
        main()
