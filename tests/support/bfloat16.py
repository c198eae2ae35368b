"""Call the kernels in bfloat16 from NumPy, and make random stages for them. No MindSpore, so that a sanitizer can run.

``python bfloat16.py <library> <output.npz> <cases>`` runs random cases and saves the outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.kernels import Kernels, attention_case, normal_from  # noqa: E402

NATIVE, PORTABLE = "_bf16", "_bf16_portable"  # endings of the kernels' names
PARAMETERS = ("gamma", "beta", "qkv", "qkv_bias", "bias", "proj", "proj_bias", "gamma2", "beta2", "w1", "b1", "w2", "b2")
WEIGHTS = ("qkv", "proj", "w1", "w2")


def rounded(x: np.ndarray) -> np.ndarray:
    """Round to bfloat16, to the nearest, half to even; subnormal numbers become zero."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    result = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    result = np.where((bits & 0x7F800000) == 0, bits & 0x80000000, result)
    return result.astype(np.uint32).view(np.float32)


def portable_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return x w^T in the order of the instructions: of each pair the second number first, every step rounded."""
    x, weight = rounded(x), rounded(weight)
    total = np.zeros((len(x), len(weight)), np.float32)
    inner = x.shape[1]
    for k in range(0, inner, 2):
        for i in (k + 1, k):
            if i < inner:  # the product of two such numbers is exact in single precision
                total = (total + np.outer(x[:, i], weight[:, i])).astype(np.float32)
    return total


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def block_parameters(kernels: Kernels, suffix: str | None, weight: np.ndarray) -> np.ndarray:
    """Pack a weight in bfloat16, or in single precision if ``suffix`` is None."""
    outer, inner = weight.shape
    name, depth = ("pack_weight", inner) if suffix is None else ("pack_weight_bf16", (inner + 1) // 2)
    return kernels(name, [weight], [(round_up(outer, 64) * depth,)])[0]


def run_matmul(kernels: Kernels, suffix: str, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    packed = block_parameters(kernels, suffix, weight)
    return kernels(f"matmul{suffix}", [x, packed], [(len(x), len(weight))])[0]


def run_stage(kernels: Kernels, suffix: str | None, case: dict) -> np.ndarray:
    """Run the blocks of a case in bfloat16, or in single precision if ``suffix`` is None."""
    inputs = [case["x"], case["settings"]]
    for block in case["blocks"]:
        tokens = case["x"].shape[2]
        shape = (block["table"].shape[1] * tokens * round_up(tokens, 16),)
        (bias,) = kernels("pack_position_bias", [block["table"], block["msg_bias"]], [shape])
        for name in PARAMETERS:
            value = bias if name == "bias" else block[name]
            inputs.append(block_parameters(kernels, suffix, value) if name in WEIGHTS else value)
    name = "stage_packed" if suffix is None else f"stage{suffix}"
    return kernels(name, inputs, [case["x"].shape])[0]


def random_stages(count: int) -> Iterator[dict]:
    """Yield stages of two blocks with windows of different sizes."""
    for seed in range(count):
        rng = np.random.RandomState(seed)
        normal, blocks, case = normal_from(rng), [], None
        while case is None or case["qkv"].shape[1] // case["table"].shape[1] % 2:
            case = attention_case(rng)  # heads must have an even number of channels
        channels, heads = len(case["gamma"]), case["table"].shape[1]
        hidden = rng.randint(1, 4 * channels)
        for _ in range(2):
            blocks.append(
                dict(
                    gamma=1 + 0.1 * normal(channels),
                    beta=0.1 * normal(channels),
                    qkv=normal(3 * channels, channels) * channels**-0.5,
                    qkv_bias=0.1 * normal(3 * channels),
                    table=normal(*case["table"].shape),
                    msg_bias=normal(heads, 2, 1, 1),
                    proj=normal(channels, channels) * channels**-0.5,
                    proj_bias=0.1 * normal(channels),
                    gamma2=1 + 0.1 * normal(channels),
                    beta2=0.1 * normal(channels),
                    w1=normal(hidden, channels) * channels**-0.5,
                    b1=0.1 * normal(hidden),
                    w2=normal(channels, hidden) * hidden**-0.5,
                    b2=0.1 * normal(channels),
                )
            )
        settings = np.array([*case["settings"], heads], np.float32)
        yield dict(x=case["x"], settings=settings, blocks=blocks)


if __name__ == "__main__":
    kernels = Kernels(sys.argv[1])
    outputs = {}
    suffixes = [NATIVE, PORTABLE] if kernels.library.supports_bfloat16() else [PORTABLE]
    for suffix in suffixes:
        for i, case in enumerate(random_stages(int(sys.argv[3]))):
            outputs[f"stage{suffix}/{i}"] = run_stage(kernels, suffix, case)
        x = np.random.RandomState(0).standard_normal((301, 147)).astype(np.float32)
        outputs[f"matmul{suffix}"] = run_matmul(kernels, suffix, x, x[:70])
    np.savez(sys.argv[2], **outputs)
