"""The shipped script for distributed training, started by a test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def other_processes() -> dict[int, tuple[Path, dict[str, str]]]:
    """The working folder and the environment of all other processes, by process number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid():
                pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                found[int(entry.name)] = (entry / "cwd").resolve(), dict(pair.partition("=")[::2] for pair in pairs)
    return found


@dataclass
class Script:
    """One of the shipped scripts at work, with everything that it printed."""

    folder: Path
    devices: str = "2"
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    terminal: int | None = None
    output: str = ""

    def start(self) -> Script:
        environment = {**os.environ, "DEVICE_TARGET": "CPU", "PYTHON": sys.executable, "MASTER_PORT": str(free_port())}
        line = ["bash", str(ROOT / "scripts" / "run_distribute_train.sh"), self.devices, "small.yaml", "data"]
        if self.namespace:
            line = ["ip", "netns", "exec", self.namespace, *line]
        if self.terminal is not None:  # setsid makes the terminal control the script's session
            line = ["setsid", "--ctty", "--wait", *line]
        self.process = subprocess.Popen(
            [*line, "--output", "out", *self.flags],
            cwd=self.folder,
            env={**environment, **self.environment},
            stdin=self.terminal,
            stdout=subprocess.PIPE if self.terminal is None else self.terminal,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        if self.terminal is None:
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{text!r} was not printed:\n{self.output}")
            time.sleep(0.05)

    def end(self, seconds: float = 300) -> int:
        status = self.process.wait(seconds)
        time.sleep(0.2)  # for the last lines
        return status

    def workers(self) -> dict[int, int]:
        """Process numbers by rank."""
        found = {}
        for pid, environment in self.processes().items():
            if environment.get("MS_ROLE") == "MS_WORKER" and os.getsid(pid) == pid:
                found[int(environment["RANK_ID"])] = pid
        return found

    def processes(self) -> dict[int, dict[str, str]]:
        """What lives of this job, but for the script itself."""
        own, found = self.folder.resolve(), other_processes()
        return {
            pid: environment
            for pid, (folder, environment) in found.items()
            if folder == own and pid != self.process.pid
        }
