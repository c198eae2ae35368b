"""The configuration in a checkpoint: it replaces --cfg, a contradiction is refused, and nothing in it is trusted."""

import json
import sys

import numpy as np
import pytest
import yaml
from conftest import ROOT

from msg_ms import UserError
from msg_ms.checkpoint import config_of_checkpoint, read_checkpoint, read_metadata, stored_config, write_checkpoint
from msg_ms.cli import config_from_arguments, train_parser
from msg_ms.config import load_config, to_yaml
from msg_ms.data.images.class_names import default_class_names

DIGITS = ROOT / "configs" / "digits_p4_win4_64.yaml"
ARRAYS = {"norm.gamma": np.ones(3, np.float32)}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a run that other values than the YAML file's describe, on a device that is not here."""
    config = load_config(
        DIGITS,
        DATA__IMG_SIZE=128,
        TEST__CROP=True,
        DATA__DATA_PATH="/data",
        OUTPUT="/out",
        TAG="t",
        DEVICE_TARGET="Ascend",
        AMP_OPT_LEVEL="O2",
        MODEL__DROP_PATH_RATE=0.3,
    )
    path = tmp_path / "best.ckpt"
    write_checkpoint(path, ARRAYS, {"step": 3, "score": 0.1, "config": to_yaml(config)})
    return path


def test_the_metadata_are_read_without_the_arrays(checkpoint, tmp_path):
    assert read_metadata(checkpoint) == read_checkpoint(checkpoint)[1]
    write_checkpoint(tmp_path / "plain.ckpt", ARRAYS)
    write_checkpoint(tmp_path / "plain.safetensors", ARRAYS)
    assert read_metadata(tmp_path / "plain.ckpt") == read_metadata(tmp_path / "plain.safetensors") == {}
    assert stored_config(tmp_path / "plain.ckpt") is None
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cut.ckpt: damaged, or not a MindSpore checkpoint"):
        read_metadata(tmp_path / "cut.ckpt")


def test_a_checkpoint_needs_no_configuration_file(checkpoint):
    config = config_of_checkpoint(checkpoint)
    assert (config.model.num_classes, config.data.img_size, config.test.crop) == (10, 128, True)
    # The run's paths and device stay behind.
    assert (config.data.data_path, config.output, config.tag) == ("", "output", "default")
    assert (config.device_target, config.amp_opt_level) == ("", "")
    # --cfg overrides what it names, --opts and flags override both.
    config = config_of_checkpoint(checkpoint, DIGITS)
    assert (config.data.img_size, config.test.crop, config.model.drop_path_rate) == (64, False, 0.05)
    config = config_of_checkpoint(
        checkpoint, DIGITS, ("TEST.CROP", "True"), DATA__IMG_SIZE=32, MODEL__MSG__WINDOW_SIZE=2
    )
    assert (config.data.img_size, config.test.crop, config.model.msg.window_size) == (32, True, 2)


def test_a_file_that_describes_another_model_is_refused(checkpoint, tmp_path):
    other = yaml.safe_load(DIGITS.read_text(encoding="utf-8"))
    other["MODEL"]["NUM_CLASSES"], other["MODEL"]["DROP_PATH_RATE"] = 5, 0.4
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    with pytest.raises(UserError) as raised:
        config_of_checkpoint(checkpoint, tmp_path / "other.yaml")
    assert str(raised.value) == (
        f"{tmp_path}/other.yaml does not describe the model of {checkpoint}: MODEL.NUM_CLASSES is 5 there and 10 in "
        "the checkpoint; the checkpoint needs no --cfg"
    )
    for stored, asked in ((True, False), (False, True)):
        config = load_config(None, TASK="detection", MODEL__RCNN__MASKS=stored)
        write_checkpoint(tmp_path / "detector.ckpt", ARRAYS, {"config": to_yaml(config)})
        if stored:  # its boxes can be used alone
            assert not config_of_checkpoint(tmp_path / "detector.ckpt", {"MODEL.RCNN.MASKS": asked}).model.rcnn.masks
            continue
        with pytest.raises(UserError, match=r"MODEL.RCNN.MASKS is True there and False in the checkpoint"):
            config_of_checkpoint(tmp_path / "detector.ckpt", {"MODEL.RCNN.MASKS": asked})
    (tmp_path / "task.yaml").write_text("TASK: detection", encoding="utf-8")
    with pytest.raises(UserError, match="TASK is 'detection' there and 'classification' in the checkpoint"):
        config_of_checkpoint(checkpoint, tmp_path / "task.yaml")


def test_files_without_a_configuration_need_one(tmp_path):
    write_checkpoint(tmp_path / "old.ckpt", ARRAYS)
    with pytest.raises(UserError, match=r"old.ckpt stores no configuration, so --cfg is missing: name the YAML file"):
        config_of_checkpoint(tmp_path / "old.ckpt")
    assert config_of_checkpoint(tmp_path / "old.ckpt", DIGITS).data.img_size == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BASE: secret.yaml", "key BASE does not exist"),
        ("MODEL: !!python/object/apply:os.system ['touch run']", "best.ckpt: MODEL is a section"),
        ("MODEL: {NUM_CLASSES: many}", "best.ckpt: MODEL.NUM_CLASSES='many': must be a whole number"),
        ("MODEL: {NUM_CLASSES: -1}", "best.ckpt: MODEL.NUM_CLASSES='?-1"),
        ("MODEL: {CLASSES: 1}", "best.ckpt: key MODEL.CLASSES does not exist"),
        ("- a", "its configuration can't be read: expected keys with values"),
        ("[" * 5000, "its configuration can't be read"),
        ("{", "its configuration can't be read"),
    ],
)
def test_a_configuration_that_is_not_valid_is_refused(text, message, tmp_path):
    (tmp_path / "secret.yaml").write_text("MODEL: {NUM_CLASSES: 5}", encoding="utf-8")
    write_checkpoint(tmp_path / "best.ckpt", ARRAYS, {"config": text})
    with pytest.raises(UserError, match=message):
        config_of_checkpoint(tmp_path / "best.ckpt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1, 2]", "[" * 100_000])
def test_class_names_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="the class names in the checkpoint are no list of names"):
        default_class_names(2, text)


def test_the_flags_of_training(checkpoint, monkeypatch):
    def config(*flags):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, flags)])
        return config_from_arguments(train_parser().parse_args())

    config_ = config("--pretrained", checkpoint, "--opts", "MODEL.NUM_CLASSES", "4")
    assert (config_.model.num_classes, config_.model.pretrained) == (4, str(checkpoint))
    assert config_.data.img_size == 128
    # A new run from other weights is described by its own file alone.
    assert config("--pretrained", checkpoint, "--cfg", DIGITS).test.crop is False
    assert config("--resume", checkpoint, "--cfg", DIGITS).data.img_size == 64
    assert config("--opts", "MODEL.RESUME", checkpoint, "--eval").data.img_size == 128
    with pytest.raises(UserError, match=r"--cfg is missing; only a checkpoint \(--resume, --pretrained\) stores"):
        config("--data-path", "x")


def test_dictionaries_and_configurations_are_checked_like_files():
    tree = yaml.safe_load(DIGITS.read_text(encoding="utf-8"))
    assert load_config(tree) == load_config(DIGITS) == load_config(load_config(DIGITS))
    assert load_config({"DATA.IMG_SIZE": 128, "MODEL": {"MSG": {"DEPTHS": (1, 1, 1, 1)}}}).data.img_size == 128
    for bad, message in (
        ({"DATA": {"IMG_SIZE": "x"}}, "the configuration: DATA.IMG_SIZE='x': must be a whole number"),
        ({"DATA": {"IMG": 3}}, "the configuration: key DATA.IMG does not exist"),
        ({"DATA": 3}, "the configuration: DATA is a section; expected keys below it, found 3"),
        ({3: 4}, "the configuration: 3 is not a key"),
        ({"DATA": {"IMG_SIZE": 64}, "DATA.IMG_SIZE": 32}, "the configuration: DATA.IMG_SIZE appears twice"),
        ([1], r"the configuration is \[1\]: must be a file, a dictionary or a Config"),
        (json, "must be a file, a dictionary or a Config"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(bad)
