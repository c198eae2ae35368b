"""Runs killed with SIGKILL at random moments end with the same bits as an undisturbed run."""

import subprocess
import sys

import pytest
from conftest import ROOT
from support.run_files import compare_killed
from support.small_run import CONFIG, write_images


@pytest.mark.slow
def test_a_small_run_killed_three_times(tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    flags = ["--cfg", "small.yaml", "--data-path", "data", "--amp-opt-level", "O1", "--opts"]
    flags += ["TRAIN.EPOCHS", "12", "PRINT_FREQ", "1", "SAVE_STEPS", "2", "TRAIN.EMA_DECAY", "0.9", "AUG.MIXUP", "0.8"]
    compare_killed(tmp_path, "small", flags, kills=3, longest=8)


@pytest.mark.slow
def test_six_epochs_of_the_demo_killed_twelve_times(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_digits.py", tmp_path / "digits"], check=True)
    flags = ["--cfg", ROOT / "configs" / "digits_p4_win4_64.yaml", "--data-path", "digits", "--opts"]
    flags += ["TRAIN.EPOCHS", "6", "PRINT_FREQ", "1", "SAVE_STEPS", "5"]
    compare_killed(tmp_path, "digits_p4_win4_64", flags, kills=12, longest=40)
