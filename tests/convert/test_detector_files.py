"""Files of mmdetection and other programs: averages, prefixes, a backbone alone, and weights in several files."""

import json
import sys

import numpy as np
import pytest
from support.hostile_pickles import archive, tensor, text
from support.reference import FIXTURES

from msg_ms import UserError
from msg_ms.checkpoint import BrokenCheckpoint, read_checkpoint, write_safetensors
from msg_ms.commands import convert_torch_ckpt
from msg_ms.commands.convert_torch_ckpt import Options, convert
from msg_ms.convert import read_torch_file, write_torch_file
from msg_ms.convert.weight_files import read_torch_weights

DETECTOR, CLASSIFIER = FIXTURES / "detection" / "mmdet_checkpoint.pth", FIXTURES / "ckpt_epoch_3.pth"


@pytest.fixture(scope="module")
def state():
    return read_torch_file(DETECTOR).state


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_mmdetection_2_saves_the_averages_under_the_models_names(state, tmp_path):
    last_step = {f"ema_{name.replace('.', '_')}": value + 1 for name, value in state.items()}
    write_torch_file(tmp_path / "x.pth", {**state, **last_step})
    file = read_torch_weights(tmp_path / "x.pth", None)
    assert equal(file.state, state)
    assert file.notes == (
        f"dropped    {len(state)} ema_ buffers (mmdetection's weights of the last step; the averages are under the "
        "model's names)",
    )


def test_mmdetection_3_saves_the_last_step_under_ema_state_dict(tmp_path):
    state, bodies, storages = read_torch_file(CLASSIFIER).state, {}, {}
    for place, prefix, added in (("state_dict", "", 0), ("ema_state_dict", "module.", 1)):
        body = b""
        values = {f"{prefix}{n}": v + added if v.dtype.kind == "f" else v for n, v in state.items()}
        if prefix:
            values |= {"steps": np.array([7])}
        for name, value in values.items():
            kind = "FloatStorage" if value.dtype.kind == "f" else "LongStorage"
            strides = tuple(s // value.itemsize for s in np.ascontiguousarray(value).strides)
            body += text(name) + tensor(place + name, value.size, value.shape, strides, kind=kind)
            storages[place + name] = value.tobytes()
        bodies[place] = b"}(" + body + b"u"
    top = b"".join(text(name) + body for name, body in bodies.items())
    (tmp_path / "x.pth").write_bytes(archive(b"\x80\x02}(" + top + b"u.", storages))
    assert equal(read_torch_weights(tmp_path / "x.pth", None).state, state)
    last_step = read_torch_weights(tmp_path / "x.pth", "ema_state_dict").state
    assert equal(last_step, {n: v + 1 if v.dtype.kind == "f" else v for n, v in state.items()})


def test_prefixes_of_detectors_are_named(state, tmp_path):
    for number, prefixes in enumerate((("model",), ("net.detector",), ("teacher", "student"))):
        path = tmp_path / f"{number}.pth"
        write_torch_file(path, {f"{prefix}.{name}": value for prefix in prefixes for name, value in state.items()})
        names = " or ".join(prefixes)
        with pytest.raises(UserError, match=f"weights start with '{prefixes[0]}'.*; pass --key {names}$"):
            read_torch_weights(path, None)
        for prefix in prefixes:
            assert equal(read_torch_weights(path, prefix).state, state)


def test_the_normalisation_of_mmdetection_3_is_compared(state, tmp_path):
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 1.0)))
    write_torch_file(tmp_path / "x.pth", {"data_preprocessor.mean": mean, "data_preprocessor.std": std, **state})
    file = read_torch_weights(tmp_path / "x.pth", None)
    assert equal(file.state, state)
    assert file.notes[0] == "dropped    2 buffers (normalisation of images)"
    assert file.notes[1].startswith("warning    data_preprocessor.std differs from [58.395") and len(file.notes) == 2


def test_the_backbone_of_a_detector_alone_converts(state, tmp_path, capsys):
    own = {name: value for name, value in state.items() if name.startswith("backbone.")}
    write_torch_file(tmp_path / "x.pth", own)
    convert(tmp_path / "x.pth", tmp_path / "x.ckpt", Options(dtype="keep", verify=True))
    assert "the backbone of a detector, a custom model (embed_dim=16" in capsys.readouterr().out
    arrays, _ = read_checkpoint(tmp_path / "x.ckpt")
    assert np.array_equal(arrays["backbone.norm0.gamma"], own["backbone.norm0.weight"])
    del own["backbone.norm1.bias"]
    write_torch_file(tmp_path / "y.pth", own)
    with pytest.raises(UserError, match=r"can't convert .*y.pth: missing: backbone.norm1.beta$"):
        convert(tmp_path / "y.pth", tmp_path / "y.ckpt", Options())


@pytest.fixture
def parts(tmp_path):
    """Write the small classifier in three files with an index; return the folder."""
    state, folder, files = read_torch_file(CLASSIFIER).state, tmp_path / "parts", {}
    folder.mkdir()
    names = list(state)
    for number, own in enumerate((names[:9], names[9:30], names[30:]), 1):
        file = f"model-{number:05d}-of-00003.safetensors"
        write_safetensors(folder / file, {name: state[name] for name in own})
        files |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_weights_in_several_files(parts, tmp_path, monkeypatch, capsys):
    index = parts / "model.safetensors.index.json"
    assert equal(read_torch_weights(index, None).state, read_torch_file(CLASSIFIER).state)
    line = ["x", "--input", str(parts), "--output", str(tmp_path / "out"), "--verify"]
    monkeypatch.setattr(sys, "argv", line)
    assert convert_torch_ckpt.main() == 0 and "1 of 1 checkpoints converted" in capsys.readouterr().out
    convert(CLASSIFIER, tmp_path / "whole.ckpt", Options())
    assert (tmp_path / "out" / "model.ckpt").read_bytes() == (tmp_path / "whole.ckpt").read_bytes()
    part = parts / "model-00002-of-00003.safetensors"
    with pytest.raises(UserError, match=r"is one part of a checkpoint; pass its index, model.safetensors.index.json"):
        read_torch_weights(part, None)
    part.unlink()
    with pytest.raises(UserError, match=r"1 of its 3 files are missing: model-00002-of-00003.safetensors$"):
        read_torch_weights(index, None)


def test_damaged_indexes_are_refused(parts):
    index = parts / "model.safetensors.index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    files = content["weight_map"]
    del files["norm.bias"]
    for text_, message in {
        json.dumps(content): "model-0000[1-3]-of-00003.safetensors and the index differ in norm.bias$",
        json.dumps({"weight_map": {**files, "extra": files["norm.weight"]}}): "the index differ in extra",
        json.dumps({"weight_map": {"a": "../model.safetensors"}}): "'../model.safetensors' is not a file name",
        json.dumps({"weight_map": {"a": index.name}}): "is an index, not a file of weights",
        json.dumps({"weight_map": {"a": 3}}): "3 is not a file name",
        json.dumps({"weight_map": {}}): "has no 'weight_map'",
        json.dumps([1]): "has no 'weight_map'",
        "[" * 100_000: "it is not JSON",
        "{": "it is not JSON",
    }.items():
        index.write_text(text_, encoding="utf-8")
        with pytest.raises(BrokenCheckpoint, match=message):
            read_torch_weights(index, None)
