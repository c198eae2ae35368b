"""The interface of a task: a second one, which shares nothing with classification, runs on the same engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from support.script import free_port

from msg_ms.checkpoint import read_checkpoint

SCRIPT = ROOT / "tests" / "support" / "toy_task.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def run(*arguments, ranks=1, **variables):
    binaries = Path(sys.executable).parent
    launcher = [sys.executable]
    if ranks > 1:
        launcher = [binaries / "msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", "--join=True"]
        launcher.append(f"--master_port={free_port()}")
    environment = {**ENVIRONMENT, **variables, "PATH": f"{binaries}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*launcher, SCRIPT, *arguments], env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def weights(folder):
    return {
        name: value.tobytes() for name, value in read_checkpoint(folder / "toy/default/ckpt_00000048.ckpt")[0].items()
    }


def without_time(line):
    return line.split("] ")[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return folder, run(folder)


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
    options = ("SAVE_STEPS", "1", "COMPILE_CACHE", str(tmp_path / "cache"))
    line = [sys.executable, SCRIPT, tmp_path, *options]
    with subprocess.Popen(
        line, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        for text in process.stdout:
            if "epoch 2/4, step 7/" in text:
                process.kill()
                break
    output = run(tmp_path, *options)
    assert "resuming from" in output and "epoch 4/4" in output
    assert output.count("Use the compilation cache") == 4
    assert weights(tmp_path) == weights(whole[0])
    metrics = [(folder / "toy/default/metrics.jsonl").read_text("utf-8") for folder in (tmp_path, whole[0])]
    assert metrics[0] == metrics[1]


def test_a_signal_ends_evaluation_and_the_epoch_is_evaluated_again(whole, tmp_path):
    output = run(tmp_path, STOP_IN_EVALUATION="1")
    assert "epoch 1/4:" not in output and "stopped at step 12; the last checkpoint is" in output
    assert "epoch 0, step 12" in run(tmp_path)
    assert weights(tmp_path) == weights(whole[0])
    metrics = [(folder / "toy/default/metrics.jsonl").read_text("utf-8") for folder in (tmp_path, whole[0])]
    assert metrics[0] == metrics[1]


def test_an_undefined_metric_is_no_score_and_the_last_weights_are_kept(whole, tmp_path):
    output = run(tmp_path, "TRAIN.EMA_DECAY", "0.9", UNDEFINED="1")
    assert "epoch 4/4: no metrics on 21 numbers: there is nothing to compare; error undefined, so best.ckpt" in output
    records = [json.loads(line) for line in (tmp_path / "toy/default/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [record["error"] for record in records] == [record["ema_error"] for record in records] == [None] * 4
    best = read_checkpoint(tmp_path / "toy/default/best.ckpt")[0]
    last = read_checkpoint(tmp_path / "toy/default/ckpt_00000048.ckpt")[0]
    assert best and all(value.tobytes() == last[name].tobytes() for name, value in best.items())
    line = run(tmp_path, "--eval", UNDEFINED="1")
    assert "best.ckpt: no metrics on 21 numbers: there is nothing to compare" in line
    assert "best error" in run(whole[0])  # a finished run with scores


def test_two_ranks_evaluate_as_one(whole):
    alone = run(whole[0], "--eval")
    together = run(whole[0], "--eval", ranks=2)
    (line,) = {without_time(line) for line in alone.splitlines() if "best.ckpt: error" in line}
    assert line.endswith("on 21 numbers") and line in {without_time(text) for text in together.splitlines()}


@pytest.mark.slow
def test_the_compile_cache_holds_every_shape(whole, tmp_path):
    options = ("COMPILE_CACHE", str(tmp_path / "cache"))
    run(tmp_path / "one", *options)
    graphs = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.mindir")}
    assert len(graphs) == 4  # two widths, for training and for evaluation
    second = run(tmp_path / "two", *options)
    assert second.count("Use the compilation cache") == 4
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.mindir")} == graphs
    assert weights(tmp_path / "one") == weights(tmp_path / "two") == weights(whole[0])
