"""Call the native kernels from NumPy, and make random cases for them. No MindSpore, so that a sanitizer can run.

``python kernels.py <library> <output.npz> <cases>`` runs random cases and saves the outputs.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np


class Kernels:
    """The kernels of a compiled library."""

    def __init__(self, library: str):
        self.library = ctypes.CDLL(library)

    def __call__(self, name: str, inputs: Sequence[np.ndarray], shapes: Sequence[tuple]) -> list[np.ndarray]:
        """Return outputs of ``shapes``, filled with NaN beforehand so that missing entries show."""
        inputs = [np.ascontiguousarray(x, np.float32) for x in inputs]
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
        arrays = [*inputs, *outputs]
        self.run(name, arrays)
        return outputs

    def run(self, name: str, arrays: list[np.ndarray]) -> None:
        """Run a kernel on these inputs and outputs, in place."""
        dims = [(ctypes.c_int64 * max(x.ndim, 1))(*x.shape) for x in arrays]
        status = getattr(self.library, name)(
            len(arrays),
            (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays)),
            (ctypes.c_int * len(arrays))(*(x.ndim for x in arrays)),
            (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(d) for d in dims)),
            *(None, None, None),  # dtypes, stream, extra
        )
        assert status == 0


class OtherProcess(Kernels):
    """The kernels in a program built with driver.cc, which an emulator may run."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, name: str, arrays: list[np.ndarray]) -> None:
        self.process.stdin.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<i", len(arrays)))
        for x in arrays:
            self.process.stdin.write(struct.pack(f"<i{x.ndim}q", x.ndim, *x.shape) + x.tobytes())
        self.process.stdin.flush()
        for x in arrays:
            x.reshape(-1)[:] = np.frombuffer(self.process.stdout.read(x.nbytes), np.float32)


def normal_from(rng: np.random.RandomState):
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


def rows_case(rng: np.random.RandomState) -> dict:
    rows, channels = rng.randint(1, 300), rng.randint(1, 200)
    normal = normal_from(rng)
    return dict(
        x=2 * normal(rows, channels),
        bias=normal(channels),
        gamma=normal(channels),
        beta=normal(channels),
        dout=normal(rows, channels),
    )


def matmul_case(rng: np.random.RandomState) -> dict:
    rows, inner, outer = (int(2 ** rng.uniform(0, most)) for most in (11, 11, 8))
    normal = normal_from(rng)
    return dict(x=normal(rows, inner), weight=normal(outer, inner), dout=normal(rows, outer))


def branch_case(rng: np.random.RandomState, windows: int, tokens: int, channels: int) -> dict:
    batch, per_image, normal = rng.randint(1, 4), rng.randint(1, 3), normal_from(rng)
    scale = (rng.rand(2, batch) > 0.3) / np.float32(0.7) if rng.rand() < 0.7 else np.ones((2, 1))
    shape = (batch * per_image, windows, tokens, channels)
    return dict(
        x=normal(*shape),
        gamma=normal(channels),
        beta=normal(channels),
        drop_path_scale=scale.astype(np.float32),
        dout=normal(*shape),
    )


def attention_weights(normal: Callable[..., np.ndarray], channels: int, heads: int, side: int) -> dict:
    return dict(
        qkv=normal(3 * channels, channels) * channels**-0.5,
        qkv_bias=normal(3 * channels),
        table=normal((2 * side - 1) ** 2, heads),
        msg_bias=normal(heads, 2, 1, 1),
        proj=normal(channels, channels) * channels**-0.5,
        proj_bias=normal(channels),
    )


def attention_case(rng: np.random.RandomState) -> dict:
    # Channels must make whole heads and whole groups of the shuffle.
    side, region, heads = rng.choice([2, 3, 4, 7, 7, 12]), rng.choice([1, 1, 2, 4]), rng.choice([1, 2, 3, 4])
    depth = rng.randint(8, 65) if region == 1 else rng.randint(2, 5) * 16
    channels, normal = heads * depth, normal_from(rng)
    case = branch_case(rng, region**2, side**2 + 1, channels)
    weights = attention_weights(normal, channels, heads, side)
    return {**case, **weights, "settings": np.array([depth**-0.5, region > 1], np.float32)}


def mlp_case(rng: np.random.RandomState) -> dict:
    channels, hidden, normal = rng.randint(1, 100), rng.randint(1, 300), normal_from(rng)
    case = branch_case(rng, rng.randint(1, 5), rng.randint(2, 40), channels)
    weights = dict(
        w1=normal(hidden, channels) * channels**-0.5,
        b1=normal(hidden),
        w2=normal(channels, hidden) * hidden**-0.5,
        b2=normal(channels),
    )
    return {**case, **weights}


def image_case(rng: np.random.RandomState) -> dict:
    stride, window, region = rng.choice([3, 4, 5]), rng.randint(1, 5), rng.randint(1, 3)
    rows, columns = (window * region * rng.randint(1, 3) for _ in range(2))
    shape = (rng.randint(1, 4), rng.randint(1, 5), rows * stride, columns * stride)
    patches = (shape[0] * rows * columns, shape[1] * 49)
    return dict(
        x=rng.standard_normal(shape).astype(np.float32),
        sizes=np.array([window, region, 7, stride, 2]),
        dout=rng.standard_normal(patches).astype(np.float32),
    )


def token_case(rng: np.random.RandomState) -> dict:
    # Windows before and after the merging must make whole regions.
    window, next_region, half = rng.randint(1, 4) * 2, rng.randint(1, 3), rng.randint(1, 3)
    rows, columns = 2 * next_region * half, 2 * next_region * rng.randint(1, 3)
    region = rng.choice([r for r in range(1, 5) if rows % r == 0 and columns % r == 0])
    batch, channels, tokens = rng.randint(1, 4), rng.randint(1, 40), window**2 + 1
    count = batch * rows * columns * tokens
    return dict(
        x=rng.standard_normal((count, channels)).astype(np.float32),
        sizes=np.array([rows * window, columns * window, window, region, next_region]),
        dout=rng.standard_normal((count // 4, 9 * channels)).astype(np.float32),
        window=window,
    )


def padded_case(rng: np.random.RandomState) -> dict:
    """Attention on a map that need not fill its windows, and windows that need not fill their regions."""
    side, region, heads = rng.choice([2, 3, 7]), rng.choice([1, 2, 4]), rng.choice([1, 2, 3])
    channels, normal = 16 * heads, normal_from(rng)
    height, width, batch = rng.randint(1, 3 * side), rng.randint(1, 4 * side), rng.randint(1, 3)
    rows, columns = -(-height // side), -(-width // side)
    shape = (batch * rows * columns, 1, side**2 + 1, channels)
    weights = dict(
        x=normal(*shape),
        gamma=normal(channels),
        beta=normal(channels),
        **attention_weights(normal, channels, heads, side),
        drop_path_scale=(rng.rand(2, batch) + 0.5).astype(np.float32),
        dout=normal(*shape),
    )
    return {**weights, "settings": np.float32([0.25, region > 1, height, width, rows, columns, region])}


def conv_case(rng: np.random.RandomState) -> dict:
    inputs, outputs, kernel, normal = rng.randint(1, 40), rng.randint(1, 90), rng.choice([1, 3, 3]), normal_from(rng)
    # Gradients use larger tiles for many RoIs.
    batch, height, width = (
        rng.randint((1, 1, 1), (4, 20, 30)) if rng.rand() < 0.6 else rng.randint((30, 5, 5), (80, 9, 9))
    )
    return dict(
        x=normal(batch, inputs, height, width),
        weight=normal(outputs, inputs, kernel, kernel),
        bias=normal(outputs),
        settings=np.float32([rng.rand() < 0.5, rng.choice([2, 2, 4])]),
        dout=normal(batch, outputs, height, width),
    )


def roi_case(rng: np.random.RandomState) -> dict:
    batch, channels, side, regions = rng.randint(1, 3), rng.randint(1, 20), rng.randint(4, 8), rng.randint(1, 12)
    maps = {f"map{i}": normal_from(rng)(batch, channels, *rng.randint(1, 30, 2)) for i in range(4)}
    corners = np.sort(rng.uniform(-10, 45, (regions, 2, 2)), 1).reshape(regions, 4)
    return dict(
        **maps,
        regions=np.concatenate([rng.randint(0, batch, (regions, 1)), corners], 1).astype(np.float32),
        levels=rng.randint(0, 4, regions).astype(np.float32),
        settings=np.float32([side, rng.randint(0, 3), *(1 / 4 / 2**i for i in range(4)), *[0] * side]),
        dout=normal_from(rng)(regions, channels, side, side),
    )


def nms_case(rng: np.random.RandomState) -> dict:
    batch, count = rng.randint(1, 4), rng.randint(1, 300)
    corners = rng.uniform(0, 50, (batch, count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, (batch, count, 2))], -1).astype(np.float32)
    valid = np.arange(count) < rng.randint(0, count + 1, (batch, 1))
    return dict(boxes=boxes, valid=valid.astype(np.float32), threshold=np.float32([rng.uniform(0.2, 0.8)]))


ATTENTION = ("x", "gamma", "beta", "qkv", "qkv_bias", "table", "msg_bias", "proj", "proj_bias")
CONV, MAPS = ("x", "weight", "bias"), tuple(f"map{i}" for i in range(4))
BATCH_NORM = ("x", "gamma", "beta")
MLP = ("x", "gamma", "beta", "w1", "b1", "w2", "b2")


def named_gradients(names: tuple[str, ...], gradients: list) -> dict:
    return {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}


def run_norm(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("layer_norm", [c["x"], c["bias"], c["gamma"], c["beta"]], [c["x"].shape])
    shapes = [c["x"].shape, *[c["bias"].shape] * 3]
    gradients = kernels("layer_norm_grad", [c["x"], c["bias"], c["gamma"], c["dout"]], shapes)
    return {"out": out, **named_gradients(("x", "bias", "gamma", "beta"), gradients)}


def run_products(kernels: Kernels, c: dict, suffix: str = "") -> dict:
    """Run the product with a weight and its gradients, with operands rounded if there is a suffix."""
    name = "rounded_matmul" if suffix else "matmul"
    (out,) = kernels(f"{name}{suffix}", [c["x"], c["weight"]], [c["dout"].shape])
    (dx,) = kernels(f"{name}_grad_x{suffix}", [c["weight"], c["dout"]], [c["x"].shape])
    (dweight,) = kernels(f"{name}_grad_weight{suffix}", [c["x"], c["dout"]], [c["weight"].shape])
    return {"out": out, "dx": dx, "dweight": dweight}


def run_matmul(kernels: Kernels, c: dict) -> dict:
    compare_packed(kernels, c["x"], c["weight"])
    return run_products(kernels, c)


def compare_packed(kernels: Kernels, x: np.ndarray, weight: np.ndarray) -> None:
    """Compare products with a packed weight, plain and for Strassen's algorithm, with double precision."""
    x = x[np.isfinite(x).all(1)]
    for name, even in (("pack_weight", False), ("pack_weight_strassen", True)):
        rows, inner, outer = (n - n % 2 if even else n for n in (*x.shape, len(weight)))
        if rows * inner * outer == 0:
            continue
        x, weight = x[:rows, :inner], weight[:outer, :inner]
        width, depth = (outer // 2, 7 * inner // 2) if even else (outer, inner)
        (packed,) = kernels(name, [weight], [(-(-width // 64) * 64 * depth,)])
        (out,) = kernels("matmul_packed", [x, packed], [(rows, outer)])
        expected = x.astype(np.float64) @ weight.T
        assert np.abs(out - expected).max() <= 1e-5 * np.abs(expected).max(), (name, rows, inner, outer)


def run_attention(kernels: Kernels, c: dict, suffix: str = "") -> dict:
    inputs, rows = [c[n] for n in (*ATTENTION, "drop_path_scale", "settings")], np.prod(c["x"].shape[:3])
    (out,) = kernels(f"attention_branch{suffix}", inputs, [c["x"].shape])
    shapes = [c["x"].shape, (rows, len(c["qkv"])), (rows, len(c["gamma"]))]
    again, *saved = kernels(f"attention_branch_train{suffix}", inputs, shapes)
    assert np.array_equal(out, again, equal_nan=True)
    shapes = [c[n].shape for n in ATTENTION]
    gradients = kernels(f"attention_branch_grad{suffix}", [*inputs, *saved, c["dout"]], shapes)
    return {"out": out, **named_gradients(ATTENTION, gradients)}


def run_mlp(kernels: Kernels, c: dict, suffix: str = "") -> dict:
    inputs, rows = [c[n] for n in (*MLP, "drop_path_scale")], np.prod(c["x"].shape[:3])
    (out,) = kernels(f"mlp_branch{suffix}", inputs, [c["x"].shape])
    columns = -(-len(c["w1"]) // (2 if suffix == "_bfloat16" else 1))
    again, saved = kernels(f"mlp_branch_train{suffix}", inputs, [c["x"].shape, (rows, columns)])
    assert np.array_equal(out, again, equal_nan=True)
    inputs = [*(c[n] for n in ("x", "gamma", "beta", "w1", "w2")), saved, c["drop_path_scale"], c["dout"]]
    gradients = kernels(f"mlp_branch_grad{suffix}", inputs, [c[n].shape for n in MLP])
    return {"out": out, **named_gradients(MLP, gradients)}


def run_image(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("image_patches", [c["x"], c["sizes"]], [c["dout"].shape])
    (dx,) = kernels("image_patches_grad", [c["sizes"], c["dout"], c["x"]], [c["x"].shape])
    return {"out": out, "dx": dx}


def run_token(kernels: Kernels, c: dict) -> dict:
    (out,) = kernels("token_patches", [c["x"], c["sizes"]], [c["dout"].shape])
    (dx,) = kernels("token_patches_grad", [c["sizes"], c["dout"]], [c["x"].shape])
    return {"out": out, "dx": dx}


def run_conv(kernels: Kernels, c: dict) -> dict:
    name, relu = "conv{0}x{0}".format(c["weight"].shape[-1]), c["settings"][0]
    forward, inputs = f"{name}_relu" if relu else name, [c["x"], c["weight"], c["bias"], c["settings"][1:]]
    (out,) = kernels(forward, inputs, [c["dout"].shape])
    dout, dbias = c["dout"], c["dout"].sum((0, 2, 3))
    if relu:
        dout, dbias = kernels("conv_relu_grad", [out, dout], [out.shape, dbias.shape])
    (dx,) = kernels(f"{name}_grad_x", [c["weight"], dout], [c["x"].shape])
    (dweight,) = kernels(f"{name}_grad_weight", [c["x"], dout], [c["weight"].shape])
    return {"out": out, "dx": dx, "dweight": dweight, "dbias": dbias}


def batch_norm_case(rng: np.random.RandomState) -> dict:
    samples, channels, normal = rng.randint(2, 30), rng.randint(1, 40), normal_from(rng)
    shape = (samples, channels, *rng.randint(1, 15, 2))
    weights = (rng.rand(samples) > 0.3).astype(np.float32)
    weights[:2] = 1
    return dict(
        x=2 * normal(*shape) + 3 * normal(channels, 1, 1),
        gamma=normal(channels),
        beta=normal(channels),
        weights=weights,
        settings=np.float32([rng.rand() < 0.5]),
        dout=normal(*shape),
    )


def run_batch_norm(kernels: Kernels, c: dict) -> dict:
    shapes = [c[n].shape for n in BATCH_NORM]
    out, *found = kernels("masked_batch_norm", [c[n] for n in ("x", "weights", "gamma", "beta", "settings")], shapes)
    inputs = [c["x"], c["weights"], c["gamma"], out, *found, c["dout"], c["settings"]]
    return {"out": out, **named_gradients(BATCH_NORM, kernels("masked_batch_norm_grad", inputs, shapes))}


def run_roi(kernels: Kernels, c: dict) -> dict:
    inputs = [c[n] for n in (*MAPS, "regions", "levels", "settings")]
    (out,) = kernels("roi_align", inputs, [c["dout"].shape])
    return {
        "out": out,
        **named_gradients(MAPS, kernels("roi_align_grad", [*inputs, c["dout"]], [c[n].shape for n in MAPS])),
    }


def run_nms(kernels: Kernels, c: dict) -> dict:
    return {"out": kernels("nms", [c["boxes"], c["valid"], c["threshold"]], [c["valid"].shape])[0]}


def run_adamw(kernels: Kernels, gradients: list[np.ndarray]) -> dict:
    """Return parameters and moments after one step, in place."""
    gradients = [g.astype(np.float32) for g in gradients]
    changed = [np.array(g) for _ in range(3) for g in gradients]
    for second in changed[2 * len(gradients) :]:
        np.square(second, second)
    decays, factors = [0.05] * len(gradients), [0.5 + i for i in range(len(gradients))]
    settings = [np.float32(x) for x in ([0.5], [0.01], [3], [0.1, 0.001, 1e-8, *decays, *factors])]
    kernels("adamw", [*changed, *gradients, *settings], [(1,)])
    return {f"adamw/{i}": value for i, value in enumerate(changed)}


CASES = {
    "attention": (attention_case, run_attention),
    "mlp": (mlp_case, run_mlp),
    "norm": (rows_case, run_norm),
    "matmul": (matmul_case, run_matmul),
    "image_patches": (image_case, run_image),
    "token_patches": (token_case, run_token),
    "padded_attention": (padded_case, run_attention),
    "conv": (conv_case, run_conv),
    "batch_norm": (batch_norm_case, run_batch_norm),
    "roi_align": (roi_case, run_roi),
    "nms": (nms_case, run_nms),
}


# The operators with kernels that round the operands of products, and the suffixes of these kernels.
HALF_CASES = {
    "attention": run_attention,
    "mlp": run_mlp,
    "matmul": run_products,
    "padded_attention": run_attention,
}
HALVES = ("_float16", "_bfloat16")


def half_cases(count: int) -> Iterator[tuple[str, int, dict]]:
    """Yield ``count`` cases like ``random_cases``, of ``HALF_CASES`` alone."""
    for i in range(count):
        name = list(HALF_CASES)[i % len(HALF_CASES)]
        yield name, i, CASES[name][0](np.random.RandomState(i))


def run_half(kernels: Kernels, name: str, case: dict, suffix: str) -> dict:
    return HALF_CASES[name](kernels, case, suffix)


# Their composed forms need many operators.
SELDOM = ("padded_attention", "roi_align")


def random_cases(count: int) -> Iterator[tuple[str, int, dict]]:
    """Yield up to ``count`` cases as (operator, number, inputs); the number is the seed."""
    for i in range(count):
        name = list(CASES)[i % len(CASES)]
        if name in SELDOM and i // len(CASES) % 4:
            continue
        yield name, i, CASES[name][0](np.random.RandomState(i))


if __name__ == "__main__":
    kernels = Kernels(sys.argv[1])
    outputs = {}
    for name, number, case in random_cases(int(sys.argv[3])):
        for key, value in CASES[name][1](kernels, case).items():
            outputs[f"{number}/{name}/{key}"] = value
    for name, number, case in half_cases(int(sys.argv[3]) // 4):
        for suffix in HALVES:
            for key, value in run_half(kernels, name, case, suffix).items():
                outputs[f"{number}/{name}{suffix}/{key}"] = value
    tensors = [np.random.RandomState(i).standard_normal(n) for i, n in enumerate((1, 5000, 70000, 3))]
    outputs["squared_norm"] = kernels("squared_norm", tensors, [(1,)])[0]
    outputs.update(run_adamw(kernels, tensors))
    np.savez(sys.argv[2], **outputs)
