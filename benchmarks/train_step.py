"""The training step (forward, backward, clipping, AdamW) side by side with PyTorch: python benchmarks/train_step.py.

As ``latency.py``: same weights, images, labels and threads; loss and gradient norm are compared before anything is
timed; rounds alternate; ratios of medians, and of peak memory.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rounds import compare, save, show

from msg_ms.cli import run_command_line
from msg_ms.models.variants import VARIANTS

PEERS = ["msg_ms", "PyTorch eager", "torch.compile", "msg_ms composed"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a training step of our models and of their peers, on CPU.")
    parser.add_argument("--model", nargs="+", choices=list(VARIANTS), default=["msg_tiny", "msg_small"])
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS[:2], metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    peers = ["msg_ms", "PyTorch eager", *(p for p in args.peers if p not in ("msg_ms", "PyTorch eager"))]
    results = []
    for model in args.model:
        for batch in args.batch:
            results.append(compare(peers, "training", model, batch, args.threads, args.rounds))
            show(results[-1])
            save(results, args.output, "train_step")


if __name__ == "__main__":
    run_command_line(main)
