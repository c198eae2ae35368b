"""The converter's command: names that other programs changed, and folders with files of others."""

import shutil
import sys

import numpy as np
import pytest
from support.hostile_pickles import archive, tensor, text
from support.reference import FIXTURES

from msg_ms import UserError
from msg_ms.checkpoint import read_checkpoint, write_checkpoint
from msg_ms.commands import convert_torch_ckpt
from msg_ms.convert import read_torch_file, write_torch_file

CHECKPOINT = FIXTURES / "ckpt_epoch_3.pth"


@pytest.fixture
def run(monkeypatch):
    """Run the command in this process; return its status or raise the UserError that it would print."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_torch_ckpt.py", *map(str, arguments)])
        return convert_torch_ckpt.main()

    return call


def wrapped(path, rename):
    """Write the small checkpoint with other names."""
    state = read_torch_file(CHECKPOINT).state
    write_torch_file(path, {rename(name): value for name, value in state.items()})
    return path


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_fsdp_wrapped_module.{name}".replace("blocks.0.", "blocks.0._fsdp_wrapped_module."),
        lambda name: name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."),
        lambda name: f"module._orig_mod.{name}".replace("layers.0.", "layers.0._orig_mod."),
        lambda name: f"_forward_module.module.{name}",
    ],
)
def test_names_of_wrappers_are_removed_anywhere(rename, run, tmp_path):
    run("--input", CHECKPOINT, "--output", tmp_path / "plain.ckpt")
    run("--input", wrapped(tmp_path / "x.pth", rename), "--output", tmp_path / "x.ckpt")
    plain, other = read_checkpoint(tmp_path / "plain.ckpt")[0], read_checkpoint(tmp_path / "x.ckpt")[0]
    assert all((plain[name] == other[name]).all() for name in {**plain, **other})


def test_a_prefix_of_lightning_hints_at_the_key(run, tmp_path):
    for number, prefix in enumerate(("model", "net.backbone", "module.model")):
        path = wrapped(tmp_path / f"{number}.pth", lambda name, prefix=prefix: f"{prefix}.{name}")
        output = tmp_path / f"{number}.ckpt"
        with pytest.raises(
            UserError, match=r"the names of the model's weights start with '.*'; pass --key (\S+)"
        ) as raised:
            run("--input", path, "--output", output)
        run("--input", path, "--output", output, "--key", str(raised.value).rpartition(" ")[2])
        assert output.is_file()
    path = tmp_path / "lightning.ckpt"
    nested_state(path)
    with pytest.raises(UserError, match=r"start with 'model'; pass --key state_dict.model"):
        run("--input", path, "--output", tmp_path / "l.ckpt")
    assert run("--input", path, "--output", tmp_path / "l.ckpt", "--key", "state_dict.model") == 0


def nested_state(path):
    """Write a checkpoint as PyTorch Lightning does: names with a prefix, beside a loss's weights."""
    state = {f"model.{name}": value for name, value in read_torch_file(CHECKPOINT).state.items()}
    state["criterion.weight"] = np.ones(3, np.float32)
    body, storages = b"", {}
    for name, value in state.items():
        kind = "FloatStorage" if value.dtype.kind == "f" else "LongStorage"
        strides = tuple(s // value.itemsize for s in np.ascontiguousarray(value).strides)
        body += text(name) + tensor(name, value.size, value.shape, strides, kind=kind)
        storages[name] = value.tobytes()
    top = text("epoch") + b"K\x07" + text("state_dict") + b"}(" + body + b"u"
    path.write_bytes(archive(b"\x80\x02}(" + top + b"u.", storages))


def test_a_folder_of_conversions_does_not_replace_other_files(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    shutil.copy(CHECKPOINT, tmp_path / "in" / "a.pth")
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0  # the same again
    assert "unchanged  " in capsys.readouterr().out
    write_checkpoint(tmp_path / "out" / "a.ckpt", {"w": np.ones(3, np.float32)})
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 2
    assert "out/a.ckpt exists with other content: move it, or name another folder" in capsys.readouterr().err
    assert list(read_checkpoint(tmp_path / "out" / "a.ckpt")[0]) == ["w"]
