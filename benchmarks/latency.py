"""Inference time side by side with PyTorch, in one run: python benchmarks/latency.py --model msg_tiny --batch 1.

Needs PyTorch: pip install 'msg-ms[torch]'. Both get the same weights and input, their outputs are compared before
anything is timed, and rounds alternate between them; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

THREADS = os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402

from msg_ms.cli import run_command_line  # noqa: E402
from msg_ms.convert import export_state_dict  # noqa: E402
from msg_ms.engine.device import setup_device  # noqa: E402
from msg_ms.errors import UserError  # noqa: E402
from msg_ms.models.variants import VARIANTS, create_model  # noqa: E402

TOLERANCE = 1e-4  # of logits whose magnitude is about 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Inference time of our model over PyTorch eager's, on CPU.")
    parser.add_argument("--model", choices=list(VARIANTS), default="msg_tiny")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    try:
        import torch
        from torch_msg import TorchMSGTransformer
    except ImportError:
        raise UserError("PyTorch is missing: pip install 'msg-ms[torch]'") from None

    setup_device("CPU", seed=0)
    torch.set_num_threads(int(THREADS))
    own = create_model(args.model).set_train(False)
    peer = TorchMSGTransformer(**VARIANTS[args.model]).eval()
    state = export_state_dict({p.name: p.asnumpy() for p in own.get_parameters()}, buffers=False)
    peer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()}, strict=True)
    images = np.random.RandomState(0).randn(args.batch, 3, 224, 224).astype(np.float32)
    ours, theirs = ms.Tensor(images), torch.from_numpy(images)

    def run_own() -> np.ndarray:
        return own(ours).asnumpy()

    def run_peer() -> np.ndarray:
        with torch.inference_mode():
            return peer(theirs).numpy()

    error = float(np.abs(run_own() - run_peer()).max())
    if error > TOLERANCE:
        raise UserError(f"the outputs differ by {error:.1e}; nothing was timed")
    times = interleave({"msg_ms": run_own, "torch eager": run_peer}, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{args.model}, batch {args.batch}, {THREADS} threads, {args.rounds} rounds, logits equal to {error:.1e}: "
        f"msg_ms takes {medians['msg_ms'] / medians['torch eager']:.2f} of PyTorch eager's time",
        file=sys.stderr,
    )
    print(json.dumps({"model": args.model, "batch": args.batch, "threads": int(THREADS), "seconds": medians}))


def interleave(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, round by round in turn, after two rounds that don't count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(-2, rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if n >= 0:
                times[name].append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    run_command_line(main)
