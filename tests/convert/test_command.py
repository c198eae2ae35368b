"""The converter's command: keys, folders, verification, adaptation, and error messages."""

import os
import shutil
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.hostile_pickles import archive, tensor, text
from support.reference import FIXTURES, SMALL

from msg_ms import MSGTransformer, UserError
from msg_ms.checkpoint import (
    load_pretrained,
    load_weights,
    parameters_by_name,
    read_checkpoint,
    to_numpy,
    write_checkpoint,
    write_safetensors,
)
from msg_ms.commands import convert_torch_ckpt
from msg_ms.commands.convert_torch_ckpt import Options, convert
from msg_ms.convert import read_torch_file, write_torch_file
from msg_ms.convert.model_shapes import Changes

CHECKPOINT, CONFIG = FIXTURES / "ckpt_epoch_3.pth", FIXTURES.parent.parent / "configs" / "digits_p4_win4_64.yaml"
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.fixture
def run(monkeypatch):
    """Run the command in this process; return its status or raise the UserError that it would print."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_torch_ckpt.py", *map(str, arguments)])
        return convert_torch_ckpt.main()

    return call


def nested(path):
    """Write a checkpoint with different weights under several keys, and return them by key."""
    state = read_torch_file(CHECKPOINT).state
    bodies, storages, stored = {}, {}, {}
    for number, place in enumerate(("model", "model_ema", "deep")):
        stored[place] = {n: v + number if v.dtype.kind == "f" else v for n, v in state.items()}
        body = b""
        for name, value in stored[place].items():
            key, kind = f"{number}{name}", "FloatStorage" if value.dtype.kind == "f" else "LongStorage"
            strides = tuple(s // value.itemsize for s in np.ascontiguousarray(value).strides)
            body += text(name) + tensor(key, value.size, value.shape, strides, kind=kind)
            storages[key] = value.tobytes()
        bodies[place] = b"}(" + body + b"u"
    deep = b"}" + text("b") + bodies.pop("deep") + b"s"
    top = b"".join(text(name) + body for name, body in bodies.items())
    payload = b"\x80\x02}(" + top + text("a") + deep + text("epoch") + b"K\x07u."
    path.write_bytes(archive(payload, storages))
    return stored


def test_key_chooses_the_weights(run, tmp_path):
    stored = nested(tmp_path / "x.pth")
    for key, place in ((None, "model"), ("model", "model"), ("model_ema", "model_ema"), ("a.b", "deep")):
        run("--input", tmp_path / "x.pth", "--output", "x.ckpt", *(["--key", key] if key else []))
        arrays, _ = read_checkpoint(tmp_path / "x.ckpt")
        assert (arrays[TABLE] == stored[place][TABLE]).all()
    with pytest.raises(
        UserError, match=r"--key model_em: weights are under model, model_ema, a.b; did you mean 'model_"
    ):
        run("--input", tmp_path / "x.pth", "--output", "y.ckpt", "--key", "model_em")
    with pytest.raises(UserError, match="does not contain a dictionary of weights"):
        run("--input", tmp_path / "x.pth", "--output", "y.ckpt", "--key", "epoch")
    assert not (tmp_path / "y.ckpt").exists()


def test_prefixes_of_wrappers_and_keys_of_flat_files(run, tmp_path):
    state = read_torch_file(CHECKPOINT).state
    write_safetensors(tmp_path / "x.safetensors", {f"net.module._orig_mod.{n}": v for n, v in state.items()})
    run("--input", "x.safetensors", "--output", "x.ckpt", "--key", "net", "--verify")
    run("--input", CHECKPOINT, "--output", "y.ckpt")
    assert (tmp_path / "x.ckpt").read_bytes() == (tmp_path / "y.ckpt").read_bytes()


def test_the_averaged_weights_of_a_training_checkpoint(run, tmp_path):
    model = MSGTransformer(**SMALL)
    own = to_numpy(parameters_by_name(model.get_parameters()))
    average = {f"ema.{name}": value + 1 for name, value in own.items()}
    write_checkpoint(tmp_path / "x.ckpt", {**own, **average, "optimizer.m.0": np.zeros(3, np.float32)}, dict(step=3))
    for key, name, added in (("model", "norm.gamma", 0), ("ema", "norm.gamma", 1)):
        run("--input", "x.ckpt", "--output", "x.pth", "--reverse", "--key", key, "--verify")
        assert (read_torch_file(tmp_path / "x.pth").state["norm.weight"] == own[name] + added).all()
    with pytest.raises(UserError, match=r"x.ckpt: --key emma: weights are under model, ema; did you mean 'ema'"):
        run("--input", "x.ckpt", "--output", "y.pth", "--reverse", "--key", "emma")


def test_verification_fails_if_a_bit_differs_and_keeps_the_old_file(run, monkeypatch, tmp_path, capsys):
    write = convert_torch_ckpt.write_weights

    def damaged(path, state, torch):
        value = state["norm.bias" if torch else "norm.beta"].copy()
        value.view(np.uint32)[3] ^= 1
        write(path, {**state, "norm.bias" if torch else "norm.beta": value}, torch)

    run("--input", CHECKPOINT, "--output", "a.ckpt", "--verify")
    assert "verified   a.ckpt: all 41 tensors read back bit for bit" in capsys.readouterr().out
    before = (tmp_path / "a.ckpt").read_bytes()
    monkeypatch.setattr(convert_torch_ckpt, "write_weights", damaged)
    for output, extra in (("a.ckpt", ()), ("b.safetensors", ())):
        with pytest.raises(UserError, match=r"differs from the converted weights: norm.beta"):
            run("--input", CHECKPOINT, "--output", output, "--verify", *extra)
    for ending in ("pth", "safetensors"):
        with pytest.raises(UserError, match=r"differs from the converted weights: norm.bias"):
            run("--input", "a.ckpt", "--output", f"c.{ending}", "--verify", "--reverse")
    assert os.listdir(tmp_path) == ["a.ckpt"] and (tmp_path / "a.ckpt").read_bytes() == before


def test_a_folder_is_converted_and_each_failure_is_reported(command, tmp_path):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name in ("half.pth", "legacy.pth"):
        shutil.copy(FIXTURES / name, tmp_path / "in")
    shutil.copy(FIXTURES / "half.pth", tmp_path / "in" / "half.pt")
    shutil.copy(FIXTURES / "ddp.pth", tmp_path / "in" / "best.pth.tar")
    (tmp_path / "in" / "cut.bin").write_bytes(CHECKPOINT.read_bytes()[:5000])
    (tmp_path / "in" / "notes.txt").write_text("no checkpoint", encoding="utf-8")
    done = command("tools/convert_torch_ckpt.py", "--input", "in", "--output", "out/new", "--verify", status=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2 and lines[0].startswith("error: in/cut.bin: ")
    assert lines[1] == "error: in/half.pth: its output out/new/half.ckpt would replace that of in/half.pt"
    assert done.stdout.splitlines()[-1] == "3 of 5 checkpoints converted"
    assert sorted(os.listdir(tmp_path / "out/new")) == ["best.ckpt", "half.ckpt", "legacy.ckpt"]
    done = command(
        "tools/convert_torch_ckpt.py", "--input", "out/new", "--output", "back", "--reverse", "--format", "bin"
    )
    assert done.stdout.splitlines()[-1] == "3 of 3 checkpoints converted"
    assert sorted(os.listdir(tmp_path / "back")) == ["best.bin", "half.bin", "legacy.bin"]


def test_converting_a_folder_into_itself_replaces_no_source(run, tmp_path, capsys):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"")
    shutil.copy(FIXTURES / "half.pth", tmp_path / "a.pth")
    assert run("--input", tmp_path, "--output", tmp_path, "--format", "safetensors") == 2
    assert (tmp_path / "a.safetensors").read_bytes() == b"" and sorted(os.listdir(tmp_path)) == [
        "a.pth",
        "a.safetensors",
    ]
    assert capsys.readouterr().err.count("would replace that of") == 2


def test_adaptation_during_conversion(run, tmp_path, capsys):
    run("--input", CHECKPOINT, "--output", "a.ckpt", "--num-classes", 9, "--window-size", 2, "--verify", "--seed", 5)
    printed = capsys.readouterr().out
    assert "classification head re-initialised: 5 classes in the file, 9 in the model" in printed
    assert "classification head initialised with seed 5; train it before use" in printed
    assert "relative_position_bias_table resampled from 49 to 9 positions" in printed
    arrays, _ = read_checkpoint(tmp_path / "a.ckpt")
    head = arrays["head.weight"]
    assert head.shape == (9, 32) and 0.017 < head.std() < 0.023 and (arrays["head.bias"] == 0).all()
    for seed, same in ((5, True), (6, False)):
        run("--input", CHECKPOINT, "--output", "b.ckpt", "--num-classes", 9, "--window-size", 2, "--seed", seed)
        assert (read_checkpoint(tmp_path / "b.ckpt")[0]["head.weight"] == head).all() == same
    # As train.py --pretrained resamples.
    model = MSGTransformer(**{**SMALL, "img_size": 64, "window_size": 2, "num_classes": 9})
    run("--input", CHECKPOINT, "--output", "c.ckpt")
    load_pretrained(model, tmp_path / "c.ckpt")
    assert (model.layers[0].blocks[0].attn.relative_position_bias_table.asnumpy() == arrays[TABLE]).all()
    load_weights(model, tmp_path / "a.ckpt")
    # No classes remove the head; the same number of classes keeps it.
    capsys.readouterr()
    run("--input", CHECKPOINT, "--output", "d.ckpt", "--num-classes", 0)
    assert "classification head ignored: 5 classes in the file, no head in the model" in capsys.readouterr().out
    assert not any(name.startswith("head") for name in read_checkpoint(tmp_path / "d.ckpt")[0])
    run("--input", CHECKPOINT, "--output", "e.ckpt", "--num-classes", 5)
    assert (tmp_path / "e.ckpt").read_bytes() == (tmp_path / "c.ckpt").read_bytes()


def test_position_embeddings_are_adapted_for_pytorch_too(tmp_path, capsys):
    model = MSGTransformer(**SMALL, ape=True)
    write_checkpoint(tmp_path / "a.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    convert(tmp_path / "a.ckpt", tmp_path / "b.pth", Options(reverse=True, changes=Changes(img_size=48, window_size=6)))
    printed = capsys.readouterr().out
    assert "absolute_pos_embed resampled from 64 to 144 positions" in printed
    state = read_torch_file(tmp_path / "b.pth").state
    assert state["absolute_pos_embed"].shape == (1, 144, 16)
    assert state["layers.0.blocks.0.attn.relative_position_index"].shape == (36, 36)
    with pytest.raises(
        UserError, match=r"img_size=50 can't be cut into whole windows .* the nearest that fit: 32 or 64"
    ):
        convert(tmp_path / "a.ckpt", tmp_path / "c.pth", Options(reverse=True, changes=Changes(img_size=50)))


def test_a_configuration_must_fit_except_for_requested_changes(run, tmp_path):
    sizes = dict(embed_dim=48, depths=(1, 2, 1), num_heads=(2, 4, 8), window_size=4, shuffle_size=(4, 2, 1))
    model = MSGTransformer(img_size=64, num_classes=7, **sizes)
    write_checkpoint(tmp_path / "a.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    line = ("--input", "a.ckpt", "--output", "a.pth", "--reverse", "--cfg", CONFIG)
    with pytest.raises(UserError, match=r"can't convert a.ckpt: .*head.weight is \(7, 192\), expected \(10, 192\)"):
        run(*line)
    run(*line, "--num-classes", 10)
    assert read_torch_file(tmp_path / "a.pth").state["head.weight"].shape == (10, 192)


def test_dropped_buffers_must_equal_the_rebuilt_ones(run, tmp_path):
    state = dict(read_torch_file(CHECKPOINT).state)
    name = "layers.1.blocks.0.attn.relative_position_index"
    for wrong in (state[name].T.copy(), state[name][:9]):
        write_torch_file(tmp_path / "x.pth", {**state, name: wrong})
        with pytest.raises(UserError, match=f"{name} differs from the value computed from the window size"):
            run("--input", "x.pth", "--output", "x.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("changes", ((), ("--num-classes", 9, "--window-size", 2, "--img-size", 32)))
def test_every_parameter_with_a_wrong_shape_is_refused(changes, run, tmp_path):
    state = dict(read_torch_file(CHECKPOINT).state)
    for name, value in state.items():
        if changes and name.startswith("head."):
            continue  # a replaced head may have any shape
        for wrong in (value.reshape(-1)[0].reshape(()), value[None], value.reshape(-1)[:3].copy()):
            write_torch_file(tmp_path / "x.pth", {**state, name: wrong})
            with pytest.raises(UserError, match=r"^can't convert x.pth: "):
                run("--input", "x.pth", "--output", "x.ckpt", *changes)
    assert os.listdir(tmp_path) == ["x.pth"]


def test_wrong_direction_and_other_mistakes(run, tmp_path):
    run("--input", CHECKPOINT, "--output", "a.safetensors")
    run("--input", "a.safetensors", "--output", "b.safetensors", "--reverse")
    run("--input", CHECKPOINT, "--output", "d.ckpt")
    for arguments, message in {
        (
            "--input",
            "a.safetensors",
            "--output",
            "c.ckpt",
        ): "a.safetensors has MindSpore parameter names; convert it with --reverse",
        (
            "--input",
            "b.safetensors",
            "--output",
            "c.pth",
            "--reverse",
        ): "b.safetensors has PyTorch parameter names; convert it with tools/",
        (
            "--input",
            CHECKPOINT,
            "--output",
            "c.pth",
        ): r"must be a file that ends in .ckpt or .safetensors \(or pass --rev",
        ("--input", "a.safetensors", "--output", "c.ckpt", "--reverse"): "ends in .pth or .pt or .bin or .safetensors",
        ("--input", "a.safetensors", "--output", "a.safetensors", "--reverse"): "is the same file as --input",
        (
            "--input",
            "d.ckpt",
            "--output",
            "c.ckpt",
        ): "not a PyTorch checkpoint; pass --reverse for a MindSpore checkpoint$",
        ("--input", "none.pth", "--output", "c.ckpt"): "can't read none.pth: No such file",
        ("--input", tmp_path, "--output", "a.safetensors"): "must be a folder, because --input is one",
        ("--input", CHECKPOINT, "--output", "c.ckpt", "--format", "ckpt"): "--format ckpt: only for folders",
        ("--input", tmp_path, "--output", "o", "--format", "pth"): "--format pth: must be ckpt or safetensors",
        (
            "--input",
            CHECKPOINT,
            "--output",
            "c.ckpt",
            "--num-classes",
            -1,
        ): "--num-classes -1: must be from 0 to 10000000",
        ("--input", CHECKPOINT, "--output", "c.ckpt", "--seed", -1): "--seed -1: must not be negative",
        ("--input", CHECKPOINT, "--output", "c.ckpt", "--window-size", 0): "--window-size 0: must be from 1 to 64",
    }.items():
        with pytest.raises(UserError, match=message):
            run(*arguments)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors", "d.ckpt"]


@pytest.mark.parametrize("suffix", (".ckpt", ".safetensors"))
def test_kept_types_load_into_a_single_precision_model(suffix, run, tmp_path):
    run("--input", FIXTURES / "bfloat16.pth", "--output", f"a{suffix}", "--dtype", "keep")
    model = MSGTransformer(**{**SMALL, "img_size": 64, "num_classes": 5})
    load_weights(model, tmp_path / f"a{suffix}")
    assert {parameter.dtype for parameter in model.get_parameters()} == {ms.float32}
    widened = Tensor(read_checkpoint(tmp_path / f"a{suffix}")[0]["norm.gamma"], ms.float32).asnumpy()
    assert (model.norm.gamma.asnumpy() == widened).all() and np.abs(widened - 1).max() < 0.5
