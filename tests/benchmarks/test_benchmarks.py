"""Every benchmark runs once, on the smallest sizes and for one round; peers that are missing are skipped by name."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
sys.path.insert(0, str(FOLDER))  # for the modules that benchmarks share
from installed import MODULES  # noqa: E402

DETECTOR = ["--model", "small", "--size", "64", "96", "--rounds", "1", "--threads", "1"]
CLASSIFIER = ["--model", "small", "--batch", "2", "--rounds", "1", "--threads", "1"]
# Arguments, a part of the last lines, and the peers that take part where they are installed.
RUNS: dict[str, tuple[list[str], str, list[str]]] = {
    "train_step": ([*CLASSIFIER, "--peers", "--output", "{folder}"], "training, small, batch 2", ["PyTorch eager"]),
    "data": (["--images", "16", "--batch", "8", "--rounds", "1"], '"eval"', ["PyTorch and timm"]),
    "coco_data": (["--images", "13", "--rounds", "1"], '"two_threads_over_one"', ["PyTorch DataLoader"]),
    "coco_evaluation": (["--folder", "{folder}", "--images", "10", "--detections", "20"], '"box_AP"', []),
}
COCO_SIZES = ["--images", "20", "--annotations", "150", "--val-images", "10", "--rounds", "1"]
SLOW_RUNS: dict[str, tuple[list[str], str, list[str]]] = {
    "latency": (
        [*CLASSIFIER, "--output", "{folder}"],
        "inference, small, batch 2",
        ["PyTorch eager", "torch.compile", "PyTorch bf16", "ONNX Runtime", "OpenVINO", "OpenVINO bf16"],
    ),
    "memory": (["--model", "small", "--batch", "2"], "same losses: True", []),
    "startup": (["--model", "small", "--rounds", "1", "--output", "{folder}"], "small: first start 1.00", []),
    "primitives": (["--levels", "O0"], "mindcv Swin", []),
    "coco_scale": (["--folder", "{folder}", *COCO_SIZES], '"images": 20', []),
    "detector": ([*DETECTOR, "--parts"], "post-processing", ["PyTorch eager", "torch.compile"]),
    "detector_networks": (DETECTOR, "msg_ms: ", ["PyTorch eager", "torch.compile", "OpenVINO from PyTorch"]),
    "detector_step": ([*DETECTOR, "--batch", "1"], "peak memory: ", ["PyTorch eager"]),
}
# Parts of others: processes that a benchmark starts, or peers.
PARTS = {
    "paper_code": "whole_runs",
    "peers": "rounds",
    "scaling": "data",
    "torch_detector_run": "test_whole_runs_of_a_detector_are_compared",
    "torch_detector_training": "tests/support/detection_learning.py",
    "whole_runs": "test_whole_runs_are_compared",
}


def is_program(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text("utf-8")


def test_every_benchmark_is_run_here():
    programs = {path.stem for path in FOLDER.glob("*.py") if is_program(path)}
    assert programs == {*RUNS, *SLOW_RUNS, *PARTS}


@pytest.mark.parametrize("name", [*RUNS, *SLOW_RUNS])
def test_help_names_the_options(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out


def run(name: str, folder: Path, arguments: list[str], expected: str, peers: list[str]) -> str:
    line = [sys.executable, str(FOLDER / f"{name}.py"), *(text.format(folder=folder) for text in arguments)]
    done = subprocess.run(
        line, capture_output=True, encoding="utf-8", cwd=folder, timeout=550, env={**os.environ, "PYTHONPATH": search()}
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert expected in done.stdout
    for peer in peers:
        missing = [module for module in MODULES[peer] if find_spec(module) is None]
        assert (f"{peer}: skipped, not installed: {', '.join(missing)}" in output) == bool(missing)
    return done.stdout


def search() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.mark.parametrize("name", RUNS)
def test_a_benchmark_runs(name, tmp_path):
    run(name, tmp_path, *RUNS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_a_long_benchmark_runs(name, tmp_path):
    run(name, tmp_path, *SLOW_RUNS[name])


@pytest.mark.slow
def test_whole_runs_are_compared(tmp_path):
    """Two seeds of one epoch by this package; the paper's code is not in the repository."""
    digits = tmp_path / "digits"
    subprocess.run([sys.executable, str(ROOT / "tools" / "make_digits.py"), str(digits)], check=True, cwd=ROOT)
    config = tmp_path / "short.yaml"
    config.write_text(f"BASE: [{ROOT}/configs/digits_p4_win4_64.yaml]\nTRAIN: {{EPOCHS: 1}}\n", encoding="utf-8")
    line = ["--cfg", str(config), "--data-path", str(digits), "--output", str(tmp_path / "runs"), "--seeds", "2"]
    first = run("whole_runs", tmp_path, line, "last top-1, 2 seeds: msg_ms ", [])
    assert run("whole_runs", tmp_path, line, "best top-1, 2 seeds: msg_ms ", []) == first  # finished runs are kept
    assert len(first.splitlines()) == 4 and "seed 1: best " in first


@pytest.mark.slow
def test_whole_runs_of_a_detector_are_compared(tmp_path):
    scenes = tmp_path / "scenes"
    make = [sys.executable, str(ROOT / "tools" / "make_scenes.py"), str(scenes), "--train", "8", "--val", "4"]
    subprocess.run(make, check=True, cwd=ROOT)
    config = tmp_path / "short.yaml"
    config.write_text(f"BASE: [{ROOT}/configs/coco/digits_scenes.yaml]\nTRAIN: {{EPOCHS: 1}}\n", encoding="utf-8")
    line = ["--cfg", str(config), "--data-path", str(scenes), "--output", str(tmp_path / "runs"), "--seeds", "1"]
    output = run("whole_runs", tmp_path, line, "last mask AP, 1 seeds: msg_ms ", ["PyTorch eager"])
    assert "best box AP, 1 seeds: msg_ms " in output
    if find_spec("torch") is not None:
        assert "difference" in output
