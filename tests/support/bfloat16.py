"""Call the kernels in bfloat16 from NumPy, and make random stages for them. No MindSpore, so that a sanitizer can run.

``python bfloat16.py <library> <output.npz> <cases>`` runs random cases and saves the outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.kernels import Kernels, attention_case, image_case, normal_from, token_case

PARAMETERS = (
    "gamma",
    "beta",
    "qkv",
    "qkv_bias",
    "bias",
    "proj",
    "proj_bias",
    "gamma2",
    "beta2",
    "w1",
    "b1",
    "w2",
    "b2",
)
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


def pack(kernels: Kernels, weight: np.ndarray, bfloat16: bool = True) -> np.ndarray:
    """Pack a weight in bfloat16 or in single precision."""
    outer, inner = weight.shape
    name, depth = ("pack_weight_bfloat16", (inner + 1) // 2) if bfloat16 else ("pack_weight", inner)
    return kernels(name, [weight], [(round_up(outer, 64) * depth,)])[0]


def run_matmul(kernels: Kernels, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return kernels("matmul_bfloat16", [x, pack(kernels, weight)], [(len(x), len(weight))])[0]


def run_stage(kernels: Kernels, case: dict, kept: int | None = None, bfloat16: bool = True) -> np.ndarray:
    """Run the blocks of a case in bfloat16 or in single precision.

    The last block computes the first ``kept`` tokens of every window, or all.
    """
    blocks = []
    for block in case["blocks"]:
        tokens = case["x"].shape[2]
        shape = (block["table"].shape[1] * tokens * round_up(tokens, 16),)
        pack_bias = "pack_position_bias_bfloat16" if bfloat16 else "pack_position_bias"
        (bias,) = kernels(pack_bias, [block["table"], block["msg_bias"]], [shape])
        values = {**block, "bias": bias}
        values |= {name: pack(kernels, block[name], bfloat16) for name in WEIGHTS}
        blocks.append([values[name].reshape(-1) for name in PARAMETERS])
    sizes = [len(value) for value in blocks[0]]
    settings = np.array([*case["settings"][:3], *sizes, *case["settings"][3:]], np.float32)
    joined = [np.concatenate([np.pad(value, (0, -len(value) % 16)) for value in block]) for block in blocks]
    inputs = [case["x"], settings, *joined]
    shape = list(case["x"].shape)
    shape[2] = kept or shape[2]
    return kernels("stage_bfloat16" if bfloat16 else "stage_packed", inputs, [tuple(shape)])[0]


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


def random_patches(count: int) -> Iterator[tuple[str, list[np.ndarray], tuple[int, int]]]:
    """Yield the name, the inputs (x, sizes, weight, bias, gamma, beta; messages to embed) and the output's shape."""
    for seed in range(count):
        rng = np.random.RandomState(seed)
        normal, out = normal_from(rng), rng.randint(1, 80)
        for name, case in (("embed", image_case(rng)), ("merge", token_case(rng))):
            rows, depth = case["dout"].shape
            weight, rest = normal(out, depth) * depth**-0.5, [normal(out), 1 + 0.1 * normal(out), normal(out)]
            if name == "embed":  # with the MSG tokens of a region, one for each window
                window, region = (int(side) ** 2 for side in case["sizes"][:2])
                rest, rows = [*rest, normal(region, out)], rows // window * (window + 1)
            yield name, [case["x"], case["sizes"], weight, *rest], (rows, out)


def run_patches(kernels: Kernels, name: str, inputs: list, shape: tuple[int, int]) -> np.ndarray:
    x, sizes, weight, *rest = inputs
    if name == "merge":  # the columns (C, 3, 3) of a Conv2d become (3, 3, C)
        weight = weight.reshape(len(weight), -1, 9).transpose(0, 2, 1).reshape(len(weight), -1)
    return kernels(f"{name}_bfloat16", [x, sizes, pack(kernels, weight), *rest], [shape])[0]


def expected_patches(kernels: Kernels, name: str, inputs: list, shape: tuple[int, int]) -> np.ndarray:
    """Return the result in single precision from the unfolded patches, rounded as the kernel rounds them."""
    x, sizes, weight, bias, gamma, beta = inputs[:6]
    kernel = {"embed": "image_patches", "merge": "token_patches"}[name]
    window, region = (int(side) ** 2 for side in sizes[:2])
    rows = shape[0] // (window + 1) * window if name == "embed" else shape[0]
    (patches,) = kernels(kernel, [x, sizes], [(rows, weight.shape[1])])
    y = rounded(patches).astype(np.float64) @ rounded(weight).astype(np.float64).T + bias
    y = y - y.mean(1, keepdims=True)
    y = y / np.sqrt((y**2).mean(1, keepdims=True) + 1e-5) * gamma + beta
    if name == "merge":
        return y
    messages = np.tile(inputs[6], (shape[0] // (window + 1) // region, 1))
    return np.concatenate((messages[:, None], y.reshape(-1, window, shape[1])), 1).reshape(shape)


def random_layers(count: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the kernels of a detector's layers with their inputs: x, weight, bias, 1 for a ReLU."""
    for seed in range(count):
        rng = np.random.RandomState(seed)
        normal, relu = normal_from(rng), np.float32([seed % 2])
        images, channels, out, height, width = (rng.randint(1, most) for most in (5, 70, 140, 20, 40))
        x, bias = normal(images, channels, height, width), normal(out)
        for name, side in (("conv1x1_bfloat16", 1), ("conv3x3_int16", 3)):
            yield name, [x, normal(out, channels, side, side) / side * channels**-0.5, bias, relu]
        depth = int(2 ** rng.uniform(0, 12.5))
        x, weight = normal(rng.randint(1, 300), depth), normal(out, depth) * depth**-0.5
        yield "linear_relu_bfloat16", [x, weight, bias, np.float32([1])]


def run_layer(kernels: Kernels, name: str, inputs: list) -> np.ndarray:
    x, weight, bias, setting = inputs
    out, channels = weight.shape[:2]
    if name == "conv3x3_int16":
        size = 36 * round_up(out, 64) * ((channels + 1) // 2 + 1)
        (weight,) = kernels("pack_conv3x3_int16", [weight], [(size,)])
    if name == "linear_relu_bfloat16":  # in blocks of the inputs, whose number is the setting
        setting = np.float32([1024])
        weight = np.concatenate([pack(kernels, weight[:, k : k + 1024]) for k in range(0, channels, 1024)])
    return kernels(name, [x, weight, bias, setting], [(len(x), out, *x.shape[2:])])[0]


def expected_layer(name: str, inputs: list, exact: bool = False) -> np.ndarray:
    """Return the layer by its definition in double precision, with operands in bfloat16 unless ``exact``."""
    x, weight, bias, relu = inputs
    if not exact:
        x, weight = rounded(x), rounded(weight)
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    if x.ndim == 2:
        y = x @ weight.T + bias
    else:
        side, (height, width) = weight.shape[2], x.shape[2:]
        x = np.pad(x, ((0, 0), (0, 0), *((side // 2,) * 2,) * 2))
        windows = [x[:, :, i : i + height, j : j + width] for i in range(side) for j in range(side)]
        weights = weight.reshape(*weight.shape[:2], -1)
        y = sum(np.einsum("bchw,oc->bohw", part, weights[..., i], optimize=True) for i, part in enumerate(windows))
        y = y + bias[:, None, None]
    return np.maximum(y, 0) if relu[0] else y


if __name__ == "__main__":
    kernels = Kernels(sys.argv[1])
    outputs = {}
    for i, case in enumerate(random_stages(int(sys.argv[3]))):
        outputs[f"stage/{i}"] = run_stage(kernels, case)
        outputs[f"kept/{i}"] = run_stage(kernels, case, 1)
    for i, case in enumerate(random_patches(int(sys.argv[3]))):
        outputs[f"patches/{i}"] = run_patches(kernels, *case)
    for i, case in enumerate(random_layers(int(sys.argv[3]))):
        outputs[f"layers/{i}"] = run_layer(kernels, *case)
    x = np.random.RandomState(0).standard_normal((301, 147)).astype(np.float32)
    outputs["matmul"] = run_matmul(kernels, x, x[:70])
    np.savez(sys.argv[2], **outputs)
