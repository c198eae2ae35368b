"""Frameworks in processes of their own, whose rounds alternate: what all benchmarks of detectors have."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from models import WITH_MASKS


def argument_parser(
    description: str, size: tuple[int, int], models: Sequence[str] = WITH_MASKS
) -> argparse.ArgumentParser:
    """Return a parser of the flags that all benchmarks of detectors have; ``size`` is the default of the images'."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--model", choices=list(models), default="cascade_mask_rcnn_msg_tiny")
    parser.add_argument("--size", type=int, nargs=2, default=size, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    return parser


class Child:
    """A framework's process, waiting for requests."""

    def __init__(self, name: str, data: str, args, script: Path):
        line = [sys.executable, str(script), "--child", name, "--data", data, "--model", args.model]
        line += ["--threads", str(args.threads), "--size", *map(str, args.size)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "GLOG_v": "3"}
        self.name, self.seconds = name, []
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=environment
        )

    def receive(self, key: str):
        for line in self.process.stdout:
            if line.startswith("{") and key in (message := json.loads(line)):
                return message[key]
        raise SystemExit(f"{self.name} failed")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def ask(self, key: str):
        self.process.stdin.write(key + "\n")
        self.process.stdin.flush()
        return self.receive(key)


def answer(first, requests: dict[str, Callable]) -> None:
    """Send the first result, then an answer to every request, and end the process."""
    print("\n" + json.dumps({"first": first}), flush=True)
    for line in sys.stdin:
        print("\n" + json.dumps({line.strip(): requests[line.strip()]()}), flush=True)
    os._exit(0)


def peak_mb() -> float:
    """Return the peak memory of this process since the last call."""
    (line,) = (x for x in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return int(line.split()[1]) / 1024


def timed(run: Callable) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def print_ratios(peers: list[Child]) -> None:
    own = statistics.median(peers[0].seconds)
    print(f"{peers[0].name}: {own:.3g} s")
    for peer in peers[1:]:
        rounds = f"(median of {len(peer.seconds)} rounds)"
        print(f"time: {own / statistics.median(peer.seconds):.2f} of that of {peer.name} {rounds}")
