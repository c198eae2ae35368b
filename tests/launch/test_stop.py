"""Signals and ends: what is stopped, what is killed, and with which status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from msg_ms.engine.stop import STOPPED, StopRequest, stopped_status
from msg_ms.launch.signals import StoppedError, StopSignals

WORKER = ROOT / "msg_ms" / "launch" / "worker.py"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def test_a_stopped_run_has_its_own_status(monkeypatch, tmp_path):
    for name in ("MS_ROLE", "MSG_MS_STOP_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert stopped_status() == STOPPED == 75
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")  # msrun kills the others if a process fails
    assert stopped_status() == 0
    monkeypatch.setenv("MSG_MS_STOP_FILE", str(tmp_path / "stopped"))
    assert stopped_status() == 0 and (tmp_path / "stopped").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_under_a_launcher_a_signal_may_come_twice(number, monkeypatch):
    monkeypatch.setenv("MSG_MS_JOB", "mark")
    previous = signal.getsignal(number)
    try:
        with StopRequest() as stop:
            assert not stop.requested
            for _ in range(2):
                os.kill(os.getpid(), number)
            assert stop.requested
        os.kill(os.getpid(), number)  # while the process ends
    finally:
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        signal.signal(number, previous)


def test_only_a_second_ctrl_c_insists():
    with StopSignals() as signals:
        signals.check()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert signals.requested and not signals.insisted
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.insisted
        with pytest.raises(StoppedError):
            signals.pause(60)


def start(code, role, mark="mark", **arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(WORKER)],
        env={**os.environ, "MSG_MS_JOB": mark, "MS_ROLE": role},
        stdout=subprocess.PIPE,
        text=True,
        **arguments,
    )


# As msrun does: start a process with the stop signals blocked, write its number, and wait for it.
PARENT = """
import os, signal, subprocess, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
child = subprocess.Popen([sys.executable, sys.argv[1], "{script}", "--flag"], env={{**os.environ, {changed}}})
print(child.pid, flush=True)
print(child.wait(), flush=True)
"""
SCRIPT = """
import pathlib, sys, time
pathlib.Path(__file__).with_name("started").write_text(" ".join([*sys.argv, sys.path[0], __name__]))
time.sleep(60)
"""


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path / "script.py"


def alive(pid):
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
        return text.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("role", ("MS_WORKER", "MS_SCHED"))
def test_a_process_ends_with_its_parent(role, script):
    parent = start(PARENT.format(script=script, changed=""), role)
    child = int(parent.stdout.readline())
    wait_for(lambda: (script.parent / "started").exists())
    expected = f"{script} --flag {script.parent} __main__"
    wait_for(lambda: (script.parent / "started").read_text("utf-8") == expected)
    parent.kill()
    wait_for(lambda: not alive(child))


@pytest.mark.parametrize("number", SIGNALS)
def test_workers_receive_signals_and_the_scheduler_does_not(number, script):
    code = PARENT.format(script=script, changed="")
    processes = {role: start(code, role) for role in ("MS_WORKER", "MS_SCHED")}
    children = {role: int(process.stdout.readline()) for role, process in processes.items()}
    for process in processes.values():
        process.send_signal(number)  # to msrun too: it goes on waiting
    for child in children.values():
        os.kill(child, number)  # perhaps before the worker has unblocked it
    assert processes["MS_WORKER"].communicate()[0] == f"-{number.value}\n"
    assert alive(children["MS_SCHED"]) and processes["MS_SCHED"].poll() is None
    processes["MS_SCHED"].kill()
    wait_for(lambda: not alive(children["MS_SCHED"]))


def test_a_process_whose_parent_is_not_of_the_job_ends_at_once(script):
    parent = start(PARENT.format(script=script, changed='"MSG_MS_JOB": "other"'), "MS_WORKER")
    assert parent.communicate()[0].splitlines()[1] == "1" and not (script.parent / "started").exists()
