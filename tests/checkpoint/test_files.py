"""Checkpoint files: atomic writes, strict reads, and exactly the model's parameters."""

import os
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from support.reference import SMALL

from msg_ms import MSGFeatures, MSGTransformer, UserError, create_model
from msg_ms.checkpoint import (
    load_for_inference,
    load_parameters,
    load_pretrained,
    load_weights,
    parameters_by_name,
    read_checkpoint,
    select_prefix,
    to_numpy,
    write_checkpoint,
    write_safetensors,
)
from msg_ms.convert import export_state_dict


@pytest.fixture
def model():
    return MSGTransformer(**SMALL)


def test_a_checkpoint_holds_the_parameters_and_nothing_else(tmp_path):
    with ms.nn.utils.no_init_parameters():
        model = create_model("msg_tiny")
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
    write_checkpoint(tmp_path / "x.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    loaded = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    assert loaded.keys() == {p.name for p in model.trainable_params()}
    assert sum(value.size for value in loaded.values()) == 25_086_116


def test_values_and_metadata_round_trip(model, tmp_path):
    metadata = dict(step=66, accuracy=100 / 3, loss_sum=1.2345678912345678, config="A: 1\nB: [é]\n")
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    write_checkpoint(tmp_path / "x.ckpt", {**arrays, "ema.norm.beta": arrays["norm.beta"]}, metadata)
    stored, stored_metadata = read_checkpoint(tmp_path / "x.ckpt")
    assert stored_metadata == metadata
    assert select_prefix(stored, "").keys() == arrays.keys()
    assert select_prefix(stored, "ema.").keys() == {"norm.beta"}
    other = MSGTransformer(**SMALL)
    load_parameters(parameters_by_name(other.get_parameters()), select_prefix(stored, ""), tmp_path)
    assert all((p.asnumpy() == arrays[p.name]).all() for p in other.get_parameters())
    assert os.listdir(tmp_path) == ["x.ckpt"]


def test_scalars_keep_their_shape(tmp_path):
    write_checkpoint(tmp_path / "x.ckpt", {"optimizer.updates": np.float32(7)})
    target = Parameter(Tensor(0, ms.float32), name="updates")
    load_parameters(
        parameters_by_name([target]), select_prefix(read_checkpoint(tmp_path / "x.ckpt")[0], "optimizer."), tmp_path
    )
    assert target.shape == () and float(target.asnumpy()) == 7


def test_a_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, to_numpy(parameters_by_name(model.get_parameters())))
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"can't write .*x.ckpt: No space left on device"):
        write_checkpoint(path, {"w": np.zeros(3, np.float32)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.ckpt"]


@pytest.mark.parametrize("damage", ("cut", "flip", "empty", "text"))
def test_damaged_files_are_refused_in_one_line(damage, model, tmp_path):
    path = tmp_path / "x.ckpt"
    write_checkpoint(path, to_numpy(parameters_by_name(model.get_parameters())), dict(step=0))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = b"" if damage == "empty" else b"not a checkpoint"
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x.ckpt: damaged, or not a MindSpore checkpoint") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_another_models_checkpoint_is_refused_with_all_differences(model, tmp_path):
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    arrays["head.weight"] = arrays["head.weight"][:2]
    del arrays["norm.beta"]
    with pytest.raises(UserError) as error:
        load_parameters(parameters_by_name(model.get_parameters()), {**arrays, "odd": np.zeros(1)}, tmp_path / "x.ckpt")
    for text in (
        "x.ckpt does not fit this configuration: ",
        "norm.beta is missing",
        "the model has no odd",
        "head.weight is (2, 32), the model's is (3, 32)",
    ):
        assert text in str(error.value)


def test_missing_files_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^checkpoint .*x.ckpt does not exist$"):
        read_checkpoint(tmp_path / "x.ckpt")
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"x.pth is not a .ckpt or .safetensors file; convert PyTorch checkpoints with"):
        read_checkpoint(tmp_path / "x.pth")


TORCH_NAMES = {
    "classifier": lambda state: state,
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "backbone of a larger model": lambda state: {f"backbone.{name}": value for name, value in state.items()},
    "without the last norm and the head": lambda state: {
        name: value for name, value in state.items() if not name.startswith(("norm.", "head."))
    },
    "norms of feature maps": lambda state: {"norm0.weight": state["norm.weight"], "msg_tokens": state["msg_tokens"]},
    "one norm": lambda state: {"norm.weight": state["norm.weight"]},
}


@pytest.mark.parametrize("variant", TORCH_NAMES)
@pytest.mark.parametrize("buffers", (True, False))
def test_safetensors_with_pytorch_names_are_refused(variant, buffers, model, tmp_path):
    state = export_state_dict(to_numpy(parameters_by_name(model.get_parameters())), buffers=buffers)
    write_safetensors(tmp_path / "x.safetensors", TORCH_NAMES[variant](state))
    with pytest.raises(
        UserError, match=r"x.safetensors has PyTorch parameter names; convert it with tools/convert_torch_ckpt.py$"
    ):
        read_checkpoint(tmp_path / "x.safetensors")


def test_safetensors_with_other_names_are_read(tmp_path):
    """Names of this package, names that are the same in PyTorch, and names of both, which strict loading refuses."""
    classifier = MSGTransformer(**SMALL, ape=True)
    own = to_numpy(parameters_by_name(classifier.get_parameters()))
    features = to_numpy(parameters_by_name(MSGFeatures(**SMALL, out_norm=True).get_parameters()))
    for arrays in (
        own,
        features,
        {f"backbone.{name}": value for name, value in own.items()},
        {name: value for name, value in own.items() if name.startswith("head.")},
        {"normalizer.weight": own["norm.gamma"], "norm1x.weight": own["norm.gamma"], "abnorm.weight": own["norm.beta"]},
        {**own, "norm.weight": own["norm.gamma"]},
    ):
        for framework in ("ms", "pt"):
            write_safetensors(tmp_path / "x.safetensors", arrays, framework)
            stored, metadata = read_checkpoint(tmp_path / "x.safetensors")
            assert stored.keys() == arrays.keys() and metadata == {}
            assert all((stored[name] == value).all() for name, value in arrays.items())
    with pytest.raises(UserError, match=r"the model has no norm.weight$"):
        load_weights(classifier, tmp_path / "x.safetensors")


def test_folders_addresses_and_long_names_are_no_checkpoints(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"run is a folder, not a checkpoint, and has no .ckpt files"):
        read_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "ckpt_00000002.ckpt").touch()
    with pytest.raises(UserError, match=r"name a checkpoint in it, such as .*run/ckpt_00000002.ckpt"):
        read_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "best.ckpt").touch()
    with pytest.raises(UserError, match=r"name a checkpoint in it, such as .*run/best.ckpt"):
        read_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"https://x.org/a.ckpt is an address, not a file: download"):
        read_checkpoint(Path("https://x.org/a.ckpt"))
    with pytest.raises(UserError, match=r"can't read checkpoint a+.ckpt: File name too long"):
        read_checkpoint(Path("a" * 300 + ".ckpt"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value, tmp_path):
    model = nn.Dense(2, 3)
    weights = {p.name: np.full(p.shape, value if p.name == "bias" else 1.0, np.float32) for p in model.get_parameters()}
    write_checkpoint(tmp_path / "x.ckpt", weights)
    for load in (load_for_inference, load_pretrained):
        with pytest.raises(UserError, match=r"x.ckpt has infinite or NaN values in bias: the run .* diverged"):
            load(model, tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["my model", "a+=(b)", "\u4e2d", "-x", "\udcff", "x" * 200])
def test_any_name_is_written_and_read(name, tmp_path):
    for suffix in (".ckpt", ".safetensors"):
        path = tmp_path / name / f"{name}{suffix}"
        write_checkpoint(path, {"w": np.ones(3, np.float32)})
        assert (read_checkpoint(path)[0]["w"] == 1).all()
