"""Measure the start with many files: python benchmarks/first_batch.py --files 1331000 --before <older checkout>.

It makes links to small images in 1,000 class folders and writes the same images as tar files. Then it measures, on one
rank and on several, the seconds from the creation of the data set to the first training batch, and the memory of each
rank: what is added to its resident memory (RSS), to its share of all memory (PSS), and to its peak meanwhile. Layouts
and versions alternate. The device is the CPU, and the page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scan import make_files

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ("seconds", "rss_mb", "pss_mb", "peak_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory until the first training batch.")
    parser.add_argument("--files", type=int, default=133_100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="rounds before, which are not counted")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an older version of the repository")
    parser.add_argument("--folder", type=Path, help="where the files are made, and found again: by default temporary")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(*args.child)
    elif args.folder:
        compare(args, args.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Make the files that are missing, measure in turn, and print medians."""
    if not (folder / "files").is_dir():
        make_files(folder / "files", args.files)
    if not (folder / "tars").is_dir():
        line = [sys.executable, ROOT / "tools" / "make_tar_files.py", folder / "files", folder / "tars"]
        subprocess.run(line, check=True, env=environment(ROOT))
    cases = {"folders": (ROOT, "files"), "tar files": (ROOT, "tars")}
    if args.before:
        cases = {"folders, before": (args.before.resolve(), "files"), **cases}
    for ranks in args.ranks:
        results: dict[str, list] = {case: [] for case in cases}
        for turn in range(-args.warm_up, args.rounds):
            for case, (checkout, kind) in cases.items():
                figures = run(ranks, checkout, folder / kind)
                print(turn, case, figures, file=sys.stderr, flush=True)
                results[case] += [figures] if turn >= 0 else []
        for case, rounds in results.items():
            figures = {name: statistics.median(row[name] for row in rounds) for name in FIGURES}
            print(json.dumps({"case": case, "ranks": ranks, **figures}), flush=True)


def environment(checkout: Path) -> dict[str, str]:
    """Return an environment that imports the package of a checkout."""
    binaries = Path(sys.executable).parent
    return {**os.environ, "PYTHONPATH": str(checkout), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}


def run(ranks: int, checkout: Path, data: Path) -> dict[str, float]:
    """Return the figures of one job: the seconds of its slowest rank, and the mean memory of a rank."""
    with tempfile.TemporaryDirectory() as results:
        launcher = ["msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", "--join=True"]
        launcher.append(f"--master_port={free_port()}")
        line = [*(launcher if ranks > 1 else [sys.executable]), __file__, "--child", data.resolve(), results]
        done = subprocess.run(line, capture_output=True, text=True, cwd=results, env=environment(checkout), timeout=200)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        rows = [json.loads(path.read_text()) for path in Path(results).glob("rank*.json")]
    reduce = dict.fromkeys(FIGURES, statistics.mean) | {"seconds": max}
    return {name: round(reduce[name]([row[name] for row in rows]), 2) for name in FIGURES}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(data: str, results: str) -> None:
    """Write the figures of this process; it uses functions only that both versions have."""
    from msg_ms.config import load_config
    from msg_ms.data import Shard
    from msg_ms.engine.device import setup_device
    from msg_ms.engine.runtime import check_same_job
    from msg_ms.tasks.classification import ClassificationTask

    _, ranks = setup_device("CPU", 0)
    config = load_config(None, DATA__DATA_PATH=data, DATA__BATCH_SIZE=64, DATA__IMG_SIZE=64)
    ranks.gather([0])  # compiled before the clock starts, and the ranks start together
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begin = memory(), time.perf_counter()
    task = ClassificationTask(config)
    if hasattr(task, "prepare"):
        task.prepare(ranks)
    check_same_job(ranks, config, task.fingerprint())
    batches = task.train_data(Shard(ranks.rank, ranks.world_size), workers=1).batches(0, 1)
    next(batches)
    seconds = time.perf_counter() - begin
    ranks.gather([0])  # shared memory is shared by all while it is measured
    after = memory()
    ranks.gather([0])
    added = {name: round(after[name] - before[name], 1) for name in ("rss_mb", "pss_mb")}
    added["peak_mb"] = round(after["peak_mb"] - before["rss_mb"], 1)
    Path(results, f"rank{ranks.rank}.json").write_text(json.dumps({"seconds": seconds, **added}))
    batches.close()


def memory() -> dict[str, float]:
    """Return this process's memory in MB."""
    lines = [
        *Path("/proc/self/smaps_rollup").read_text().splitlines(),
        *Path("/proc/self/status").read_text().split("\n"),
    ]
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return {name: int(values[key]) / 1024 for name, key in (("rss_mb", "Rss"), ("pss_mb", "Pss"), ("peak_mb", "VmHWM"))}


if __name__ == "__main__":
    main()
