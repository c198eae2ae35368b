"""The C++ operations on masks and anchors against NumPy, bit for bit, and their absence."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from pycocotools import mask as coco_mask
from support.sanitizer import sanitizer_environment

from msg_ms.boxes import native
from msg_ms.boxes.anchor_assigner import RPN_RULE
from msg_ms.boxes.anchor_grid import AnchorGrid
from msg_ms.boxes.masks import crop_encoded_masks, paste_masks
from msg_ms.boxes.rle import decode_rle


def random_masks(rng, count):
    """Blocks of pixels, from one pixel to whole images, with their compressed run lengths."""
    height, width = (int(side) for side in rng.integers(1, 400, 2))
    counts = []
    for density in rng.choice([0.0, 0.2, 0.5, 0.8, 1.0], count):
        blocks = rng.random(rng.integers(1, 12, 2)) < density
        repeats = -(-height // blocks.shape[0]), -(-width // blocks.shape[1])
        bitmap = np.repeat(np.repeat(blocks, repeats[0], 0), repeats[1], 1)[:height, :width]
        counts.append(coco_mask.encode(np.asfortranarray(bitmap, np.uint8))["counts"])
    return counts, height, width


def random_boxes(rng, count, height, width):
    sides = np.sort(rng.random((count, 2, 2)) * 1.1 - 0.05, 1) * [width, height]
    boxes = np.clip(sides.reshape(count, 4), 0, [width, height, width, height])
    return np.float32(np.round(boxes) if rng.random() < 0.3 else boxes)


def crops_of(counts, height, rows, columns, boxes):
    crops, frames = np.zeros((len(boxes), 112, 112), np.uint8), np.zeros((len(boxes), 4), np.float32)
    crop_encoded_masks(counts, height, rows, columns, boxes, crops, frames)
    return crops, frames


def cases(count):
    rng = np.random.default_rng(0)
    for case in range(count):
        counts, height, width = random_masks(rng, 4)
        shape = [int(side) for side in rng.integers(1, 600, 2)]
        rows, columns = (np.arange(new) * old // new for new, old in zip(shape, (height, width), strict=True))
        yield counts, height, rows, columns[::-1] if case % 2 else columns, random_boxes(rng, 4, *shape)


def test_crops_equal_numpy(monkeypatch):
    found = [crops_of(*case) for case in cases(40)]
    monkeypatch.setattr(native, "_library", lambda: None)
    for case, (crops, frames) in zip(cases(40), found, strict=True):
        expected = crops_of(*case)
        np.testing.assert_array_equal(crops, expected[0])
        np.testing.assert_array_equal(frames, expected[1])
    assert len(np.unique(np.concatenate([crops for crops, _ in found]))) > 100


def test_pasted_masks_equal_numpy(monkeypatch):
    rng, found, inputs = np.random.default_rng(1), [], []
    for _ in range(30):
        height, width = (int(side) for side in rng.integers(1, 500, 2))
        boxes = random_boxes(rng, 5, height, width)
        boxes[0], boxes[1, 2] = (-3, -7, width + 9, height + 4), boxes[1, 0]  # beyond the image, and without extent
        inputs.append((np.float32(rng.random((5, 28, 28))), boxes, height, width))
        found.append(paste_masks(*inputs[-1]))
    monkeypatch.setattr(native, "_library", lambda: None)
    assert found == [paste_masks(*arrays) for arrays in inputs]
    assert sum(decode_rle(rle).sum() for masks in found for rle in masks) > 100_000
    assert all(coco_mask.decode(rle).shape == tuple(rle["size"]) for masks in found for rle in masks)


@pytest.mark.parametrize("rule", [(0.7, 0.3, 0.3), (0.5, 0.4, 0.1)])
def test_assignment_equals_numpy(rule, monkeypatch):
    rng, grid, positives = np.random.default_rng(2), AnchorGrid(256, 320), 0
    library = native._library()
    for case in range(40):
        shape = tuple(int(side) for side in rng.integers(30, (257, 321)))
        gt = random_boxes(rng, int(rng.integers(0, 20)), *shape)
        gt = np.round(gt / 8) * 8 if case % 3 == 0 else gt  # ties with anchors
        chosen = type(RPN_RULE)(rule[0], rule[1], True, rule[2])
        monkeypatch.setattr(native, "_library", lambda: library)
        assigned = grid.assign(gt, shape, chosen)
        monkeypatch.setattr(native, "_library", lambda: None)
        np.testing.assert_array_equal(assigned, grid.assign(gt, shape, chosen))
        positives += int((assigned > 0).sum())
    assert positives > 100


def test_no_objects():
    empty = np.zeros((0, 4), np.float32)
    assert crops_of([], 5, np.arange(5), np.arange(5), empty)[0].shape == (0, 112, 112)
    assert paste_masks(np.zeros((0, 28, 28), np.float32), empty, 5, 5) == []
    assert (AnchorGrid(64, 64).assign(empty, (64, 64)) <= 0).all()


def test_the_warning_without_a_compiler(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING, "msg_ms"):
        assert native._library.__wrapped__() is None
    assert "masks and anchors are computed with NumPy, slower than native code: no C++ compiler found" in caplog.text


# What a damaged file may hold: the text ends early, is empty, or runs leave the mask.
MEMORY = """
import ctypes, sys
import numpy as np
from msg_ms.boxes import native
from msg_ms.boxes.anchor_grid import AnchorGrid
from msg_ms.native.build import build_library
from support.sanitizer import SANITIZE
library = ctypes.CDLL(str(build_library("boxes", native.SOURCES, (*native.FLAGS, *SANITIZE))))
for name, types in native._ARGUMENTS.items():
    getattr(library, name).argtypes = types
library.paste_masks.restype = ctypes.c_void_p
native._library = lambda: library
rng = np.random.default_rng(0)
for case in range(200):
    height, width, rows, columns = (int(v) for v in rng.integers(1, 60, 4))
    counts = [bytes(rng.integers(48, 112, int(rng.integers(0, 40)), np.uint8)) for _ in range(3)]
    boxes = np.float32(np.sort(rng.random((3, 2, 2)) * 3 - 1, 1).reshape(3, 4) * [columns, rows, columns, rows])
    crops, frames = np.zeros((3, 8, 8), np.uint8), np.zeros((3, 4), np.float32)
    own = rng.integers(0, height, rows), rng.integers(0, width, columns)
    native.crop_masks(counts, height, *own, boxes, crops, frames)
    boxes[0, 0] = np.nan if case % 2 else -1e9
    native.paste_masks(rng.random((3, 5, 7)), boxes, height, width, 0.5)
    AnchorGrid(32 + height, 32 + width).assign(boxes, (height, width))
print("passed")
"""


@pytest.mark.slow
def test_no_access_beyond_the_arrays(tmp_path):
    environment = {**sanitizer_environment(), "PYTHONPATH": str(ROOT), "MSG_MS_CACHE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, encoding="utf-8", env=environment)
    assert result.returncode == 0 and result.stdout.split()[-1] == "passed", result.stderr[-2000:]
