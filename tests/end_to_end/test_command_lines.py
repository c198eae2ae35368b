"""train.py and eval.py as processes: a run, its files, evaluation, resuming, and mistakes in one line."""

import csv
import hashlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.small_run import CONFIG, write_images

from msg_ms.checkpoint import read_checkpoint
from msg_ms.config import load_config
from msg_ms.engine.profiling import operators


@pytest.fixture
def run(command, tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")

    def start(script, *flags, status=0):
        return command(script, "--cfg", "small.yaml", "--data-path", "data", *flags, status=status)

    return start


def newest(folder: Path) -> Path:
    return max(folder.glob("ckpt_*.ckpt"))


def to_numpy(path: Path):
    return {name: value.tobytes() for name, value in read_checkpoint(path)[0].items()}


def check_profile(output: str, folder: Path):
    """The log has the waits and the ten most expensive operators of two steps, as in the profiler's file."""
    (line,) = [line for line in output.splitlines() if "profile of steps 2 to 3: " in line and "ms per step" in line]
    total, data, results = (float(number) for number in re.findall(r"([\d.]+) ms", line))
    assert 0 < data + results <= total
    (path,) = folder.glob("rank0/*/FRAMEWORK/cpu_op_type_info_0.csv")
    with path.open(encoding="utf-8") as file:
        rows = {row["op_type"]: row for row in csv.DictReader(file)}
    found = re.findall(r"\] (\S+) +(\d+) +([\d.]+) +[\d.]+%$", output, re.MULTILINE)
    times = [float(time) for _, _, time in found]
    assert len(found) == 10 and times == sorted(times, reverse=True) and times[0] > 0
    for name, calls, time in found:
        assert int(calls) % 2 == 0  # both steps run the same graph
        if name in rows:
            assert int(calls) == int(rows[name]["type_occurrences"])
            assert float(time) == pytest.approx(float(rows[name]["total_compute_time"]) / 2, abs=1e-3)
    # The matrix products of the patches and of the head are native kernels, which have their places as names.
    (details,) = folder.glob("rank0/*/FRAMEWORK/cpu_op_detail_info_0.csv")
    calls = {entry.name: entry.calls for entry in operators(details)}
    assert calls["matmul-MatMul/Custom-op0"] == 2 * 3
    assert sum(count for name, count in calls.items() if "Custom" in name) == int(rows["Custom"]["type_occurrences"])


def test_train_resume_and_evaluate(run, command, tmp_path):
    done = run("train.py", "--tag", "whole")
    folder = tmp_path / "output" / "small" / "whole"
    assert {f.name for f in folder.iterdir()} - {"tensorboard"} == {
        "best.ckpt",
        "ckpt_00000003.ckpt",
        "ckpt_00000006.ckpt",
        "config.yaml",
        "log_rank0.txt",
        ".lock",
        "metrics.jsonl",
    }
    whole_log = done.stdout
    assert "2/2: top-1" in done.stdout and done.stdout == (folder / "log_rank0.txt").read_text("utf-8")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [r["epoch"] for r in records] == [1, 2] and records[-1]["step"] == 6
    _, metadata = read_checkpoint(folder / "ckpt_00000006.ckpt")
    assert (metadata["epoch"], metadata["step"], metadata["score"]) == (2, 6, records[-1]["top1"])
    saved = load_config(folder / "config.yaml")
    assert saved.tag == "whole" and saved.data.data_path == "data" and saved.run_dir == folder.relative_to(tmp_path)

    # The same run in two sittings ends with the same bits.
    run("train.py", "--tag", "halves", "--opts", "TRAIN.EPOCHS", "1", "TRAIN.LR_SCHEDULER.NAME", "step")
    first = tmp_path / "output" / "small" / "halves" / "ckpt_00000006.ckpt"
    done = run("train.py", "--tag", "halves", "--opts", "TRAIN.LR_SCHEDULER.NAME", "step")
    assert "ckpt_00000003.ckpt: epoch 1, step 3" in done.stdout
    # ... and so does a profiled run.
    done = run("train.py", "--tag", "steps", "--profile", "2", "--opts", "TRAIN.LR_SCHEDULER.NAME", "step")
    check_profile(done.stdout, tmp_path / "output" / "small" / "steps" / "profile")
    assert to_numpy(first) == to_numpy(tmp_path / "output" / "small" / "steps" / "ckpt_00000006.ckpt")
    assert "all 2 epochs are finished" in run("train.py", "--tag", "whole").stdout

    best = folder / "best.ckpt"
    result = run("eval.py", "--resume", best).stdout
    # Exactly what validation printed when the checkpoint was saved: of equal accuracies, the one with the lower loss.
    r = max(records, key=lambda record: (record["top1"], -record["loss"]))
    metrics = f"top-1 {r['top1']:.2f}%, top-5 {r['top5']:.2f}%, loss {r['loss']:.4f} on 9 images"
    assert result.endswith(f"best.ckpt: {metrics}\n") and f"2: {metrics}; best top-1 {r['top1']:.2f}%" in whole_log
    assert f"top-1 {r['top1']:.2f}%" in run("train.py", "--eval", "--resume", best, "--batch-size", "5").stdout
    exported = command("tools/export_weights.py", "--input", best, "--output", "release").stdout
    (weights,) = (tmp_path / "release").iterdir()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (
        weights.name == f"small-{digest[:8]}.ckpt" and f"{weights.stat().st_size:,} bytes, sha256 {digest}" in exported
    )
    assert to_numpy(weights) == to_numpy(best)
    message = command("tools/export_weights.py", "--input", best, "--output", "release", "--ema", status=2).stderr
    assert "has no averaged weights; set TRAIN.EMA_DECAY in training" in message
    assert "images/s over 30 passes" in run("train.py", "--throughput", "--resume", best).stdout
    message = run("train.py", "--tag", "whole", "--batch-size", "6", "--opts", "TRAIN.EPOCHS", "3", status=2).stderr
    assert "run made 3 steps per epoch of 1 batch of 4 on 1 device with seed 0; this run would make 2 of" in message


@pytest.mark.parametrize("number", (signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)))
def test_a_signal_stops_after_a_step_and_the_same_command_resumes(number, run, tmp_path):
    flags = ["--opts", "TRAIN.EPOCHS", "12", "PRINT_FREQ", "1", "AUG.MIXUP", "0.8", "AUG.CUTMIX", "1.0"]
    line = [sys.executable, ROOT / "train.py", "--cfg", "small.yaml", "--data-path", "data", "--tag", "cut", *flags]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=tmp_path
    ) as process:
        for text in process.stdout:
            if "epoch 2/12, step 2/3" in text:  # in the middle of an epoch
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert process.returncode == 75, rest
    folder = tmp_path / "output" / "small" / "cut"
    assert "rerun the same command to resume" in rest and "Traceback" not in rest
    _, metadata = read_checkpoint(newest(folder))
    assert 5 <= metadata["step"] < 36
    run("train.py", "--tag", "cut", *flags)
    run("train.py", "--tag", "whole", *flags)
    whole = tmp_path / "output" / "small" / "whole"
    assert to_numpy(newest(folder)) == to_numpy(newest(whole))
    assert (folder / "metrics.jsonl").read_text("utf-8") == (whole / "metrics.jsonl").read_text("utf-8")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(run, tmp_path):
    message = run("train.py", "--opts", "TRAIN.BASE_LR", "1e30", "TRAIN.CLIP_GRAD", "0", status=2).stderr
    assert "has loss nan" in message or "has loss inf" in message
    folder = tmp_path / "output" / "small" / "default"
    files = (folder / "bad_batch.txt").read_text("utf-8").splitlines()
    assert len(files) == 4 and all((tmp_path / file).is_file() for file in files)
    assert "there is no checkpoint yet" in message or "the last checkpoint is" in message


def test_mistakes_are_one_line(run, tmp_path):
    for script, flags, message in (
        ("train.py", ["--opts", "TRAIN.EPOCH", "3"], "did you mean 'TRAIN.EPOCHS'"),
        ("train.py", ["--opts", "MODEL.NUM_CLASSES", "4"], "pass --opts MODEL.NUM_CLASSES 3"),
        ("train.py", ["--accumulation-steps", "4"], "12 samples, fewer than one batch of DATA.BATCH_SIZE=4 times 4"),
        ("train.py", ["--opts", "DATA.IMG_SIZE", "40"], "img_size=40 can't be cut"),
        ("train.py", ["--profile", "0"], "--profile 0: must be at least 1 step"),
        ("train.py", ["--profile", "3"], "has 3 steps, and the first step is not profiled; 2 is the most"),
        ("train.py", ["--profile", "1", "--eval"], "--profile is for training, not for --eval"),
        ("eval.py", [], "--resume is missing"),
        ("eval.py", ["--resume", "gone.ckpt"], "checkpoint gone.ckpt does not exist"),
        ("eval.py", ["--resume", "small.yaml"], "small.yaml is not a .ckpt"),
    ):
        assert message in run(script, *flags, status=2).stderr
    assert not list((tmp_path / "output").glob("**/*.ckpt"))
