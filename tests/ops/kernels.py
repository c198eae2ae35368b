"""The native kernels called from NumPy, and random cases for them; no MindSpore, so that a sanitizer can watch.

``python kernels.py <library> <output.npz> <cases>`` runs random cases and saves what came out.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence

import numpy as np


class Kernels:
    def __init__(self, library: str):
        self.library = ctypes.CDLL(library)

    def __call__(self, name: str, inputs: Sequence[np.ndarray], shapes: Sequence[tuple]) -> list[np.ndarray]:
        """Outputs of ``shapes``, filled with NaN before the kernel runs: what it leaves out shows."""
        inputs = [np.ascontiguousarray(x, np.float32) for x in inputs]
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
        arrays = [*inputs, *outputs]
        dims = [(ctypes.c_int64 * max(x.ndim, 1))(*x.shape) for x in arrays]
        status = getattr(self.library, name)(
            len(arrays),
            (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays)),
            (ctypes.c_int * len(arrays))(*(x.ndim for x in arrays)),
            (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(d) for d in dims)),
            None, None, None,
        )  # fmt: skip
        assert status == 0
        return outputs


def attention_case(draws: np.random.RandomState) -> dict:
    side, depth = draws.choice([2, 3, 4, 7, 7, 12]), draws.randint(8, 65)
    heads, windows, tokens = draws.randint(1, 5), draws.randint(1, 7), side**2 + 1
    normal = lambda *shape: draws.standard_normal(shape).astype(np.float32)  # noqa: E731
    return dict(
        qkv=normal(windows, tokens, 3 * heads * depth), bias=normal(3 * heads * depth),
        table=normal((2 * side - 1) ** 2, heads), message=normal(heads, 2, 1, 1),
        scale=np.full(1, depth**-0.5, np.float32), dout=normal(windows, tokens, heads * depth),
    )  # fmt: skip


def rows_case(draws: np.random.RandomState) -> dict:
    rows, channels = draws.randint(1, 300), draws.randint(1, 200)
    normal = lambda *shape: draws.standard_normal(shape).astype(np.float32)  # noqa: E731
    return dict(
        x=2 * normal(rows, channels), bias=normal(channels), gamma=normal(channels), beta=normal(channels),
        dout=normal(rows, channels),
    )  # fmt: skip


def residual_case(draws: np.random.RandomState) -> dict:
    region = draws.choice([1, 2, 3, 4])
    batch, per_image, tokens = draws.randint(1, 4), draws.randint(1, 3), draws.randint(2, 12)
    windows, channels = region**2, region**2 * draws.randint(1, 13)
    shape = (batch * per_image, windows, tokens, channels)
    normal = lambda *shape: draws.standard_normal(shape).astype(np.float32)  # noqa: E731
    keep = (draws.rand(batch) > 0.3) / np.float32(0.7) if draws.rand() < 0.7 else np.ones(1)
    return dict(
        x=normal(*shape), branch=normal(np.prod(shape[:3]), channels), bias=normal(channels),
        keep=keep.astype(np.float32), gamma=normal(channels), beta=normal(channels),
        dout=normal(*shape), dnormal=normal(*shape),
    )  # fmt: skip


def image_case(draws: np.random.RandomState) -> dict:
    stride, window, region = draws.choice([3, 4, 5]), draws.randint(1, 5), draws.randint(1, 3)
    rows, columns = (window * region * draws.randint(1, 3) for _ in range(2))
    shape = (draws.randint(1, 4), draws.randint(1, 5), rows * stride, columns * stride)
    patches = (shape[0] * rows * columns, shape[1] * 49)
    return dict(
        x=draws.standard_normal(shape).astype(np.float32), layout=np.array([window, region, 7, stride, 2]),
        dout=draws.standard_normal(patches).astype(np.float32),
    )  # fmt: skip


def token_case(draws: np.random.RandomState) -> dict:
    # Windows before and after the merging must make whole regions.
    window, next_region, half = draws.randint(1, 4) * 2, draws.randint(1, 3), draws.randint(1, 3)
    rows, columns = 2 * next_region * half, 2 * next_region * draws.randint(1, 3)
    region = draws.choice([r for r in range(1, 5) if rows % r == 0 and columns % r == 0])
    batch, channels, tokens = draws.randint(1, 4), draws.randint(1, 40), window**2 + 1
    count = batch * rows * columns * tokens
    return dict(
        x=draws.standard_normal((count, channels)).astype(np.float32),
        layout=np.array([rows * window, columns * window, window, region, next_region]),
        dout=draws.standard_normal((count // 4, 9 * channels)).astype(np.float32), window=window,
    )  # fmt: skip


def run_attention(kernels: Kernels, c: dict) -> dict:
    inputs = [c["qkv"], c["bias"], c["table"], c["message"], c["scale"]]
    (out,) = kernels("window_attention", inputs, [c["dout"].shape])
    names = ("qkv", "bias", "table", "message")
    gradients = kernels("window_attention_grad", [*inputs, c["dout"]], [c[name].shape for name in names])
    return {"out": out, **{f"d{name}": g for name, g in zip(names, gradients, strict=True)}}


def run_gelu(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("bias_gelu", [c["x"], c["bias"]], [c["x"].shape])
    dx, dbias = kernels("bias_gelu_grad", [c["x"], c["bias"], c["dout"]], [c["x"].shape, c["bias"].shape])
    return {"out": out, "dx": dx, "dbias": dbias}


def run_norm(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("layer_norm", [c["x"], c["bias"], c["gamma"], c["beta"]], [c["x"].shape])
    shapes = [c["x"].shape, *[c["bias"].shape] * 3]
    gradients = kernels("layer_norm_grad", [c["x"], c["bias"], c["gamma"], c["dout"]], shapes)
    return {"out": out, **dict(zip(("dx", "dbias", "dgamma", "dbeta"), gradients, strict=True))}


def run_residual(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("residual", [c["x"], c["branch"], c["bias"], c["keep"]], [c["x"].shape])
    dbranch, dbias = kernels("residual_grad", [c["dout"], c["keep"]], [c["branch"].shape, c["bias"].shape])
    return {"out": out, "dx": c["dout"], "dbranch": dbranch, "dbias": dbias}


def run_residual_norm(kernels: Kernels, c: dict, name: str = "residual_norm") -> dict:
    inputs = [c[n] for n in ("x", "branch", "bias", "keep", "gamma", "beta")]
    total, normal = kernels(name, inputs, [c["x"].shape] * 2)
    shapes = [c["x"].shape, c["branch"].shape, *[c["bias"].shape] * 3]
    gradients = kernels(f"{name}_grad", [total, c["keep"], c["gamma"], c["dout"], c["dnormal"]], shapes)
    names = ("dx", "dbranch", "dbias", "dgamma", "dbeta")
    return {"out": total, "normal": normal, **dict(zip(names, gradients, strict=True))}


def run_shuffle(kernels: Kernels, c: dict) -> dict:
    return run_residual_norm(kernels, c, "residual_shuffle_norm")


def run_image(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("image_patches", [c["x"], c["layout"]], [c["dout"].shape])
    (dx,) = kernels("image_patches_grad", [c["layout"], c["dout"], c["x"]], [c["x"].shape])
    return {"out": out, "dx": dx}


def run_token(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("token_patches", [c["x"], c["layout"]], [c["dout"].shape])
    (dx,) = kernels("token_patches_grad", [c["layout"], c["dout"]], [c["x"].shape])
    return {"out": out, "dx": dx}


CASES = {
    "attention": (attention_case, run_attention),
    "gelu": (rows_case, run_gelu),
    "norm": (rows_case, run_norm),
    "residual": (residual_case, run_residual),
    "residual_norm": (residual_case, run_residual_norm),
    "residual_shuffle_norm": (residual_case, run_shuffle),
    "image_patches": (image_case, run_image),
    "token_patches": (token_case, run_token),
}


def random_cases(count: int) -> Iterator[tuple[str, int, dict]]:
    """``count`` cases that follow from their numbers, an operator after the other."""
    for i in range(count):
        name = list(CASES)[i % len(CASES)]
        yield name, i, CASES[name][0](np.random.RandomState(i))


if __name__ == "__main__":
    kernels = Kernels(sys.argv[1])
    found = {}
    for name, number, case in random_cases(int(sys.argv[3])):
        for key, value in CASES[name][1](kernels, case).items():
            found[f"{number}/{name}/{key}"] = value
    tensors = [np.random.RandomState(i).standard_normal(n) for i, n in enumerate((1, 5000, 70000, 3))]
    found["squared_norm"] = kernels("squared_norm", tensors, [(1,)])[0]
    np.savez(sys.argv[2], **found)
