"""Which peers a benchmark can compare with on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec

# The modules that each peer needs; the others need msg_ms alone.
MODULES: dict[str, tuple[str, ...]] = {
    "PyTorch eager": ("torch",),
    "torch.compile": ("torch",),
    "PyTorch bf16": ("torch",),
    "ONNX Runtime": ("torch", "onnx", "onnxruntime"),
    "OpenVINO": ("openvino", "onnx"),
    "OpenVINO bf16": ("openvino", "onnx"),
    "OpenVINO from PyTorch": ("openvino", "torch"),
    "OpenVINO from PyTorch bf16": ("openvino", "torch"),
    "PyTorch and timm": ("torch", "torchvision", "timm"),
    "PyTorch DataLoader": ("torch",),
}


def installed(peers: Iterable[str]) -> list[str]:
    """Return the peers whose modules are installed, and print why the others are skipped."""
    present = []
    for peer in peers:
        missing = [module for module in MODULES.get(peer, ()) if find_spec(module) is None]
        if missing:
            print(f"{peer}: skipped, not installed: {', '.join(missing)}", file=sys.stderr, flush=True)
        else:
            present.append(peer)
    return present
