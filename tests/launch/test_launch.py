"""Distributed scripts on CPU: one-line errors, faults, restarts, and evaluation on any number of processes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from support.faults import node, run_fault, serve, two_nodes
from support.run_files import result
from support.script import Script
from support.small_run import CONFIG, write_images

from msg_ms import MSGTransformer
from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.launch.job import parse_integer, read_job
from msg_ms.models.build import build_model

SCRIPT = ROOT / "scripts" / "run_distribute_train.sh"


@pytest.fixture
def small(tmp_path):
    write_images(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG.replace("BATCH_SIZE: 4", "BATCH_SIZE: 2"), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "usage: bash scripts/run_distribute_train.sh DEVICE_NUM CONFIG DATA_PATH [flags...]"),
        (["two", "small.yaml", "data"], {}, "DEVICE_NUM=two: must be an integer of at least 1"),
        (["1000", "small.yaml", "data"], {}, "cores; at most 4 processes per core"),
        (["2", "none.yaml", "data"], {}, "none.yaml"),
        (["2", "small.yaml", "nowhere"], {}, "DATA_PATH=nowhere is not a directory"),
        (
            ["2", "small.yaml", "data"],
            {"NNODES": "2", "MASTER_ADDR": ""},
            "MASTER_ADDR is missing: with NNODES=2 each node needs",
        ),
        (["2", "small.yaml", "data"], {"NODE_RANK": "1"}, "NODE_RANK=1: must be less than NNODES=1; nodes are"),
        (["2", "small.yaml", "data"], {"MASTER_ADDR": "203.0.113.7"}, "use the first node's own address"),
        (["2", "small.yaml", "data"], {"DEVICE_TARGET": "Ascend"}, "this node has 0 Ascend devices (/dev/davinci*)"),
        (["2", "small.yaml", "data"], {"MSG_MS_THREADS": "many"}, "MSG_MS_THREADS=many: must be an integer from 1"),
        (["2", "small.yaml", "data"], {"LOG_DIR": "small.yaml/logs"}, "LOG_DIR=small.yaml/logs can't be written ("),
        (["2", "small.yaml", "data"], {"RANK_TABLE_FILE": "no.json"}, "RANK_TABLE_FILE=no.json does not exist"),
    ],
)
def test_errors_are_one_line(arguments, environment, message, small):
    done = subprocess.run(
        ["bash", SCRIPT, *arguments],
        cwd=small,
        env={**os.environ, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU", **environment},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_empty_variables_are_defaults(small, monkeypatch):
    names = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "LOG_DIR", "CLUSTER_TIMEOUT", "STOP_TIMEOUT",
             "RANK_TABLE_FILE", "DEVICE_TARGET", "MSG_MS_THREADS")  # fmt: skip
    monkeypatch.chdir(small)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    unset = read_job("train.py", "2", "small.yaml", "data", [])
    for name in names:
        monkeypatch.setenv(name, "")
    assert read_job("train.py", "2", "small.yaml", "data", []) == unset
    monkeypatch.setenv("MAX_RESTARTS", "")
    assert parse_integer("MAX_RESTARTS", 7) == 7


@pytest.mark.parametrize(
    "fault", ("killed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sighup", "sigterm")))
)
def test_a_fault_ends_the_job_and_a_rerun_resumes(fault, tmp_path):
    row = run_fault(fault, tmp_path)
    assert row.left == 0 and row.seconds < 60 and row.status == (1 if fault == "killed" else 75)
    assert row.again.startswith("resuming from ") and row.again.endswith("status 0")


@pytest.mark.slow
def test_a_job_that_is_stopped_while_it_compiles_is_stopped_and_has_not_failed(tmp_path):
    row = run_fault("stopped_while_compiling", tmp_path)
    assert row.status == 75 and row.left == 0 and row.seconds < 60
    assert row.reads.endswith("stopped before the first step; rerun the same command to resume")


@pytest.mark.slow
def test_a_signal_ends_the_waiting_for_other_nodes(small):
    script = Script(small, environment={"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}).start()
    script.wait_for("waiting for 1 of 2 nodes at MASTER_PORT=")
    script.process.send_signal(signal.SIGUSR1)
    assert script.end(10) == 75
    assert script.output.endswith("stopped before the first step; rerun the same command to resume\n")


@pytest.mark.slow
def test_a_killed_script_leaves_no_process(tmp_path):
    row = run_fault("script_killed", tmp_path)
    assert row.status == -signal.SIGKILL and row.left == 0 and row.again.startswith("resuming from ")


@pytest.mark.slow
def test_a_closed_terminal_stops_the_job_with_a_checkpoint(tmp_path):
    row = run_fault("terminal_closed", tmp_path)
    assert row.status == 75 and row.left == 0 and row.again.startswith("resuming from ")


@pytest.mark.slow
def test_a_second_job_in_the_same_folder_does_not_touch_the_first(tmp_path):
    row = run_fault("two_jobs", tmp_path)
    assert row.status == 2 and row.reads.startswith("error: LOG_DIR=logs is in use by another job")
    assert row.again.endswith("status 0")


def kill_one_worker(script: Script, draws: np.random.RandomState, steps: int) -> None:
    """Kill one of the processes after ``steps`` more lines about steps."""
    seen = script.output.count(", step ")
    while script.output.count(", step ") < seen + steps:
        assert script.process.poll() is None, script.output
        time.sleep(0.02)
    workers = script.workers()
    os.kill(workers[draws.randint(len(workers))], signal.SIGKILL)


def compare_with_restarts(folder, name, flags, kills, longest):
    draws = np.random.RandomState(1)
    script = Script(folder, flags=(*flags, "PRINT_FREQ", "1"), environment={"MAX_RESTARTS": str(kills)}).start()
    for number in range(kills):
        kill_one_worker(script, draws, 1 + draws.randint(longest))
        script.wait_for(f"restart {number + 1} of {kills} in")
    assert script.end(900) == 0, script.output
    shutil.move(folder / "out" / name / "default", folder / "out" / name / "killed")
    assert Script(folder, flags=(*flags, "PRINT_FREQ", "1")).start().end(900) == 0
    assert result(folder / "out" / name / "killed") == result(folder / "out" / name / "default")
    assert not script.processes()


@pytest.mark.slow
def test_a_job_with_a_killed_worker_restarts_to_the_same_weights(small):
    flags = ("--opts", "TRAIN.EPOCHS", "10", "SAVE_STEPS", "2")
    compare_with_restarts(small, "small", flags, kills=1, longest=10)


@pytest.mark.slow
def test_a_worker_killed_five_times(small):
    flags = ("--opts", "TRAIN.EPOCHS", "40", "SAVE_STEPS", "2", "AUG.MIXUP", "0.8")
    compare_with_restarts(small, "small", flags, kills=5, longest=20)


SERVICE = "10.96.0.1"


def mindcluster(number: int) -> dict[str, str]:
    """The variables of a pod of MindCluster: only the first one has its scheduler's own address."""
    return {
        "NNODES": "", "NODE_RANK": "", "MASTER_ADDR": "", "MASTER_PORT": "", "MS_SERVER_NUM": "0", "MS_WORKER_NUM": "2",
        "MS_LOCAL_WORKER": "1", "MS_NODE_RANK": str(number), "MS_SCHED_HOST": SERVICE if number else "10.77.0.1",
        "MS_SCHED_PORT": "2222", "MS_ROLE": "MS_WORKER" if number else "MS_SCHED", "NPU_POD": "true",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize(
    "variables",
    (
        lambda number: {},
        lambda number: {"MASTER_ADDR": "fd77::1"},
        pytest.param(
            lambda number: {"MASTER_ADDR": SERVICE},
            marks=pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables"),
        ),
        pytest.param(mindcluster, marks=pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables")),
    ),
    ids=("IPv4", "IPv6", "service", "MindCluster"),
)
def test_two_nodes_train_as_one(variables, small, monkeypatch):
    """Run the documented command in each of two network namespaces with their own addresses."""
    # One process per node would use all cores, and the number of threads changes the rounding of gradients.
    monkeypatch.setenv("MSG_MS_THREADS", "1")
    flags = ("--opts", "TRAIN.EPOCHS", "4")
    with two_nodes() as names:
        if shutil.which("iptables"):
            serve(names, SERVICE)
        nodes = [node(small, names[number], number, flags, **variables(number)) for number in (0, 1)]
        assert [script.end() for script in nodes] == [0, 0], nodes[0].output + nodes[1].output
    assert Script(small, flags=flags).start().end() == 0
    assert not list((small / "node1" / "out").glob("**/*.ckpt"))  # the first node's process writes for all
    assert result(small / "node0" / "out" / "small" / "default") == result(small / "out" / "small" / "default")


@pytest.mark.slow
def test_evaluation_of_1797_images_on_one_to_four_processes(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_digits.py", tmp_path / "digits"], check=True)
    for label in range(10):
        folder = tmp_path / "all" / "val" / str(label)
        folder.mkdir(parents=True)
        for part in ("train", "val"):
            for image in (tmp_path / "digits" / part / str(label)).iterdir():
                shutil.copy(image, folder / f"{part}-{image.name}")
    config = ROOT / "configs" / "digits_p4_win4_64.yaml"
    settings = load_config(config)
    model: MSGTransformer = build_model(settings.model, settings.data.img_size)
    write_checkpoint(tmp_path / "random.ckpt", to_numpy(parameters_by_name(model.get_parameters())))
    lines = set()
    for ranks in (1, 2, 3, 4):
        done = subprocess.run(
            ["bash", ROOT / "scripts" / "run_distribute_eval.sh", str(ranks), config, "all", "random.ckpt"],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU"},
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines.add(done.stdout.strip().splitlines()[-1])
    (line,) = lines
    print(line)
    assert line.endswith("on 1797 images")
