"""The interface of a task: one of another package, ``support/toy_task.py``, runs in all commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support import toy_task
from support.script import free_port

from msg_ms.checkpoint import read_checkpoint
from msg_ms.engine.stop import STOPPED

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
CKPT = "toy/default/best.ckpt"


def command_line(folder, *flags):
    """Return the command that trains in a folder."""
    (folder / "toy.yaml").write_text(toy_task.CONFIG, "utf-8")
    return [ROOT / "train.py", "--cfg", folder / "toy.yaml", "--data-path", folder, "--output", folder, *flags]


def run(*line, ranks=1, status=0, **variables):
    binaries = Path(sys.executable).parent
    launcher = [sys.executable]
    if ranks > 1:
        launcher = [binaries / "msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", "--join=True"]
        launcher.append(f"--master_port={free_port()}")
    environment = {**ENVIRONMENT, **variables, "PATH": f"{binaries}:{os.environ['PATH']}"}
    done = subprocess.run([*launcher, *line], env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(folder, *flags, **variables):
    return run(*command_line(folder, *flags), **variables)


def weights(folder):
    return {
        name: value.tobytes() for name, value in read_checkpoint(folder / "toy/default/ckpt_00000048.ckpt")[0].items()
    }


def without_time(line):
    return line.split("] ")[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return folder, train(folder)


def test_it_trains_with_named_losses_and_its_own_metric(whole):
    folder, output = whole
    assert "loss " in output and "(absolute " in output and "numbers/s" in output
    records = [json.loads(line) for line in (folder / "toy/default/metrics.jsonl").read_text("utf-8").splitlines()]
    assert records[0].keys() >= {"error", "train_loss", "train_loss/absolute", "lr", "primary"}
    assert records[-1]["error"] < 0.5 * records[0]["error"] and records[0]["primary"] == "error"
    # Lower is better here.
    assert f"best error {min(record['error'] for record in records):.4f}" in output


def test_it_resumes_after_sigkill_with_the_same_bits(whole, tmp_path):
    # The resumed run begins with a batch of the other width: the cached graphs must not be mixed up.
    options = ("--opts", "SAVE_STEPS", "1", "COMPILE_CACHE", str(tmp_path / "cache"))
    line = [sys.executable, *command_line(tmp_path, *options)]
    with subprocess.Popen(
        line, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        for text in process.stdout:
            if "epoch 2/4, step 7/" in text:
                process.kill()
                break
    output = train(tmp_path, *options)
    assert "resuming from" in output and "epoch 4/4" in output
    assert output.count("Use the compilation cache") == 4
    assert weights(tmp_path) == weights(whole[0])
    metrics = [(folder / "toy/default/metrics.jsonl").read_text("utf-8") for folder in (tmp_path, whole[0])]
    assert metrics[0] == metrics[1]


def test_a_signal_ends_evaluation_and_the_epoch_is_evaluated_again(whole, tmp_path):
    output = train(tmp_path, STOP_IN_EVALUATION="1", status=STOPPED)
    assert "epoch 1/4:" not in output and "stopped at step 12; the last checkpoint is" in output
    assert "epoch 0, step 12" in train(tmp_path)
    assert weights(tmp_path) == weights(whole[0])
    metrics = [(folder / "toy/default/metrics.jsonl").read_text("utf-8") for folder in (tmp_path, whole[0])]
    assert metrics[0] == metrics[1]


def test_an_undefined_metric_is_no_score_and_the_last_weights_are_kept(whole, tmp_path):
    output = train(tmp_path, "--opts", "TRAIN.EMA_DECAY", "0.9", UNDEFINED="1")
    assert "4/4: no metrics on 21 numbers: there is nothing to compare; error undefined, so the last weights" in output
    records = [json.loads(line) for line in (tmp_path / "toy/default/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [record["error"] for record in records] == [record["ema_error"] for record in records] == [None] * 4
    best = read_checkpoint(tmp_path / "toy/default/best.ckpt")[0]
    last = read_checkpoint(tmp_path / "toy/default/ckpt_00000048.ckpt")[0]
    assert best and all(value.tobytes() == last[name].tobytes() for name, value in best.items())
    line = train(tmp_path, "--eval", UNDEFINED="1")
    assert "best.ckpt: no metrics on 21 numbers: there is nothing to compare" in line
    assert "best error" in train(whole[0])  # a finished run with scores


def test_two_ranks_evaluate_as_one(whole):
    alone = train(whole[0], "--eval")
    together = train(whole[0], "--eval", ranks=2)
    (line,) = {without_time(line) for line in alone.splitlines() if "best.ckpt: error" in line}
    assert line.endswith("on 21 numbers") and line in {without_time(text) for text in together.splitlines()}


def test_it_is_evaluated_predicted_and_exported_by_the_commands(whole, tmp_path):
    folder, model = whole[0], ["--cfg", whole[0] / "toy.yaml", "--resume", whole[0] / CKPT]
    (line,) = [text for text in train(folder, "--eval").splitlines() if "best.ckpt: error" in text]
    assert without_time(line) in run(ROOT / "eval.py", *model, "--data-path", folder)
    (tmp_path / "a.txt").write_text("0.5", "utf-8")
    (tmp_path / "b.txt").write_text("half", "utf-8")
    files, sheet = [tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "sheet.png"
    output = run(ROOT / "tools/predict.py", *model, *files, "--picture", sheet, status=2)
    arrays, _ = read_checkpoint(folder / CKPT)
    assert f"a.txt: 0.5 -> {arrays['slope'][0] / 2 + arrays['offset'][0]:.3f}\n" in output
    assert "b.txt: can't be read: holds no number" in output and sheet.exists()
    output = run(ROOT / "tools/export.py", *model, "--output", tmp_path / "toy.mindir", "--batch-size", "4")
    assert "input    x, float32 4,3\noutput   y, float32 4\nchecked  0e+00" in output
    output = run(ROOT / "tools/predict.py", *model, *files, "--top-k", "2", status=2)
    assert output.splitlines()[-1] == "error: --top-k is not for numbers"


@pytest.mark.slow
def test_the_compile_cache_holds_every_shape(whole, tmp_path):
    options = ("--opts", "COMPILE_CACHE", str(tmp_path / "cache"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train(tmp_path / "one", *options)
    graphs = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.mindir")}
    assert len(graphs) == 4  # two widths, for training and for evaluation
    second = train(tmp_path / "two", *options)
    assert second.count("Use the compilation cache") == 4
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.mindir")} == graphs
    assert weights(tmp_path / "one") == weights(tmp_path / "two") == weights(whole[0])
