"""Run peers round by round, each in its own process, and compare their medians."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from installed import installed
from models import CLASSIFIERS, classifier
from peers import Job

from msg_ms.errors import UserError

TOLERANCE = 1e-4  # absolute; logits, losses and norms are about 1
HALVES = ("bf16", "fp16")  # the last words of peers in half precision
HALF_TOLERANCE = 0.05  # of these peers; bfloat16 has an error of 0.004 at each rounding
NO_OUTPUT = ("matrix products",)  # peers that don't run the model
REFERENCE = "PyTorch eager"  # of times and of outputs; without PyTorch it is msg_ms
ALWAYS = [REFERENCE, "msg_ms"]


def main(name: str, task: str, peers: list[str], defaults: dict) -> None:
    """Run a benchmark's command line: optional ``peers`` beside ``ALWAYS``, and ``defaults`` of the options."""
    parser = argparse.ArgumentParser(description=f"Compare the time of {task} with peers, on CPU.")
    parser.add_argument("--model", nargs="+", choices=list(CLASSIFIERS))
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--peers", nargs="*", choices=peers, metavar="PEER", help=", ".join(peers))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.set_defaults(**defaults)
    args = parser.parse_args()
    peers, results = installed([*ALWAYS, *args.peers]), []
    for model in args.model:
        for batch in args.batch:
            results.append(compare(peers, task, model, batch, args.threads, args.rounds))
            show(results[-1])
            save(results, args.output, name)


class Process:
    """A peer's process, waiting for the next round."""

    def __init__(self, job: Job):
        self.job = job
        self.seconds: list[float] = []
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "GLOG_v": "3"}
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "peers.py"), json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            encoding="utf-8",
            env=environment,
        )
        self.first = np.array(self.receive("first"))

    def receive(self, key: str):
        for line in self.process.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                if key in message:
                    return message[key]
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        raise UserError(f"{self.job.peer} failed: {lines[-1] if lines else 'no message'}")

    def run(self, times: int) -> list[float]:
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        return self.receive("seconds")

    def end(self) -> float:
        """End the process and return its peak memory in MB."""
        self.process.stdin.close()
        peak = self.receive("peak_mb")
        self.process.wait(60)
        return peak


def prepare(folder: Path, model: str, batch: int) -> str:
    """Write the weights, images and labels that all peers use; return the path."""
    from msg_ms.convert import export_state_dict
    from msg_ms.engine.device import setup_device

    setup_device("CPU", 0)
    network = classifier(model)
    values = {p.name: p.asnumpy() for p in network.get_parameters()}
    rng = np.random.RandomState(0)
    arrays = {f"state/{name}": value for name, value in export_state_dict(values, buffers=False).items()}
    arrays["images"] = rng.randn(batch, 3, *network.img_size).astype(np.float32)
    arrays["labels"] = rng.randint(0, CLASSIFIERS[model].get("num_classes", 1000), batch).astype(np.int32)
    path = folder / f"{model}_{batch}.npz"
    np.savez(path, **arrays)
    return str(path)


def compare(peers: list[str], task: str, model: str, batch: int, threads: int, rounds: int) -> dict:
    """Return median seconds and peak memory of each peer; raise UserError if their outputs differ."""
    with tempfile.TemporaryDirectory() as folder:
        weights = prepare(Path(folder), model, batch)
        processes = [Process(Job(peer, task, model, batch, threads, weights)) for peer in peers]
    base, reference = processes[0].job.peer, processes[0].first
    errors = {}
    for process in processes:
        if process.job.peer in NO_OUTPUT:
            continue
        difference = np.abs(process.first - reference).max()
        error = float(difference / max(1.0, np.abs(reference).max()))
        if not error < (HALF_TOLERANCE if process.job.peer.endswith(HALVES) else TOLERANCE):
            raise UserError(f"{process.job.peer} and {base} differ by {error:.1e}; no timing")
        errors[process.job.peer] = float(difference / np.abs(reference).max())
    runs = 5 if batch == 1 and task == "inference" else 2
    for n in range(rounds + 1):
        for process in processes:
            # Warm up the threads and caches of a process that was asleep.
            process.run(1 if task == "training" else 3)
            seconds = process.run(runs)
            if n > 0:
                process.seconds += seconds
    result = {
        p.job.peer: {"seconds": statistics.median(p.seconds), "peak_mb": p.end(), "error": errors.get(p.job.peer)}
        for p in processes
    }
    return {
        "task": task,
        "model": model,
        "batch": batch,
        "threads": threads,
        "rounds": rounds,
        "cpu": cpu(),
        "peers": result,
    }


def cpu() -> str:
    """Return the type of this CPU, with the numbers of its generation: cloud machines hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    instructions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in fields.get("flags", "")]
    family, number = fields.get("cpu family", "?"), fields.get("model", "?")
    return f"{fields.get('model name', platform.machine())}, family {family}, model {number}, {' '.join(instructions)}"


def show(result: dict) -> None:
    """Print each peer's time and memory relative to the first one's, and its outputs' error."""
    peers = result["peers"]
    first = next(iter(peers))
    base = peers[first]
    print(
        f"{result['task']}, {result['model']}, batch {result['batch']}, "
        f"{result['threads']} threads, {result['rounds']} rounds, {result['cpu']}"
    )
    for name, value in peers.items():
        time, memory = value["seconds"] / base["seconds"], value["peak_mb"] / base["peak_mb"]
        error = "" if value["error"] is None else f", error {value['error']:.1e} of the largest output"
        print(f"  {name:16} {time:6.2f} of {first}'s time {memory:6.2f} of its peak memory{error}")
    for own, half in (("msg_ms", False), ("msg_ms bf16", True)):
        others = [
            v["seconds"]
            for k, v in peers.items()
            if not k.startswith("msg_ms") and k not in NO_OUTPUT and k.endswith("bf16") == half
        ]
        if own in peers and others:
            kind = " in bfloat16" if half else ""
            print(f"  {own}: {peers[own]['seconds'] / min(others):.2f} of the time of the fastest peer{kind}")
    if "matrix products" in peers:
        share = peers["matrix products"]["seconds"] / peers["msg_ms"]["seconds"]
        print(f"  MindSpore's MatMul alone, on the same shapes: {share:.0%} of msg_ms's time")
    print(flush=True)


def save(results: list[dict], folder: Path, name: str) -> None:
    """Write ``<name>.json`` and ``<name>.png`` to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        print(f"no plot: pip install 'msg-ms[plots]'; the numbers are in {folder / name}.json", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    peers = list(results[0]["peers"])
    figure, axes = pyplot.subplots(figsize=(2.2 * len(results) + 2, 4))
    for i, peer in enumerate(peers):
        heights = [r["peers"][peer]["seconds"] / r["peers"][peers[0]]["seconds"] for r in results]
        positions = np.arange(len(results)) + (i - len(peers) / 2 + 0.5) * 0.8 / len(peers)
        axes.bar(positions, heights, 0.8 / len(peers), label=peer)
    axes.set_xticks(range(len(results)), [f"{r['model']}\nbatch {r['batch']}" for r in results])
    axes.set_ylabel(f"time relative to {peers[0]}")
    axes.axhline(1, color="grey", linewidth=0.5)
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=120)
