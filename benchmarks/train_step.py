"""The training step (forward, backward, clipping, AdamW) side by side with PyTorch: python benchmarks/train_step.py.

As ``latency.py``: same weights, images, labels and threads; loss and gradient norm are compared before anything is
timed; rounds alternate; ratios of medians, and of peak memory.
"""

from __future__ import annotations

from rounds import main

from msg_ms.cli import run_command_line

PEERS = ["torch.compile", "msg_ms composed"]

if __name__ == "__main__":
    defaults = dict(model=["msg_tiny", "msg_small"], batch=[8], peers=[], rounds=5)
    run_command_line(lambda: main("train_step", "training", PEERS, defaults))
