"""Names and files: the table in both directions, PyTorch's forms, broken and hostile files."""

import dataclasses
import io
import os
import random
import shutil
import zipfile

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.reference import EXTRA, FIXTURES

from msg_ms import MSGTransformer, UserError, create_model
from msg_ms.checkpoint import read_checkpoint
from msg_ms.convert import (
    BrokenCheckpoint,
    ConversionError,
    convert_state_dict,
    dropped_names,
    export_state_dict,
    infer_architecture,
    read_torch_file,
    variant_name,
    write_torch_file,
)
from msg_ms.convert.rules import RULES, Drop

FORMS = ("ckpt_epoch_3", "legacy", "ddp", "half", "bfloat16", "evil")
CHECKPOINT = FIXTURES / "ckpt_epoch_3.pth"


@pytest.fixture
def state():
    return read_torch_file(CHECKPOINT).state


def logits_of(arrays, arguments, images):
    model = MSGTransformer(**arguments).set_train(False)
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(arrays[parameter.name]))
    return model(Tensor(images)).asnumpy()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_checkpoint_has_the_papers_logits(form, command, tmp_path):
    done = command("tools/convert_torch_ckpt.py", "--input", FIXTURES / f"{form}.pth", "--output", "out.ckpt")
    assert "dropped    2 buffers (computed from the window size)" in done.stdout
    arrays, metadata = read_checkpoint(tmp_path / "out.ckpt")
    assert metadata == {}
    arguments = {**infer_architecture(arrays), "manip_type": "shuf"}
    assert arguments["depths"] == (1, 1) and arguments["window_size"] == 4 and arguments["shuffle_size"] == (2, 1)
    with np.load(FIXTURES / "ckpt_logits.npz") as reference:
        error = np.abs(logits_of(arrays, arguments, reference["x"]) - reference["logits"]).max()
    assert error < {"half": 2e-2, "bfloat16": 2e-1}.get(form, 1e-5)
    assert ("posix.system" in done.stdout) == (form == "evil")
    assert not (tmp_path / "PWNED_BY_PICKLE").exists() and sorted(os.listdir(tmp_path)) == ["out.ckpt"]


@pytest.mark.skipif(EXTRA is None, reason="MSG_MS_REFERENCE is not set")
@pytest.mark.parametrize(
    "form", ("upstream_ckpt_epoch_3", "upstream_legacy", "upstream_ddp_state_dict", "upstream_half")
)
def test_further_reference_checkpoints(form):
    arrays = convert_state_dict(read_torch_file(EXTRA / f"{form}.pth").state)
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    with np.load(EXTRA / "upstream_ckpt_logits.npz") as reference:
        arguments = {**infer_architecture(arrays), "manip_type": "shuf", "qk_scale": 0.3}
        error = np.abs(logits_of(arrays, arguments, reference["x"]) - reference["logits"]).max()
    assert error < (2e-2 if form.endswith("half") else 1e-5)


@pytest.mark.parametrize("name", ("msg_tiny", "msg_small", "msg_base"))
def test_round_trip_is_exact_and_the_variant_is_recognised(name):
    with ms.nn.utils.no_init_parameters():
        model = create_model(name)
    # Only names and shapes matter here, so the values need no memory.
    own = {p.name: np.broadcast_to(np.float32(i), p.shape) for i, p in enumerate(model.get_parameters())}
    there = export_state_dict(own)
    assert len(there) == len(own) + sum(model.depths)
    back = convert_state_dict(there, {k: v.shape for k, v in own.items()})
    assert back.keys() == own.keys() and all(back[k] is own[k] for k in own)
    assert variant_name(infer_architecture(own)) == name


def test_files_convert_in_both_directions_bit_for_bit(command, tmp_path, state):
    command("tools/convert_torch_ckpt.py", "--input", CHECKPOINT, "--output", "a.ckpt")
    done = command("tools/convert_torch_ckpt.py", "--input", "a.ckpt", "--output", "b.pth", "--reverse")
    assert "rebuilt    2 buffers" in done.stdout
    back = read_torch_file(tmp_path / "b.pth").state
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert back[name].dtype == value.dtype and back[name].tobytes() == value.tobytes(), name
    torch = pytest.importorskip("torch")
    loaded = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all((loaded[name].numpy() == value).all() for name, value in state.items())


def test_a_broken_rule_is_noticed(state):
    model = MSGTransformer(**{**infer_architecture(convert_state_dict(state))})
    expected = {p.name: tuple(p.shape) for p in model.get_parameters()}
    index = next(i for i, rule in enumerate(RULES) if rule.torch.endswith("attn.qkv.weight"))
    wrong = dataclasses.replace(RULES[index], ours=RULES[index].ours.replace("qkv", "proj"))
    with pytest.raises(ConversionError, match=r"duplicates: .*attn.proj.weight.*missing: .*attn.qkv.weight"):
        convert_state_dict(state, expected, rules=(*RULES[:index], wrong, *RULES[index + 1 :]))
    without = (*RULES[:index], *RULES[index + 1 :])
    with pytest.raises(ConversionError, match=r"no rule for: .*attn.qkv.weight"):
        convert_state_dict(state, expected, rules=without)


def test_names_and_shapes_are_reported_together(state):
    expected = {name: value.shape for name, value in convert_state_dict(state).items()}
    bad = {**state, "stranger": state["head.bias"], "head.weight": state["head.weight"][:, :-1]}
    del bad["norm.bias"]
    with pytest.raises(ConversionError) as error:
        convert_state_dict(bad, expected)
    for text in ("no rule for: stranger", "missing: norm.beta", "head.weight is (5, 31), expected (5, 32)"):
        assert text in str(error.value)


def test_dropped_buffers_are_rebuilt_as_they_were(state):
    dropped = dropped_names(state)
    assert len(dropped) == 2 and all(name.endswith("relative_position_index") for name in dropped)
    rebuilt = export_state_dict(convert_state_dict(state))
    assert all((rebuilt[name] == state[name]).all() for name in dropped)
    assert any(isinstance(rule, Drop) for rule in RULES)
    assert not set(dropped) & set(export_state_dict(convert_state_dict(state), buffers=False))


def exact_or_refused(path, original):
    """Return whether the file is refused; if it is read, its weights must be the original's."""
    try:
        state = read_torch_file(path).state
    except UserError as error:
        assert "\n" not in str(error)
        return True
    assert state.keys() == original.keys()
    assert all(state[name].tobytes() == value.tobytes() for name, value in original.items())
    return False


def test_cut_and_flipped_files_are_refused_or_exact(state, tmp_path):
    data, draws = CHECKPOINT.read_bytes(), random.Random(0)
    path = tmp_path / "broken.pth"
    for _ in range(40):
        path.write_bytes(data[: draws.randrange(len(data))])
        assert exact_or_refused(path, state)
    refused = 0
    for _ in range(200):
        begin, length = draws.randrange(len(data)), draws.randrange(1, 64)
        flipped = bytearray(data)
        for i in range(begin, min(begin + length, len(data))):
            flipped[i] ^= draws.randrange(1, 256)
        path.write_bytes(flipped)
        refused += exact_or_refused(path, state)
    assert refused > 150


def test_a_cut_legacy_file_is_refused(tmp_path):
    data, draws = (FIXTURES / "legacy.pth").read_bytes(), random.Random(1)
    original = read_torch_file(FIXTURES / "legacy.pth").state
    for size in [0, 1, len(data) - 1] + [draws.randrange(len(data)) for _ in range(20)]:
        (tmp_path / "broken.pth").write_bytes(data[:size])
        assert exact_or_refused(tmp_path / "broken.pth", original)


@pytest.mark.parametrize("broken", ("cut", "text", "missing", "folder", "other", "config"))
def test_a_bad_input_is_one_line_and_leaves_nothing(broken, command, tmp_path):
    source, extra = tmp_path / "in.pth", []
    if broken == "cut":
        source.write_bytes(CHECKPOINT.read_bytes()[:-1000])
    elif broken == "text":
        source.write_text("not a checkpoint", encoding="utf-8")
    elif broken == "folder":
        source.mkdir()
    elif broken == "other":
        write_torch_file(source, {"conv1.weight": np.zeros((3, 3), np.float32)})
    elif broken == "config":
        shutil.copy(CHECKPOINT, source)
        extra = ["--cfg", FIXTURES.parent.parent / "configs" / "digits_p4_win4_64.yaml"]
    before = sorted(os.listdir(tmp_path))
    done = command("tools/convert_torch_ckpt.py", "--input", source, "--output", "out.ckpt", *extra, status=2)
    assert "in.pth" in done.stderr and done.stdout == ""
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("change", ("shape", "offset", "stride"))
def test_tensors_cannot_extend_beyond_their_storage(change, tmp_path):
    write_torch_file(tmp_path / "good.pth", {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    old, new = {
        "shape": (b"K\x02K\x03\x86", b"K\x02K\x04\x86"),
        "offset": (b"QK\x00", b"QK\x01"),
        "stride": (b"K\x03K\x01\x86", b"K\x04K\x01\x86"),
    }[change]
    assert members["archive/data.pkl"].count(old) == 1
    members["archive/data.pkl"] = members["archive/data.pkl"].replace(old, new)
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(BrokenCheckpoint, match="extends beyond its storage"):
        read_torch_file(tmp_path / "bad.pth")


def test_strided_tensors_are_read(tmp_path):
    buffer = io.BytesIO()
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.arange(6.0).reshape(2, 3).T[1:]}, buffer)
    (tmp_path / "x.pth").write_bytes(buffer.getvalue())
    assert read_torch_file(tmp_path / "x.pth").state["w"].tolist() == [[1, 4], [2, 5]]
