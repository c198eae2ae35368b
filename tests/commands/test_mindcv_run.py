"""The launcher of mindcv's scripts: set-up, errors, and mindcv's own train.py and validate.py.

Tests of mindcv's scripts need a clone of mindcv 0.3.0 at the path in MSG_MS_MINDCV, and one of 0.5.0, the head of its
repository, in MSG_MS_MINDCV_NEWEST.
"""

import os
import re
import sys
from pathlib import Path

import cv2
import mindcv
import numpy as np
import pytest
import yaml
from conftest import ROOT

from msg_ms import UserError
from msg_ms.commands.mindcv_run import is_supported, main

CLONE = os.environ.get("MSG_MS_MINDCV")
NEWEST_CLONE = os.environ.get("MSG_MS_MINDCV_NEWEST")
needs_clone = pytest.mark.skipif(CLONE is None, reason="MSG_MS_MINDCV is not set to a clone of mindcv 0.3.0")
SCRIPT = """
import sys
import mindcv
from helper import WORD
print(__name__, WORD, sys.argv[1:], mindcv.is_model("msg_tiny"))
"""


@pytest.fixture
def clone(tmp_path):
    """A folder like a clone: a script that imports a module beside it, and the package's version."""
    (tmp_path / "clone" / "mindcv").mkdir(parents=True)
    (tmp_path / "clone" / "mindcv" / "version.py").write_text('__version__ = "0.3.0"\n', encoding="utf-8")
    (tmp_path / "clone" / "helper.py").write_text('WORD = "neighbour"\n', encoding="utf-8")
    (tmp_path / "clone" / "script.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path / "clone"


@pytest.fixture
def launch(monkeypatch):
    """Call the launcher in this process, and restore path and modules."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["mindcv_run", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.delitem(sys.modules, "config", raising=False)
        main()

    yield run
    sys.modules.pop("config", None)


def test_a_script_runs_as_python_runs_it_with_the_models_registered(clone, command):
    done = command("tools/mindcv_run.py", clone / "script.py", "--config", "x.yaml", "--help")
    first, second = done.stdout.splitlines()
    assert second == "__main__ neighbour ['--config', 'x.yaml', '--help'] True"
    assert f"script.py with mindcv 0.3.0 of {Path(mindcv.__file__).parent}" in first
    message = command("tools/mindcv_run.py", clone / "gone.py", status=2).stderr
    assert (
        "gone.py does not exist; mindcv's scripts are in a clone, not in its wheel: git clone --branch v0.3.0"
        in message
    )


def test_errors_before_the_script_starts(clone, launch, monkeypatch):
    (clone / "mindcv" / "version.py").write_text('__version__ = "0.5.0"\n', encoding="utf-8")
    both = r"script.py belongs to mindcv 0.5.0, but 0.3.0 is installed: git -C .*clone checkout v0.3.0 or pip install "
    with pytest.raises(UserError, match=both + r"--no-deps -e .*clone$"):
        launch(clone / "script.py")
    (clone / "mindcv" / "version.py").write_text('__version__ = "0.2.2"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"belongs to mindcv 0.2.2, but 0.3.0 is installed: git -C .* checkout v0.3.0$"):
        launch(clone / "script.py")
    (clone / "mindcv" / "version.py").unlink()
    with pytest.raises(UserError, match=r"script.py is not in the root of a clone of mindcv"):
        launch(clone / "script.py")
    with monkeypatch.context() as patch:
        patch.setattr(mindcv, "__version__", "0.2.2")
        with pytest.raises(UserError, match=r"mindcv 0.2.2 is installed; 0.3.0 to 0.5.0 are supported: pip install"):
            launch(clone / "script.py")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mindcv", None)
        with pytest.raises(UserError, match=r"mindcv is not installed: pip install mindcv==0.3.0"):
            launch(clone / "script.py")


@pytest.mark.parametrize("name", ["msg_tiny", "msg_small", "msg_base", "msg_tiny_digits"])
def test_configurations_name_models_and_use_1024_images_per_step(name):
    text = (ROOT / "configs" / "mindcv" / f"{name}.yaml").read_text("utf-8")
    config = yaml.safe_load(text)
    assert mindcv.is_model(config["model"]) and name.startswith(config["model"])
    assert config["warmup_epochs"] + config["decay_epochs"] == config["epoch_size"]
    devices = re.search(r"times (\d+) devices: 1,024", text)
    assert name == "msg_tiny_digits" or config["batch_size"] * int(devices[1]) == 1024


@needs_clone
@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "gone.yaml"], "--config gone.yaml does not exist"),
        (["--config", "odd.yaml"], "odd.yaml: modell does not exist in ArgumentParser!"),
        (["--model", "msg_tny"], "unknown model 'msg_tny'; did you mean 'msg_tiny'"),
        (["--model", "msg_tiny", "--ckpt_path", "gone.ckpt"], "gone.ckpt does not exist; mindcv would continue with"),
        (["--model", "msg_tiny", "--val_amp_level", "O2"], "--val_amp_level O2: mindcv's mixed precision replaces"),
        (["--model", "msg_tiny", "--data_dir", "gone"], "--data_dir gone is not a directory"),
    ],
)
def test_errors_in_mindcvs_arguments(flags, message, launch, tmp_path):
    (tmp_path / "odd.yaml").write_text("modell: msg_tiny\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        launch(Path(CLONE) / "validate.py", *flags)


@needs_clone
@pytest.mark.slow
def test_settings_at_which_mindcvs_trainer_fails(launch, tmp_path):
    (tmp_path / "msg_tiny_best.ckpt").write_bytes(b"")
    for flags, message in (
        (
            ["--ckpt_path", "msg_tiny_best.ckpt"],
            r"reads the first epoch.*copy the file to msg_tiny-0_0.ckpt for epoch 0",
        ),
        (["--amp_level", "O2"], r"--amp_level O2: .* use O0, or train.py of msg_ms with --amp-opt-level O2"),
        (["--ema", "True", "--val_while_train", "True"], r"fails at the end of the first epoch; evaluate afterwards"),
    ):
        with pytest.raises(UserError, match=message):
            launch(Path(CLONE) / "train.py", "--model", "msg_tiny", *flags)


@needs_clone
@pytest.mark.slow
def test_every_key_of_the_configurations_is_mindcvs(monkeypatch):
    monkeypatch.setattr(sys, "path", [CLONE, *sys.path])
    monkeypatch.delitem(sys.modules, "config", raising=False)
    import config

    for path in sorted((ROOT / "configs" / "mindcv").glob("*.yaml")):
        args = config.parse_args(["--config", str(path)])
        assert (args.weight_decay, args.clip_value, args.lr <= 1e-3) == (0.05, 5.0, True)
    sys.modules.pop("config")


def test_versions():
    known = ("0.2.2", "0.3.0", "0.3.1", "0.4.0", "0.5.0", "0.5.1", "0.10.0", "1.0.0", "main")
    assert [version for version in known if is_supported(version)] == ["0.3.0", "0.3.1", "0.4.0", "0.5.0"]
    # A range, so that an installation does not replace a user's newer mindcv.
    assert '"mindcv>=0.3.0,<0.6"' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("version", ("0.3.0", "0.5.0"))
def test_mindcvs_own_scripts_train_and_validate_msg_tiny(version, command, tmp_path, monkeypatch):
    """Twenty images in two classes of brightness, two epochs, and the same accuracy from validate.py."""
    folder = CLONE if version == "0.3.0" else NEWEST_CLONE
    if folder is None:
        pytest.skip(f"no clone of mindcv {version}")
    # The clone's package goes before the installed one.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(folder).resolve()), str(ROOT)]))
    for part, count in (("train", 10), ("val", 5)):
        for label in (0, 1):
            (tmp_path / "data" / part / str(label)).mkdir(parents=True)
            for i in range(count):
                image = np.random.RandomState(i).randint(0, 100, (32, 32, 3)) + 150 * label
                cv2.imwrite(str(tmp_path / "data" / part / str(label) / f"{i}.png"), image.astype(np.uint8))
    flags = ["--data_dir", "data", "--num_classes", "2", "--batch_size", "5", "--ckpt_save_dir", "ckpt", "--config"]
    flags.append(ROOT / "configs" / "mindcv" / "msg_tiny_digits.yaml")
    # With 0.5.0 MindSpore compiles at its highest level, which needs minutes.
    done = command("tools/mindcv_run.py", Path(folder) / "train.py", *flags, timeout=2400)
    assert f"train.py with mindcv {version} of {Path(folder).resolve()}" in done.stdout
    rows = [line.split() for line in (tmp_path / "ckpt" / "result.log").read_text("utf-8").splitlines()]
    assert rows[0][:3] == ["Epoch", "TrainLoss", "Top_1_Accuracy"] and [row[0] for row in rows[1:]] == ["1", "2"]
    (newest,) = (tmp_path / "ckpt").glob("msg_tiny-2_*.ckpt")
    flags += ["--ckpt_path", newest]
    if version == "0.5.0":
        flags += ["--device_target", "CPU"]  # its default is Ascend
    done = command("tools/mindcv_run.py", Path(folder) / "validate.py", *flags, timeout=1200)
    accuracy = re.search(r"'Top_1_Accuracy': ([\d.]+)", done.stdout)
    assert abs(float(accuracy[1]) - float(rows[2][2].rstrip("%")) / 100) < 1e-6
