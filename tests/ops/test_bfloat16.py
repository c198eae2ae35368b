"""Kernels in bfloat16: products against sums of rounded numbers, blocks against those in single precision."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bfloat16 import (
    expected_layer,
    expected_patches,
    pack,
    portable_product,
    random_layers,
    random_patches,
    random_stages,
    rounded,
    run_layer,
    run_matmul,
    run_patches,
    run_stage,
)
from support.kernels import Kernels, half_cases, run_half
from support.native import kernel_library
from support.sanitizer import SANITIZE, sanitizer_environment

from msg_ms.native.build import build_library
from msg_ms.ops.backend import SOURCES

SCRIPT = Path(__file__).parents[1] / "support" / "bfloat16.py"


# The kernels in bfloat16, and all that they need.
PORTABLE_FILES = (
    "base/parallel.cc",
    "gemm/gemm_bfloat16.cc",
    "gemm/matmul_bfloat16.cc",
    "attention/attention_bfloat16.cc",
    "attention/position_bias.cc",
    "attention/stage_bfloat16.cc",
    "conv/conv1x1_bfloat16.cc",
    "conv/conv3x3_int16.cc",
    "conv/patches_bfloat16.cc",
)
# The same for training.
PORTABLE_TRAINING_FILES = (
    "base/parallel.cc",
    "gemm/gemm.cc",
    "gemm/matmul.cc",
    "gemm/strassen.cc",
    "attention/attention_branch.cc",
    "attention/mlp_branch.cc",
    "attention/position_bias.cc",
    "attention/window_attention.cc",
)


def portable_library(folder: Path, flags: tuple[str, ...] = (), files: tuple[str, ...] = PORTABLE_FILES) -> Path:
    """Build a library of the kernels without the processor's instructions for bfloat16, which no other code runs."""
    for path in (*SOURCES.rglob("*.h"), *(SOURCES / name for name in files)):
        target = folder / path.relative_to(SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return build_library("portable_kernels", folder, ("-DMSG_MS_PORTABLE_BFLOAT16", *flags))


@pytest.fixture(scope="module")
def kernels():
    return Kernels(str(kernel_library()))


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    return Kernels(str(portable_library(tmp_path_factory.mktemp("csrc"))))


@pytest.fixture
def native(kernels):
    if not kernels.library.supports_bfloat16():
        pytest.skip("this CPU has no bfloat16 instructions")
    return kernels


@pytest.fixture(params=["native", "portable"])
def twin(request):
    """The kernels with the processor's instructions for bfloat16, or their portable twins."""
    return request.getfixturevalue(request.param)


def products():
    rng = np.random.RandomState(0)
    for rows, inner, outer in ((1, 1, 1), (7, 5, 3), (50, 64, 192), (49, 147, 64), (300, 130, 70), (13, 2049, 33)):
        yield (
            rng.standard_normal((rows, inner)).astype(np.float32),
            rng.standard_normal((outer, inner)).astype(np.float32),
        )


def test_numbers_are_rounded_to_the_nearest_even(twin):
    # Multiply by 1: the product is the rounded number. Halfway cases, overflow, subnormals and both infinities.
    odd = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x00012345, 0x80012345, 0x7F800000, 0xFF800000]
    draws = np.random.RandomState(0).randint(0, 2**32, 5000, np.uint64)
    bits = np.concatenate([draws, np.array(odd, np.uint64)]).astype(np.uint32)
    x = bits.view(np.float32)
    x = x[~np.isnan(x)]
    out = run_matmul(twin, x[:, None], np.ones((1, 1), np.float32))[:, 0]
    assert np.array_equal(out, rounded(x))


def test_products_are_sums_of_rounded_numbers(twin):
    for x, weight in products():
        out = run_matmul(twin, x, weight)
        exact = rounded(x).astype(np.float64) @ rounded(weight).astype(np.float64).T
        assert np.abs(out - exact).max() <= 1e-6 * np.abs(exact).max() * len(weight[0]) ** 0.5, x.shape


def test_the_order_of_the_sum_is_known(twin):
    """Bit for bit: the second number of a pair first, each step rounded."""
    x, weight = (np.random.RandomState(i).standard_normal((9, 33)).astype(np.float32) for i in range(2))
    assert np.array_equal(run_matmul(twin, x, weight), portable_product(x, weight))


def test_both_twins_return_the_same_bits(native, portable):
    for case in random_stages(6):
        assert np.array_equal(run_stage(native, case), run_stage(portable, case))
    for case in random_patches(6):
        assert np.array_equal(run_patches(native, *case), run_patches(portable, *case))
    for case in random_layers(6):
        assert np.array_equal(run_layer(native, *case), run_layer(portable, *case)), case[0]


@pytest.mark.slow
def test_both_twins_of_training_return_the_same_bits(native, tmp_path):
    twin = Kernels(str(portable_library(tmp_path, files=PORTABLE_TRAINING_FILES)))
    for name, number, case in half_cases(24):
        ours, others = (run_half(kernels, name, case, "_bfloat16") for kernels in (native, twin))
        assert all(np.array_equal(others[key], value) for key, value in ours.items()), (name, number)


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_blocks_equal_those_in_single_precision(kernels, twin, count):
    for i, case in enumerate(random_stages(count)):
        out, expected = run_stage(twin, case), run_stage(kernels, case, bfloat16=False)
        change = np.abs(expected - case["x"]).max()
        assert np.abs(out - expected).max() <= 0.03 * change, i
        # Rounding has no direction: the mean of many errors is far smaller.
        assert np.abs((out - expected).mean()) <= 0.002 * change, i


def test_a_hidden_layer_may_have_one_neuron(kernels, twin):
    case = next(random_stages(1))
    for block in case["blocks"]:
        block |= {"w1": block["w1"][:1], "b1": block["b1"][:1], "w2": block["w2"][:, :1]}
    out, expected = run_stage(twin, case), run_stage(kernels, case, bfloat16=False)
    assert np.abs(out - expected).max() <= 0.03 * np.abs(expected - case["x"]).max()


def test_a_stage_is_its_blocks_one_after_the_other(twin):
    case = next(random_stages(1))
    once = run_stage(twin, case)
    first = {**case, "blocks": case["blocks"][:1]}
    x = run_stage(twin, first)
    assert np.array_equal(once, run_stage(twin, {**case, "x": x, "blocks": case["blocks"][1:]}))


@pytest.mark.parametrize("name, bfloat16", [("native", True), ("portable", True), ("kernels", False)])
def test_the_last_block_may_compute_the_first_tokens_only(request, name, bfloat16):
    library = request.getfixturevalue(name)
    for case in random_stages(4):
        whole = run_stage(library, case, bfloat16=bfloat16)
        for kept in (1, 2):
            assert np.array_equal(run_stage(library, case, kept, bfloat16), whole[:, :, :kept])


@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_patches_are_convolved_and_normalized(kernels, twin, count):
    for i, case in enumerate(random_patches(count)):
        out, expected = run_patches(twin, *case), expected_patches(kernels, *case)
        assert np.abs(out - expected).max() <= 1e-4 * np.abs(expected).max(), (i, case[0])


@pytest.mark.parametrize("count", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_layers_of_detectors_equal_their_definition(twin, count):
    for i, (name, inputs) in enumerate(random_layers(count)):
        whole = name == "conv3x3_int16"
        out, expected = run_layer(twin, name, inputs), expected_layer(name, inputs, exact=whole)
        assert np.abs(out - expected).max() <= (2e-3 if whole else 1e-5) * np.abs(expected).max(), (i, name)


def large_convolution() -> tuple[str, list[np.ndarray]]:
    rng = np.random.RandomState(0)
    x, weight = rng.standard_normal((2, 256, 14, 14)), rng.standard_normal((70, 256, 3, 3)) / 48
    return "conv3x3_int16", [x.astype(np.float32), weight.astype(np.float32), np.zeros(70, np.float32), np.float32([0])]


def test_whole_numbers_round_less_than_bfloat16(twin):
    name, inputs = large_convolution()
    exact = expected_layer(name, inputs, exact=True)
    definition, out = expected_layer(name, inputs) - exact, run_layer(twin, name, inputs) - exact
    assert 0 < np.abs(out).max() < 0.6 * np.abs(definition).max() and out.std() < 0.4 * definition.std()
    # A channel a thousand times larger than the others, and powers of two, which change no bit of the sums.
    inputs[0][:, 3] *= 1000
    expected, out = expected_layer(name, inputs, exact=True), run_layer(twin, name, inputs)
    assert np.abs(out - expected).max() < 2e-3 * np.abs(expected).max()
    assert np.array_equal(run_layer(twin, name, [inputs[0] * 2.0**-30, inputs[1] * 2.0**20, *inputs[2:]]), out / 1024)


def test_the_sum_of_the_largest_whole_numbers_does_not_overflow(twin):
    """Equal signs at every input: the sum is the product of both norms, its bound."""
    for channels in (1, 2, 256):
        x, weight = np.ones((1, channels, 6, 6), np.float32), np.ones((3, channels, 3, 3), np.float32)
        inputs = [x, weight, np.zeros(3, np.float32), np.float32([0])]
        out = run_layer(twin, "conv3x3_int16", inputs)
        assert np.abs(out - expected_layer("conv3x3_int16", inputs)).max() < 2e-3 * 9 * channels
    assert not run_layer(twin, "conv3x3_int16", [0 * x, weight, inputs[2], inputs[3]]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_all_outputs_of_their_tile(twin, value):
    name, inputs = large_convolution()
    inputs[3][:] = 1  # a ReLU keeps a NaN
    clean = run_layer(twin, name, inputs)
    inputs[0][0, 5, 6, 9] = value
    out = run_layer(twin, name, inputs)
    # Tiles of 4 x 4 outputs with a border of one: rows 4 to 7, columns 8 to 11.
    assert not np.isfinite(out[0, :, 4:8, 8:12]).any()
    out[0, :, 4:8, 8:12] = clean[0, :, 4:8, 8:12]
    assert np.array_equal(out, clean)
    for name, inputs in random_layers(2):
        inputs[0][0, 0] = value
        out, expected = run_layer(twin, name, inputs), expected_layer(name, inputs)
        assert np.array_equal(np.isnan(out[0]), np.isnan(expected[0])) or name == "conv3x3_int16"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_window(kernels, twin, value):
    case = next(random_stages(1))
    case["settings"][1] = 0  # no shuffle
    case["x"][0, 0, 1, 1] = value
    out, expected = run_stage(twin, case), run_stage(kernels, case, bfloat16=False)
    assert np.array_equal(np.isfinite(out), np.isfinite(expected)) and not np.isfinite(out[0, 0]).any()


def test_number_of_threads_changes_nothing(twin, tmp_path):
    """Every sum is computed by one thread."""
    outputs = []
    for threads in ("1", "8"):
        output = tmp_path / f"{threads}.npz"
        line = [sys.executable, str(SCRIPT), twin.library._name, str(output), "6"]
        subprocess.run(line, check=True, env={"MSG_MS_THREADS": threads, "PATH": os.environ["PATH"]})
        with np.load(output) as file:
            outputs.append(dict(file))
    assert outputs[0] and all(np.array_equal(outputs[1][key], one) for key, one in outputs[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-mno-avx512f", "-march=x86-64"])
def test_the_portable_twin_on_processors_with_shorter_vectors(kernels, portable, flags, tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip("the flags are for x86-64")
    assert not Kernels(str(kernel_library((flags,)))).library.supports_bfloat16()
    others = Kernels(str(portable_library(tmp_path, (flags,))))
    for x, weight in products():
        assert np.array_equal(run_matmul(others, x, weight), run_matmul(portable, x, weight))
    for name, inputs in random_layers(6):  # the order of a row's norm is another
        out, expected = run_layer(others, name, inputs), run_layer(portable, name, inputs)
        limit = 1e-3 * np.abs(expected).max() if name == "conv3x3_int16" else 0
        assert np.abs(out - expected).max() <= limit
    for case in random_stages(12):
        out, expected = run_stage(others, case), run_stage(kernels, case, bfloat16=False)
        assert np.abs(out - expected).max() <= 0.03 * np.abs(expected - case["x"]).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["native", "portable"])
def test_address_sanitizer_finds_nothing(request, name, tmp_path):
    environment = sanitizer_environment()
    request.getfixturevalue(name)  # skips a CPU without the instructions
    library = kernel_library(SANITIZE) if name == "native" else portable_library(tmp_path / "csrc", SANITIZE)
    line = [sys.executable, str(SCRIPT), str(library), str(tmp_path / "o.npz"), "20"]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_packed_weights_hold_two_numbers_each(kernels):
    weight = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    packed = pack(kernels, weight)
    assert packed.view(np.uint16).reshape(-1)[:2].tolist() == [0x3F80, 0x4000]  # 1 and 2
