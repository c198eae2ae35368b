"""Runs killed with SIGKILL at random moments end with the same bits as an undisturbed run."""

import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from support.run_files import result
from support.small_run import CONFIG, write_images


def start(cwd, tag, flags):
    line = [sys.executable, ROOT / "train.py", "--tag", tag, *flags, "--output", "out"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)


def compare(cwd, name, flags, kills, longest, seed=0):
    with start(cwd, "whole", flags) as process:
        text = process.stdout.read()
    assert process.returncode == 0, text
    draws = np.random.RandomState(seed)
    moments = []
    for _ in range(kills):
        steps, delay = draws.randint(longest), draws.uniform(0, 0.3)
        with start(cwd, "killed", flags) as process:
            for text in process.stdout:
                steps -= ", step " in text
                if steps < 0:
                    break
            time.sleep(delay)
            assert process.poll() is None, "ended before it was killed"
            process.kill()
        moments.append(text.strip()[22:52])
    with start(cwd, "killed", flags) as process:
        text = process.stdout.read()
    assert process.returncode == 0, text
    assert result(cwd / "out" / name / "killed") == result(cwd / "out" / name / "whole"), moments
    print(moments)


@pytest.mark.slow
def test_a_small_run_killed_three_times(tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    flags = ["--cfg", "small.yaml", "--data-path", "data", "--amp-opt-level", "O1", "--opts"]
    flags += ["TRAIN.EPOCHS", "12", "PRINT_FREQ", "1", "SAVE_STEPS", "2", "TRAIN.EMA_DECAY", "0.9", "AUG.MIXUP", "0.8"]
    compare(tmp_path, "small", flags, kills=3, longest=8)


@pytest.mark.slow
def test_six_epochs_of_the_demo_killed_twelve_times(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_digits.py", tmp_path / "digits"], check=True)
    flags = ["--cfg", ROOT / "configs" / "digits_p4_win4_64.yaml", "--data-path", "digits", "--opts"]
    flags += ["TRAIN.EPOCHS", "6", "PRINT_FREQ", "1", "SAVE_STEPS", "5"]
    compare(tmp_path, "digits_p4_win4_64", flags, kills=12, longest=40)
