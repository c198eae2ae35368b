"""Inference side by side with PyTorch, torch.compile and ONNX Runtime: python benchmarks/latency.py.

Needs the peers: pip install 'msg-ms[benchmarks]'. All get the same weights, images and number of threads; their
outputs are compared before anything is timed. Rounds alternate between them, and what counts are ratios of medians.
"matrix products" is MindSpore's MatMul alone on the model's shapes, the part that no kernel of ours can shorten.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rounds import compare, save, show

from msg_ms.cli import run_command_line
from msg_ms.models.variants import VARIANTS

PEERS = ["msg_ms", "PyTorch eager", "torch.compile", "ONNX Runtime", "matrix products", "msg_ms composed"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Inference time of our models and of their peers, on CPU.")
    parser.add_argument("--model", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    peers = ["msg_ms", "PyTorch eager", *(p for p in args.peers if p not in ("msg_ms", "PyTorch eager"))]
    results = []
    for model in args.model:
        for batch in args.batch:
            results.append(compare(peers, "inference", model, batch, args.threads, args.rounds))
            show(results[-1])
            save(results, args.output, "latency")


if __name__ == "__main__":
    run_command_line(main)
