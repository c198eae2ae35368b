"""Compare the training step (forward, backward, clipping, AdamW) with PyTorch: python benchmarks/train_step.py.

As in ``latency.py``, all peers use the same weights, images, labels and number of threads. Loss and gradient norm are
compared before any timing. The results are ratios of medians and of peak memory. In half precision msg_ms runs at O1,
with a loss scale in float16, and PyTorch with autocast.
"""

from __future__ import annotations

from rounds import main

from msg_ms.cli import run_command_line

PEERS = ["torch.compile", "msg_ms composed", "msg_ms bf16", "PyTorch bf16", "msg_ms fp16"]

if __name__ == "__main__":
    defaults = dict(model=["msg_tiny", "msg_small"], batch=[8], peers=[], rounds=5)
    run_command_line(lambda: main("train_step", "training", PEERS, defaults))
