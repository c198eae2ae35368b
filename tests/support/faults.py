"""What happens when something of a distributed job fails: python tests/support/faults.py [name...] prints the table.

Each fault meets the shipped script on a small job of two CPU processes. The columns are the seconds from the fault to
the end of the script, its status, the processes of the job that are left, the message, and the result of starting it
again. ``node missing`` and ``other configuration`` need network namespaces, and so root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.script import Script  # noqa: E402
from support.small_run import CONFIG, write_images  # noqa: E402

EPOCHS = 20  # of a job: a fault in the second meets it long before its end

INJECTED = """
import ctypes, os, resource, threading, time
if os.environ.get("RANK_ID") == os.environ.get("FAULT_RANK") and os.environ.get("MS_ROLE") == "MS_WORKER":
    if os.environ["FAULT"] == "exception":
        def throw():
            while not os.path.exists("throw"):
                time.sleep(0.05)
            main = ctypes.c_ulong(threading.main_thread().ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(RuntimeError))
        threading.Thread(target=throw, daemon=True).start()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
"""


@dataclass
class Row:
    fault: str
    seconds: float
    status: int
    left: int
    reads: str
    again: str


def row(name: str, script: Script, since: float, again: str | None = None) -> Row:
    """The table's row for a script that is about to end; starts it again where ``again`` isn't given."""
    status = script.end()
    seconds = time.monotonic() - since
    left = len(script.processes())
    lines = [line for line in script.output.splitlines() if "error:" in line or "stopp" in line]
    reads = " / ".join(line.split("] ")[-1].strip() for line in lines[:3])
    if again is None:
        repeated = Script(script.folder, flags=script.flags).start()
        ended = repeated.end()
        lines = [line.split("] ")[-1] for line in repeated.output.splitlines() if "resuming from" in line]
        again = f"{lines[0] if lines else 'starts over'}; status {ended}"
    return Row(name, seconds, status, left, reads, again)


def running(folder: Path, **environment: str) -> Script:
    """A job in its second epoch."""
    script = Script(folder, environment=environment).start()
    script.wait_for(f"epoch 2/{EPOCHS}")
    return script


def killed(folder: Path) -> Row:
    script = running(folder)
    os.kill(script.workers()[1], signal.SIGKILL)
    return row("SIGKILL of rank 1", script, time.monotonic())


def stopped(folder: Path) -> Row:
    script = running(folder)
    os.kill(script.workers()[1], signal.SIGSTOP)
    return row("SIGSTOP of rank 1", script, time.monotonic())


def thrown(folder: Path) -> Row:
    (folder / "sitecustomize.py").write_text(INJECTED, encoding="utf-8")
    script = running(folder, FAULT="exception", FAULT_RANK="1", PYTHONPATH=str(folder))
    (folder / "throw").touch()
    return row("exception on rank 1", script, time.monotonic())


def full_disk(folder: Path) -> Row:
    (folder / "sitecustomize.py").write_text(INJECTED, encoding="utf-8")
    environment = dict(FAULT="disk", FAULT_RANK="0", PYTHONPATH=str(folder))
    script = Script(folder, flags=("--opts", "TRAIN.EPOCHS", "3"), environment=environment).start()
    return row("full disk on rank 0", script, time.monotonic())


def port_taken(folder: Path) -> Row:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        script = Script(folder, environment={"MASTER_PORT": str(other.getsockname()[1])}).start()
        return row("port taken", script, time.monotonic(), "the same, until the port is free")


def wrong_count(folder: Path) -> Row:
    script = Script(folder, environment={"DEVICE_TARGET": "GPU"}, devices="8").start()
    return row("8 GPUs asked of a node that has none", script, time.monotonic(), "the same")


def signalled(number: signal.Signals) -> Callable[[Path], Row]:
    def fault(folder: Path) -> Row:
        script = running(folder)
        script.process.send_signal(number)
        return row(f"{number.name} to the script", script, time.monotonic())

    return fault


def script_killed(folder: Path) -> Row:
    script = running(folder)
    script.process.kill()
    return row("SIGKILL of the script", script, time.monotonic())


def stopped_while_compiling(folder: Path) -> Row:
    script = Script(folder).start()
    script.wait_for("; compiling")
    time.sleep(1)
    script.process.send_signal(signal.SIGTERM)
    return row("SIGTERM while compiling", script, time.monotonic(), "starts from the beginning")


def terminal_closed(folder: Path) -> Row:
    """The script's output is a terminal that closes: SIGHUP, and all later writes fail."""
    ours, theirs = os.openpty()
    script = Script(folder, terminal=theirs).start()
    os.close(theirs)
    seen = b""
    while f"epoch 2/{EPOCHS}".encode() not in seen:
        seen += os.read(ours, 1000)
    os.close(ours)  # the kernel sends SIGHUP to the session that the terminal controls
    return row("closed terminal", script, time.monotonic())


def two_jobs(folder: Path) -> Row:
    """A second job is started in the first one's folder, with its own port, and would diverge."""
    first = running(folder)
    begin = time.monotonic()
    flags = ("--tag", "second", "--opts", "TRAIN.BASE_LR", "1e6", "TRAIN.CLIP_GRAD", "0")
    second = Script(folder, flags=flags).start()
    status = second.end()
    lines = [line for line in second.output.splitlines() if "error:" in line]
    seconds = time.monotonic() - begin
    assert first.process.poll() is None, first.output
    first.process.send_signal(signal.SIGTERM)
    result = row("a second job with the same LOG_DIR", first, begin, "")
    result.again = f"the first job continues; stopped later: status {result.status}"
    result.seconds, result.status, result.reads = seconds, status, " / ".join(lines)
    return result


def corrupt_image(folder: Path) -> Row:
    (folder / "data" / "train" / "0" / "1.png").write_bytes(b"not an image")
    script = Script(folder, flags=("--opts", "DATA.MAX_BAD_FILES", "0")).start()
    return row("corrupt image on one rank", script, time.monotonic(), "the same, until the file is fixed")


@contextlib.contextmanager
def two_nodes():
    """Two network namespaces that see each other as 10.77.0.1 and .2, fd77::1 and ::2; gives their names."""
    names = [f"msg{os.getpid()}{node}" for node in (0, 1)]
    run = lambda line: subprocess.run(line.split(), check=True, capture_output=True)  # noqa: E731
    try:
        for name in names:
            run(f"ip netns add {name}")
        run(f"ip link add veth0 netns {names[0]} type veth peer name veth0 netns {names[1]}")
        for node, name in enumerate(names):
            run(f"ip -n {name} addr add 10.77.0.{node + 1}/24 dev veth0")
            run(f"ip -n {name} addr add fd77::{node + 1}/64 dev veth0 nodad")
            run(f"ip -n {name} link set veth0 up")
            run(f"ip -n {name} link set lo up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def serve(names: list[str], address: str) -> None:
    """Let an address that no node has lead to the first node, as Kubernetes does for a service."""
    for name in names:
        subprocess.run(["ip", "-n", name, "route", "add", address, "dev", "veth0"], check=True)
        rule = f"iptables -t nat -A OUTPUT -d {address} -p tcp -j DNAT --to-destination 10.77.0.1"
        subprocess.run(["ip", "netns", "exec", name, *rule.split()], check=True)


def node(
    folder: Path, namespace: str, number: int, flags: tuple[str, ...] = (), devices: str = "1", **environment: str
) -> Script:
    """The script as node ``number`` of two, in a folder of its own."""
    own = folder / f"node{number}"
    if not own.exists():
        own.mkdir()
        shutil.copytree(folder / "data", own / "data")
        shutil.copy(folder / "small.yaml", own)
    environment = {
        "NNODES": "2", "NODE_RANK": str(number), "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "8118", **environment
    }  # fmt: skip
    return Script(own, devices, flags, environment, namespace).start()


def node_missing(folder: Path) -> Row:
    with two_nodes() as names:
        script = node(folder, names[0], 0, CLUSTER_TIMEOUT="20")
        return row("node missing (CLUSTER_TIMEOUT=20)", script, time.monotonic(), "the same, until the node is there")


def other_configuration(folder: Path) -> Row:
    with two_nodes() as names:
        begin = time.monotonic()
        first = node(folder, names[0], 0)
        second = node(folder, names[1], 1, ("--opts", "TRAIN.BASE_LR", "1e-3"))
        result = row("other configuration on one node", first, begin, "the same, until they agree")
        second.end()
        result.left += len(second.processes())
        return result


def node_killed(folder: Path) -> Row:
    with two_nodes() as names:
        first, second = node(folder, names[0], 0), node(folder, names[1], 1)
        first.wait_for(f"epoch 2/{EPOCHS}")
        begin = time.monotonic()
        os.kill(second.workers()[1], signal.SIGKILL)
        result = row("SIGKILL of the other node's process", first, begin, "both nodes: resumes")
        second.end()
        result.left += len(second.processes())
        return result


def disagreement(name: str, again: str, **second: str) -> Callable[[Path], Row]:
    """A wrong variable on the second node: the row has both nodes' messages, and the slower one's time."""

    def fault(folder: Path) -> Row:
        with two_nodes() as names:
            begin = time.monotonic()
            nodes = node(folder, names[0], 0), node(folder, names[1], 1, **second)
            results = [row(name, script, begin, again) for script in nodes]
            results[1].reads = " / ".join(result.reads for result in results)
            results[1].left += results[0].left
            return results[1]

    return fault


FAULTS: dict[str, Callable[[Path], Row]] = {
    "killed": killed,
    "stopped": stopped,
    "thrown": thrown,
    "full_disk": full_disk,
    "port_taken": port_taken,
    "wrong_count": wrong_count,
    "sigterm": signalled(signal.SIGTERM),
    "sigint": signalled(signal.SIGINT),
    "sighup": signalled(signal.SIGHUP),
    "terminal_closed": terminal_closed,
    "script_killed": script_killed,
    "stopped_while_compiling": stopped_while_compiling,
    "two_jobs": two_jobs,
    "corrupt_image": corrupt_image,
    "node_missing": node_missing,
    "other_configuration": other_configuration,
    "node_killed": node_killed,
    "other_count": disagreement("1 and 2 devices on two nodes", "the same, until they agree", devices="2"),
    "rank_forgotten": disagreement("NODE_RANK forgotten on one node", "the same, until it is set", NODE_RANK=""),
}


def run_fault(name: str, folder: Path) -> Row:
    write_images(folder)
    (folder / "small.yaml").write_text(
        CONFIG.replace("BATCH_SIZE: 4", "BATCH_SIZE: 2") + "SAVE_STEPS: 2\n", encoding="utf-8"
    )
    text = (folder / "small.yaml").read_text("utf-8").replace("EPOCHS: 2,", f"EPOCHS: {EPOCHS},")
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    return FAULTS[name](folder)


def main() -> None:
    for name in sys.argv[1:] or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            r = run_fault(name, Path(folder))
            print(f"| {r.fault} | {r.seconds:.0f} | {r.status} | {r.left} | {r.reads} | {r.again} |", flush=True)


if __name__ == "__main__":
    main()
