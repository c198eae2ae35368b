"""Compare inference with PyTorch, torch.compile and ONNX Runtime: python benchmarks/latency.py.

It needs the peers: pip install 'msg-ms[benchmarks]'. All peers use the same weights, images and number of threads.
Their outputs are compared before any timing. Rounds alternate between the peers. The results are ratios of medians.
"matrix products" is MindSpore's MatMul alone on the model's shapes.
"""

from __future__ import annotations

from rounds import main

from msg_ms.cli import run_command_line
from msg_ms.models.variants import VARIANTS

PEERS = ["torch.compile", "ONNX Runtime", "matrix products", "msg_ms composed"]

if __name__ == "__main__":
    defaults = dict(model=list(VARIANTS), batch=[1, 8], peers=PEERS, rounds=7)
    run_command_line(lambda: main("latency", "inference", PEERS, defaults))
