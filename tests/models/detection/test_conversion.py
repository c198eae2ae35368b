"""mmdetection's checkpoints to this package's names and back, by the table and by the command."""

import numpy as np
import pytest
from support.detection import FOLDER, vectors
from support.detection_model import detector

from msg_ms import UserError
from msg_ms.checkpoint import parameters_by_name, read_checkpoint
from msg_ms.commands.convert_torch_ckpt import Options, convert
from msg_ms.convert import (
    ConversionError,
    check_buffers,
    convert_state_dict,
    export_state_dict,
    read_torch_file,
    write_torch_file,
)
from msg_ms.convert.detection_rules import DETECTION_RULES
from msg_ms.convert.model_shapes import Changes

pytestmark = pytest.mark.skipif(not (FOLDER / "mmdet_checkpoint.pth").exists(), reason="the folder has no checkpoint")


def checkpoint() -> dict[str, np.ndarray]:
    return read_torch_file(FOLDER / "mmdet_checkpoint.pth", None).state


def test_checkpoint_fills_the_detector_and_equals_the_vectors():
    state, stored = checkpoint(), vectors("params").arrays
    expected = {name: p.shape for name, p in parameters_by_name(detector().get_parameters()).items()}
    converted = convert_state_dict(state, expected, DETECTION_RULES)
    check_buffers(state, converted, DETECTION_RULES)
    assert set(stored) == set(export_state_dict(converted, buffers=False, rules=DETECTION_RULES))
    for name, value in stored.items():
        assert np.array_equal(state[name].astype(np.float32), value), name


def test_round_trip_is_bit_exact():
    state = checkpoint()
    back = export_state_dict(convert_state_dict(state, rules=DETECTION_RULES), rules=DETECTION_RULES)
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype and back[name].shape == value.shape, name
        assert back[name].tobytes() == value.tobytes(), name


def test_a_detector_without_mask_heads_is_converted_both_ways(tmp_path, capsys):
    state = {name: value for name, value in checkpoint().items() if "mask_head" not in name}
    write_torch_file(tmp_path / "boxes.pth", state)
    convert(tmp_path / "boxes.pth", tmp_path / "own.ckpt", Options(dtype="keep"))
    assert "Cascade R-CNN with" in capsys.readouterr().out
    assert not any("mask_head" in name for name in read_checkpoint(tmp_path / "own.ckpt")[0])
    convert(tmp_path / "own.ckpt", tmp_path / "back.pth", Options(reverse=True))
    back = read_torch_file(tmp_path / "back.pth", None).state
    assert set(back) == set(state)
    assert all(back[name].tobytes() == value.tobytes() for name, value in state.items())
    del state["rpn_head.rpn_cls.bias"]
    write_torch_file(tmp_path / "cut.pth", state)
    with pytest.raises(UserError, match=r"missing: rpn_head\.rpn_cls\.bias$"):
        convert(tmp_path / "cut.pth", tmp_path / "cut.ckpt", Options())


def test_count_of_batches_is_not_compared_and_other_buffers_are():
    state = checkpoint()
    counter = next(name for name in state if name.endswith("num_batches_tracked"))
    state[counter] = np.array(36 * 7330)
    converted = convert_state_dict(state, rules=DETECTION_RULES)
    check_buffers(state, converted, DETECTION_RULES)
    index = next(name for name in state if name.endswith("relative_position_index"))
    state[index] = state[index] + 1
    with pytest.raises(ConversionError, match="relative_position_index"):
        check_buffers(state, converted, DETECTION_RULES)


def test_unknown_and_missing_names_are_listed():
    state = checkpoint()
    expected = {name: value.shape for name, value in convert_state_dict(state, rules=DETECTION_RULES).items()}
    state["neck.extra.weight"] = state.pop("neck.fpn_convs.0.conv.weight")
    with pytest.raises(ConversionError, match=r"no rule for: neck\.extra\.weight; missing: neck\.fpn_convs\.0"):
        convert_state_dict(state, expected, DETECTION_RULES)


@pytest.mark.slow
def test_command_recognises_a_detector_and_converts_it_back(command, tmp_path):
    source = FOLDER / "mmdet_checkpoint.pth"
    done = command(
        "tools/convert_torch_ckpt.py", "--input", source, "--output", "own.ckpt", "--dtype", "keep", "--verify"
    )
    assert "Cascade Mask R-CNN" in done.stdout
    assert "num_batches_tracked" not in "".join(read_checkpoint(tmp_path / "own.ckpt")[0])
    command("tools/convert_torch_ckpt.py", "--input", "own.ckpt", "--output", "back.pth", "--reverse", "--verify")
    back = read_torch_file(tmp_path / "back.pth", None).state
    assert set(back) == set(checkpoint())
    assert all(back[name].tobytes() == value.tobytes() for name, value in checkpoint().items())


def test_command_refuses_a_detector_of_other_shapes(tmp_path):
    state = checkpoint()
    state["rpn_head.rpn_conv.weight"] = state["rpn_head.rpn_conv.weight"][:, :-1]
    write_torch_file(tmp_path / "cut.pth", state)
    with pytest.raises(UserError, match=r"rpn_head\.rpn_conv\.weight is"):
        convert(tmp_path / "cut.pth", tmp_path / "own.ckpt", Options())
    assert not (tmp_path / "own.ckpt").exists()


def test_command_refuses_options_for_classifiers(tmp_path):
    with pytest.raises(UserError, match="--num-classes: only for classifiers"):
        convert(FOLDER / "mmdet_checkpoint.pth", tmp_path / "own.ckpt", Options(changes=Changes(num_classes=3)))
