"""Situations from real use: other data than before, damaged files, pipes, left-over environments, broken weights."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from support.run_files import result
from support.small_run import CONFIG, write_images

from msg_ms.checkpoint import read_checkpoint, write_checkpoint

FLAGS = ("--cfg", "small.yaml", "--data-path", "data")


def run(folder, script, *flags, status=0, **environment):
    line = [sys.executable, ROOT / script, *FLAGS, *flags]
    done = subprocess.run(
        line, cwd=folder, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data and a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    run(folder, "train.py")
    return folder


def test_other_classes_are_reported_in_evaluation_and_refused_by_a_resumed_run(trained, tmp_path):
    for name in ("data", "small.yaml", "output"):
        copy = shutil.copy if name == "small.yaml" else shutil.copytree
        copy(trained / name, tmp_path / name)
    for part in ("train", "val"):
        (tmp_path / "data" / part / "2").rename(tmp_path / "data" / part / "00")
    checkpoint = tmp_path / "output/small/default/best.ckpt"
    lines = run(tmp_path, "eval.py", "--resume", checkpoint).stderr
    assert "warning: " in lines and "the class folders of the data are not those that it was trained with" in lines
    assert "(1: 00 here, 1 there, 2: 1 here, 2 there)" in lines
    message = run(tmp_path, "train.py", "--opts", "TRAIN.EPOCHS", "3", status=2).stderr
    assert message.startswith("error: can't resume from") and "1: 00 here, 1 there" in message

    # The same classes again, but an image more.
    for part in ("train", "val"):
        (tmp_path / "data" / part / "00").rename(tmp_path / "data" / part / "2")
    shutil.copy(tmp_path / "data/train/0/0.png", tmp_path / "data/train/0/more.png")
    message = run(tmp_path, "train.py", "--opts", "TRAIN.EPOCHS", "3", status=2).stderr
    assert "had 12 training samples, and there are 13 now" in message


def test_an_epoch_is_saved_before_its_evaluation(trained, tmp_path):
    shutil.copytree(trained / "data", tmp_path / "data")
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    image = next((tmp_path / "data/val/1").iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    message = run(tmp_path, "train.py", status=2).stderr
    folder = tmp_path / "output/small/default"
    assert "can't evaluate" in message and [p.name for p in folder.glob("ckpt_*")] == ["ckpt_00000003.ckpt"]
    image.write_bytes(whole)
    assert "ckpt_00000003.ckpt: epoch 0, step 3" in run(tmp_path, "train.py").stdout
    assert result(folder) == result(trained / "output/small/default")


@pytest.mark.slow
def test_a_reader_of_the_log_may_leave(tmp_path, trained):
    line = f"{sys.executable} {ROOT / 'train.py'} {' '.join(FLAGS)} --output {tmp_path} 2>{tmp_path}/err | head -n 2"
    done = subprocess.run(["bash", "-c", line], cwd=trained, capture_output=True, encoding="utf-8", timeout=300)
    assert len(done.stdout.splitlines()) == 2 and "Logging error" not in (tmp_path / "err").read_text("utf-8")
    assert "training finished" in (tmp_path / "small/default/log_rank0.txt").read_text("utf-8")


@pytest.mark.slow
def test_broken_weights_and_left_over_variables(trained, tmp_path):
    arrays, metadata = read_checkpoint(trained / "output/small/default/best.ckpt")
    name = next(name for name in arrays if name.endswith("head.weight"))
    write_checkpoint(tmp_path / "nan.ckpt", {**arrays, name: np.full_like(arrays[name], np.nan)}, metadata)
    message = run(trained, "eval.py", "--resume", tmp_path / "nan.ckpt", status=2).stderr
    assert "model outputs are not finite (NaN/Inf)" in message
    best = trained / "output/small/default/best.ckpt"
    run(trained, "eval.py", "--resume", best, RANK_SIZE="")
    message = run(trained, "eval.py", "--resume", best, status=2, RANK_SIZE="8").stderr
    assert "can't join the job that the environment describes (RANK_SIZE=8)" in message and "unset" in message


@pytest.mark.slow
def test_throughput_needs_no_checkpoint(trained, tmp_path):
    flags = ("--throughput", "--local_rank", "0", "--output", tmp_path)  # the paper's launcher passes --local_rank
    lines = run(trained, "train.py", *flags).stdout
    assert "no checkpoint: the speed is that of a model with random weights" in lines
    assert "images/s over 30 passes, precision O0" in lines
