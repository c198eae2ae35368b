"""Compare inference with PyTorch, torch.compile, ONNX Runtime and OpenVINO: python benchmarks/latency.py.

It needs the peers: pip install 'msg-ms[benchmarks]'. All peers use the same weights, images and number of threads.
Their outputs are compared before any timing. Rounds alternate between the peers. The results are ratios of medians.
Each row shows the error against PyTorch in single precision beside the time: compare like with like. "bf16" is
bfloat16, only on CPUs with such instructions. "matrix products" is MindSpore's MatMul alone on the model's shapes.
"""

from __future__ import annotations

from rounds import main

from msg_ms.cli import run_command_line
from msg_ms.models.variants import VARIANTS

PEERS = [
    "torch.compile",
    "ONNX Runtime",
    "OpenVINO",
    "msg_ms bf16",
    "OpenVINO bf16",
    "PyTorch bf16",
    "matrix products",
    "msg_ms composed",
]

if __name__ == "__main__":
    defaults = dict(model=list(VARIANTS), batch=[1, 8], peers=PEERS, rounds=7)
    run_command_line(lambda: main("latency", "inference", PEERS, defaults))
