"""RoIAlign against mmcv, native against composed, on several levels."""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.detection import TABLE, model_settings
from support.native import kernel_library

from msg_ms.models.detection.roi_head import map_roi_levels
from msg_ms.ops import RoIAlign, use_backend

pytestmark = pytest.mark.usefixtures("eager")  # the tests of graphs compile


def run(backend: str, features, rois, levels, cotangent, sampling: int = 0, **settings) -> tuple[np.ndarray, list]:
    """Return the output and the gradient of each map."""
    with use_backend(backend):
        strides = [4 * 2**i for i in range(len(features))]
        roi_align = RoIAlign(cotangent.shape[-1], strides, sampling, **settings)
    rois, levels, cotangent = Tensor(rois), Tensor(levels), Tensor(cotangent)

    def weighted(*maps):
        out = roi_align(maps, rois, levels)
        return (out * cotangent).sum(), out

    numbers = tuple(range(len(features)))
    gradients, (out,) = ms.grad(weighted, numbers, has_aux=True)(*(Tensor(x) for x in features))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return out.asnumpy(), [x.asnumpy() for x in gradients]


@pytest.mark.parametrize("backend", ["native", "composed"])
def test_pieces(pieces, backend):
    features, rois = pieces["roi.features"], pieces["roi.rois"]
    # The bound of the composed form, here large enough for every RoI.
    longest = int(np.ceil((rois[:, 3:] - rois[:, 1:3]).max() / 4))
    for (side, sampling), key in pieces.match(r"roi\.out(\d+)_ratio(\d+)").items():
        cotangent, levels = pieces[f"roi.cotangent{side}"], np.zeros(len(rois), np.int32)
        out, (gradient,) = run(
            backend, [features], rois, levels, cotangent, int(sampling), max_cells=longest
        )  # fmt: skip
        TABLE.check(f"{key}, {backend}", out, pieces[key])
        key = f"roi.grad{side}_ratio{sampling}"
        TABLE.check(f"{key}, {backend}", gradient, pieces[key], "gradient")


def random_case(seed: int, batch: int, channels: int, count: int, rois: int, side: int) -> tuple:
    rng = np.random.RandomState(seed)
    height, width = 4 * rng.randint(8, 40), 4 * rng.randint(8, 40)
    shapes = [(batch, channels, -(-height // 2**i // 4) + 1, -(-width // 2**i // 4) + 1) for i in range(count)]
    features = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    corners = rng.rand(rois, 2, 2) * [width, height] * 1.3 - 0.15 * np.array([width, height])
    # The first RoI is inverted, the second has no area.
    corners[2:].sort(1)
    corners[1, 1] = corners[1, 0]
    image = rng.randint(0, batch, (rois, 1))
    rois = np.concatenate([image, corners.reshape(-1, 4)], 1).astype(np.float32)
    levels = rng.randint(0, count, len(rois)).astype(np.int32)
    return features, rois, levels, rng.standard_normal((len(rois), channels, side, side)).astype(np.float32)


CASES = [(1, 3, 1, 6, 7, 0), (2, 5, 4, 20, 7, 0), (3, 1, 3, 9, 14, 0), (2, 18, 2, 11, 3, 2), (1, 4, 4, 2, 28, 0)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_equals_composed(case):
    *sizes, sampling = case
    inputs = random_case(sum(case), *sizes)
    native, composed = (run(name, *inputs, sampling, max_cells=60) for name in ("native", "composed"))
    for actual, expected in zip([native[0], *native[1]], [composed[0], *composed[1]], strict=True):
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1e-3)
    assert not native[0][1].any() or sampling


@pytest.mark.parametrize("backend", ["native", "composed"])
def test_in_a_graph(backend):
    # A low bound for a short compilation: the longer RoIs are sampled coarsely.
    inputs = random_case(3, 2, 5, 2, 7, 7)
    eager_run = run(backend, *inputs, max_cells=14)
    ms.set_context(mode=ms.GRAPH_MODE)
    compiled = run(backend, *inputs, max_cells=14)
    for actual, expected in zip([compiled[0], *compiled[1]], [eager_run[0], *eager_run[1]], strict=True):
        assert np.abs(actual - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("backend", ["native", "composed"])
def test_nan_and_infinity(backend):
    features = [np.random.RandomState(0).standard_normal((1, 2, 12, 16)).astype(np.float32)]
    features[0][0, 1, 5, 5], features[0][0, 0, 8, 12] = np.nan, np.inf
    rois = np.float32([[0, 8, 8, 30, 30], [0, 40, 4, 60, 40], [0, np.nan, 4, 20, 20], [0, 4, 4, 9, 9]])
    levels, cotangent = np.zeros(4, np.int32), np.ones((4, 2, 2, 2), np.float32)
    out, _ = run(backend, features, rois, levels, cotangent, max_cells=10)
    assert np.isfinite(out[0, 0]).all() and np.isnan(out[0, 1, 1, 1]) and np.isfinite(out[0, 1, 0, 0])
    assert not np.isfinite(out[1, 0]).all() and np.isfinite(out[1, 1]).all()
    assert np.isnan(out[2]).all() and np.isfinite(out[3]).all()


def test_half_precision_is_composed():
    inputs = random_case(4, 1, 4, 2, 5, 7)
    with use_backend("native"):
        roi_align = RoIAlign(7, (4, 8))
    features, rois, levels = inputs[0], Tensor(inputs[1]), Tensor(inputs[2])
    half = roi_align(tuple(Tensor(x.astype(np.float16)) for x in features), rois, levels)
    full = roi_align(tuple(Tensor(x) for x in features), rois, levels)
    assert half.dtype == ms.float16
    assert np.abs(half.asnumpy() - full.asnumpy()).max() < 0.01


THREADS = """
import sys, numpy as np
from support.kernels import Kernels
with np.load(sys.argv[2]) as file:
    *maps, rois, levels, settings, dout = file.values()
kernels = Kernels(sys.argv[1])
inputs = [*maps, rois, levels, settings]
outputs = kernels("roi_align", inputs, [dout.shape])
outputs += kernels("roi_align_grad", [*inputs, dout], [x.shape for x in maps])
outputs += kernels("nms", [rois[None, :, 1:], np.ones((1, len(rois))), np.array([0.5])], [(1, len(rois))])
np.savez(sys.argv[3], *outputs)
"""


def test_any_number_of_threads_computes_the_same_bits(tmp_path):
    features, rois, levels, cotangent = random_case(5, 2, 7, 4, 15, 7)
    settings = np.float32([7, 0, *(1 / 2**i / 4 for i in range(4)), *[0] * 7])
    np.savez(tmp_path / "in.npz", *features, rois, levels.astype(np.float32), settings, cotangent)
    found = []
    for threads in ("1", "3"):
        environment = {**os.environ, "MSG_MS_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[2])}
        line = [sys.executable, "-c", THREADS, str(kernel_library()), tmp_path / "in.npz", tmp_path / "out.npz"]
        subprocess.run(line, check=True, env=environment)
        with np.load(tmp_path / "out.npz") as file:
            found.append(list(file.values()))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
    out, gradients = run("native", features, rois, levels, cotangent)
    assert all(np.array_equal(a, b) for a, b in zip(found[0][:5], [out, *gradients], strict=True))


def test_features_of_the_detector(detector):
    features = [detector[f"train_bn/fpn{i}"] for i in range(4)]
    side = model_settings()["roi_head"]["bbox_roi_extractor"]["roi_layer"]["output_size"]
    for (stage,), key in detector.match(r"train_bn/s(\d)\.roi_feats").items():
        expected = detector[key]
        rois = detector[f"train_bn/s{stage}.rois"][: len(expected)]
        levels = map_roi_levels(Tensor(rois[:, 1:])).asnumpy()
        assert expected.shape[-1] == side
        for backend in ("native", "composed"):
            longest = int(np.ceil((rois[:, 3:] - rois[:, 1:3]).max() / 4))
            out, _ = run(backend, features, rois, levels, np.zeros_like(expected), max_cells=min(longest, 56))
            TABLE.check(f"detector roi_feats, {backend}", out, expected)
