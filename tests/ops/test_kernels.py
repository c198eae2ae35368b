"""Compare native kernels with the composed operators, outputs and gradients, on 200 random shapes."""

import math
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.kernels import (
    ATTENTION,
    BATCH_NORM,
    CASES,
    CONV,
    HALF_CASES,
    HALVES,
    MAPS,
    MLP,
    Kernels,
    OtherProcess,
    half_cases,
    random_cases,
    run_half,
)
from support.native import kernel_library
from support.sanitizer import SANITIZE, sanitizer_environment

from msg_ms import ops
from msg_ms.models.attention import position_bias_elements
from msg_ms.models.detection.window_maps import shuffle_grid
from msg_ms.native.build import FLAGS
from msg_ms.ops.backend import SOURCES

TOLERANCE = 1e-5  # relative to a tensor's largest magnitude
# The same with operands rounded to a type. Numbers on the edge between two roundings may fall to either side, and in
# bfloat16 the saved input of GELU is rounded.
HALF_TOLERANCES = {"_float16": 5e-4, "_bfloat16": 4e-3}


@pytest.fixture(scope="module")
def kernels():
    return Kernels(str(kernel_library()))


@pytest.fixture(autouse=True)
def eager():
    ms.set_context(mode=ms.PYNATIVE_MODE)


class RoundedMatMul(ms.nn.Cell):
    """The product x w^T and its gradients' products, with operands rounded to a type."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype, self.matmul = dtype, ms.ops.matmul

    def round(self, x):
        return x.astype(self.dtype).astype(ms.float32)

    def construct(self, x, weight):
        return self.matmul(self.round(x), self.round(weight).transpose())

    def bprop(self, x, weight, out, dout):
        dout = self.round(dout)
        return self.matmul(dout, self.round(weight)), self.matmul(dout.transpose(), self.round(x))


PRODUCTS = {"": lambda x, weight: ms.ops.matmul(x, weight.transpose())}
PRODUCTS |= {f"_{dtype}": RoundedMatMul(getattr(ms, dtype)) for dtype in ("float16", "bfloat16")}
multiply = PRODUCTS[""]  # the product that the composed functions use


def linear(x, weight, bias):
    return multiply(x.reshape(-1, x.shape[-1]), weight) + bias


def window_heads(x, qkv, qkv_bias, table, msg_bias, scale):
    """The heads' outputs for normalized tokens."""
    tokens, channels = x.shape[2:]
    elements = position_bias_elements(int((tokens - 1) ** 0.5), table.shape[1])
    rows = linear(x, qkv, qkv_bias).reshape(-1, 3, channels) * Tensor(np.float32([[scale], [1], [1]]))
    bias = ops.position_bias(table, msg_bias, elements)
    return ops.window_attention(rows.reshape(-1, tokens, 3 * channels), bias, lambda weights: weights)


def attention(x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, drop_path_scale, settings):
    heads = window_heads(ops.layer_norm(x, gamma, beta), qkv, qkv_bias, table, msg_bias, float(settings[0]))
    total = ops.Residual()(x, linear(heads, proj, proj_bias), drop_path_scale[0])
    return ops.ShuffleMessages()(total) if settings[1] else total


def padded_attention(x, gamma, beta, qkv, qkv_bias, table, msg_bias, proj, proj_bias, drop_path_scale, settings):
    height, width, rows, columns, region = settings[2:].astype(int).tolist()
    _, _, tokens, channels = x.shape
    side = int((tokens - 1) ** 0.5)
    inside = np.zeros((rows * side, columns * side), bool)
    inside[:height, :width] = True
    inside = inside.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    valid = np.concatenate([np.ones((rows * columns, 1)), inside], 1).astype(np.float32)
    normed = ops.layer_norm(x, gamma, beta).reshape(-1, rows * columns * tokens, channels)
    normed = (normed * Tensor(valid.reshape(1, -1, 1))).reshape(x.shape)
    heads = window_heads(normed, qkv, qkv_bias, table, msg_bias, float(settings[0]))
    total = ops.Residual()(x, linear(heads, proj, proj_bias), drop_path_scale[0])
    if not settings[1]:
        return total
    grid = total[:, :, 0].reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
    grid = shuffle_grid(grid, region).transpose(0, 2, 3, 1).reshape(-1, 1, 1, channels)
    return ms.ops.cat((grid, total[:, :, 1:]), 2)


def conv(x, weight, bias, settings):
    y = ms.ops.conv2d(x, weight, None, 1, "pad", weight.shape[-1] // 2) + bias.reshape(1, -1, 1, 1)
    return ms.ops.select(y < 0, ms.ops.zeros_like(y), y) if settings[0] else y  # a NaN stays


def batch_norm(x, gamma, beta, weights, relu):
    with ops.use_backend("composed"):
        y = ops.MaskedBatchNorm()(x, weights, gamma, beta)[0]
    return ms.ops.select(y < 0, ms.ops.zeros_like(y), y) if relu else y  # a NaN stays


def roi_align(map0, map1, map2, map3, regions, levels, settings):
    strides = [4 * 2**i for i in range(4)]
    with ops.use_backend("composed"):
        align = ops.RoIAlign(int(settings[0]), strides, int(settings[1]), max_cells=16)
    return align((map0, map1, map2, map3), regions, levels)


def nms(boxes, valid, threshold):
    with ops.use_backend("composed"):
        return ops.NMS(float(threshold[0]))(boxes, valid > 0).astype(ms.float32)


def mlp(x, gamma, beta, w1, b1, w2, b2, drop_path_scale):
    rows = ops.layer_norm(x, gamma, beta).reshape(-1, x.shape[-1])
    hidden = ops.BiasGelu()(matmul(rows, w1), b1)
    return ops.Residual()(x, linear(hidden, w2, b2), drop_path_scale[1])


def norm(x, bias, gamma, beta):
    return ops.layer_norm(x + bias, gamma, beta)


def matmul(x, weight):
    return multiply(x, weight)


def image_patches(x, window_size, region_size, kernel, stride, padding):
    rows, columns = (side // stride for side in x.shape[2:])
    patches = ms.ops.unfold(x, kernel, 1, padding, stride).transpose(0, 2, 1)
    patches = patches.reshape(x.shape[0], rows, columns, -1)
    return ops.window_partition(patches, window_size, region_size).reshape(-1, patches.shape[-1])


def token_patches(x, height, width, window_size, region_size, next_region_size):
    x = x.reshape(-1, region_size**2, window_size**2 + 1, x.shape[-1])

    def merged(tokens, side, h, w):
        tokens = ops.window_reverse(tokens, side, region_size, h, w, channels_first=True)
        patches = ms.ops.unfold(tokens, 3, 1, 1, 2).transpose(0, 2, 1).reshape(tokens.shape[0], h // 2, w // 2, -1)
        return ops.window_partition(patches, side, next_region_size)

    msg_tokens = merged(x[:, :, :1], 1, height // window_size, width // window_size)
    patch_tokens = merged(x[:, :, 1:], window_size, height, width)
    return ms.ops.cat((msg_tokens, patch_tokens), 2).reshape(-1, patch_tokens.shape[-1])


# For each operator: the composed function, its differentiable inputs, its other arguments.
COMPOSED = {
    "attention": (attention, ATTENTION, lambda c: [Tensor(c["drop_path_scale"]), c["settings"]]),
    "mlp": (mlp, MLP, lambda c: [Tensor(c["drop_path_scale"])]),
    "norm": (norm, ("x", "bias", "gamma", "beta"), lambda c: []),
    "matmul": (matmul, ("x", "weight"), lambda c: []),
    "image_patches": (image_patches, ("x",), lambda c: c["sizes"].tolist()),
    "token_patches": (token_patches, ("x",), lambda c: c["sizes"].tolist()),
    "padded_attention": (padded_attention, ATTENTION, lambda c: [Tensor(c["drop_path_scale"]), c["settings"]]),
    "conv": (conv, CONV, lambda c: [c["settings"]]),
    "batch_norm": (batch_norm, BATCH_NORM, lambda c: [Tensor(c["weights"]), bool(c["settings"][0])]),
    "roi_align": (
        roi_align,
        MAPS,
        lambda c: [Tensor(c["regions"]), Tensor(c["levels"].astype(np.int32)), c["settings"]],
    ),
    "nms": (nms, (), lambda c: [Tensor(c["boxes"]), Tensor(c["valid"]), c["threshold"]]),
}


def by_composed(name: str, case: dict) -> dict:
    function, names, others = COMPOSED[name]
    values, extra = [Tensor(case[n]) for n in names], others(case)
    if not names:
        return {"out": function(*extra).asnumpy()}

    def weighted(*inputs):
        return (function(*inputs, *extra) * Tensor(case["dout"])).sum()

    gradients = ms.grad(weighted, tuple(range(len(values))))(*values)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    outputs = {"out": function(*values, *extra), **{f"d{n}": g for n, g in zip(names, gradients, strict=True)}}
    return {key: value.asnumpy() for key, value in outputs.items()}


def compare(kernels: Kernels, count: int) -> None:
    """Compare ``count`` random cases with the composed operators and print the largest differences."""
    worst = {}
    for name, number, case in random_cases(count):
        native, composed = CASES[name][1](kernels, case), by_composed(name, case)
        for key, expected in composed.items():
            assert native[key].shape == expected.shape, (number, name, key)
            if key == "dmsg_bias":
                # The second entry shifts all scores of a row, which a softmax ignores: its gradient is rounding error.
                scale = max(np.abs(composed[n]).max() for n in ("dtable", "dqkv", "dmsg_bias"))
                assert np.abs(native[key][:, 1]).max() <= TOLERANCE * max(scale, 1e-3), (number, name, key)
                native[key], expected = native[key][:, :1], expected[:, :1]
            # The same entry's first one is a small difference of large sums.
            floor = scale / 10 if key == "dmsg_bias" else 1e-3
            error = np.abs(native[key] - expected).max() / max(np.abs(expected).max(), floor, 1e-3)
            assert error < TOLERANCE, (number, name, key, error)
            worst[name, key] = max(error, worst.get((name, key), 0))
    print("\n" + "\n".join(f"{'.'.join(key)}: {error:.1e}" for key, error in worst.items()))


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_random_shapes_equal_the_composed_operators(kernels, count):
    compare(kernels, count)


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", HALVES)
def test_rounded_operands_equal_the_composed_operators(kernels, suffix, count, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "multiply", PRODUCTS[suffix])
    worst = 0.0
    for name, number, case in half_cases(count):
        native, composed = run_half(kernels, name, case, suffix), by_composed(name, case)
        for key, expected in composed.items():
            change = native[key] - expected
            if key == "dmsg_bias":  # the second entry is rounding error
                change, expected = change[:, :1], expected[:, :1]
            if key == "out" and name != "matmul":
                expected = expected - case["x"]
            error = np.linalg.norm(change) / max(np.linalg.norm(expected), 1e-3)
            assert error < HALF_TOLERANCES[suffix] * (10 if key == "dmsg_bias" else 1), (number, name, key, error)
            worst = max(worst, error)
    assert worst > 1e-6  # the sums of rounded numbers are not those of others


def test_float16_is_rounded_to_the_nearest_even(kernels):
    """Multiply by 1: halfway cases, subnormal numbers of both types, overflow, infinity."""
    draws = np.random.RandomState(0).randint(0, 2**32, 20000, np.uint64).astype(np.uint32)
    near = (np.arange(2**16, dtype=np.uint16).view(np.float16)[::7].astype(np.float32)).view(np.uint32)
    bits = np.concatenate([draws, near, near + 0x1000, near + 0xFFF, near + 0x1001, near ^ 0x80000000])
    x = bits.view(np.float32)[:, None]
    x = x[~np.isnan(x[:, 0])]
    (out,) = kernels("rounded_matmul_float16", [x, np.ones((1, 1), np.float32)], [x.shape])
    with np.errstate(over="ignore"):
        assert np.array_equal(out, x.astype(np.float16).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-mno-avx512f", "-march=x86-64"])
def test_random_shapes_on_processors_with_shorter_vectors(flags):
    if platform.machine() != "x86_64":
        pytest.skip("the flags are for x86-64")
    compare(Kernels(str(kernel_library((flags,)))), 200)


@pytest.mark.slow
def test_random_shapes_on_arm(tmp_path):
    """Cross-compile for ARM, the hosts of Ascend devices, and run in an emulator (Debian packages both)."""
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user")
    program, sources = tmp_path / "kernels", [*SOURCES.rglob("*.cc"), Path(__file__).with_name("driver.cc")]
    flags = [flag for flag in FLAGS if flag != "-shared"]
    line = [compiler, *flags, "-rdynamic", "-I", SOURCES, *sources, "-o", program, "-ldl", "-pthread"]
    subprocess.run(line, check=True, capture_output=True)
    compare(OtherProcess(emulator, "-L", "/usr/aarch64-linux-gnu", str(program)), 60)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_propagate(kernels, value):
    for name, _, case in random_cases(len(CASES)):
        if "x" not in case:  # RoIAlign and suppression have tests of their own
            continue
        case["x"].reshape(-1)[3] = value
        native, composed = CASES[name][1](kernels, case)["out"], by_composed(name, case)["out"]
        not_finite = ~np.isfinite(composed)
        assert not_finite.any(), name
        assert not np.isfinite(native[not_finite]).any(), name
        for suffix in HALVES if name in HALF_CASES else ():
            assert not np.isfinite(run_half(kernels, name, case, suffix)["out"][not_finite]).any(), (name, suffix)


def test_number_of_threads_changes_only_rounding(kernels, tmp_path):
    outputs = []
    for threads in ("1", "8"):
        script, output = Path(__file__).parents[1] / "support" / "kernels.py", tmp_path / f"{threads}.npz"
        line = [sys.executable, str(script), str(kernel_library()), str(output), "80"]
        subprocess.run(line, check=True, env={"MSG_MS_THREADS": threads, "PATH": "/usr/bin:/bin"})
        with np.load(output) as file:
            outputs.append(dict(file))
    for key, one in outputs[0].items():
        # Another order of sums may round an operand of the next product to its other neighbour.
        tolerance = next((HALF_TOLERANCES[suffix] for suffix in HALVES if suffix in key), 1e-5)
        assert np.abs(outputs[1][key] - one).max() <= tolerance * max(np.abs(one).max(), 1e-3), key


@pytest.mark.slow
def test_address_sanitizer_finds_nothing(tmp_path):
    environment = sanitizer_environment()
    library = kernel_library(SANITIZE)
    line = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "kernels.py"),
        str(library),
        str(tmp_path / "o.npz"),
        "80",
    ]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    # Check that it detects an error: an output that is one row too short.
    code = "import sys, numpy as np; from support.kernels import Kernels; x = np.ones((300, 64)); "
    code += "Kernels(sys.argv[1])('layer_norm', [x, x[0], x[0], x[0]], [(299, 64)])"
    line = [sys.executable, "-c", code, str(library)]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment, cwd=Path(__file__).parents[1])
    assert "heap-buffer-overflow" in done.stderr


def test_gelu_is_exact_to_a_few_bits(kernels):
    """A branch whose normalization, weights and biases leave nothing but GELU of beta."""
    channels, one = 512, np.ones((2, 1), np.float32)
    x, zeros, identity = np.zeros((1, 1, 1, channels), np.float32), np.zeros(channels, np.float32), np.eye(channels)
    errors = []
    for beta in np.linspace(-9, 9, 40 * channels).astype(np.float32).reshape(40, channels):
        weights = [identity.astype(np.float32), zeros] * 2
        (out,) = kernels("mlp_branch", [x, zeros, beta, *weights, one], [x.shape])
        exact = [b * 0.5 * math.erfc(-b / math.sqrt(2)) for b in beta.astype(float)]
        errors.append(np.abs(out.reshape(-1) - exact).max())
    assert max(errors) <= 6e-7
