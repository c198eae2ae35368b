"""Comparison of finished runs."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from conftest import ROOT

from msg_ms.checkpoint import read_checkpoint


def result(folder: Path) -> tuple[dict[str, dict[str, bytes]], str]:
    """Return the bits of a run's last and best checkpoint, and its metrics."""
    newest = max(folder.glob("ckpt_*.ckpt"))
    files = {name: read_checkpoint(folder / name)[0] for name in (newest.name, "best.ckpt")}
    bits = {name: {n: v.tobytes() for n, v in arrays.items()} for name, arrays in files.items()}
    return bits, (folder / "metrics.jsonl").read_text("utf-8")


def _start(cwd, tag, flags):
    line = [sys.executable, ROOT / "train.py", "--tag", tag, *flags, "--output", "out"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=cwd)


def compare_killed(cwd, name, flags, kills, longest, seed=0):
    """Check that a run killed at random moments ends with the bits of an undisturbed one."""
    with _start(cwd, "whole", flags) as process:
        text = process.stdout.read()
    assert process.returncode == 0, text
    draws = np.random.RandomState(seed)
    moments = []
    for _ in range(kills):
        steps, delay = draws.randint(longest), draws.uniform(0, 0.3)
        with _start(cwd, "killed", flags) as process:
            for text in process.stdout:
                steps -= ", step " in text
                if steps < 0:
                    break
            time.sleep(delay)
            assert process.poll() is None, "ended before it was killed"
            process.kill()
        moments.append(text.strip()[22:52])
    with _start(cwd, "killed", flags) as process:
        text = process.stdout.read()
    assert process.returncode == 0, text
    assert result(cwd / "out" / name / "killed") == result(cwd / "out" / name / "whole"), moments
    print(moments)
