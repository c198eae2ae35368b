"""The C++ operations on pixels against Pillow, bit for bit, and their absence."""

import hashlib
import logging
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from msg_ms.data.pixels import native, warp
from msg_ms.data.pixels.collate import Buffers, Erasing, collate
from msg_ms.data.pixels.decode import scan_jpeg_in_python
from msg_ms.data.pixels.transforms import resize, resize_and_crop
from msg_ms.data.seeds import generators

MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native._library.cache_clear()
    yield
    native._library.cache_clear()


def random_image(rng, height, width):
    """Noise, or only the values 0 and 255, which overshoot the most."""
    values = rng.integers(0, 256, (height, width, 3), np.uint8)
    return values if rng.random() < 0.5 else (values // 128 * 255).astype(np.uint8)


def test_resize_crop_and_flip_equal_pillow():
    rng = np.random.default_rng(0)
    for case in range(400):
        height, width = rng.integers(1, (20, 400)[case % 2], 2)
        new_height, new_width = (int(side) for side in rng.integers(1, (300, 40)[case % 3 == 0], 2))
        if case % 5 == 0:
            new_width = int(width)
        if case % 7 == 0:
            new_height = int(height)
        top, left = int(rng.integers(new_height)), int(rng.integers(new_width))
        part = (top, left, int(rng.integers(1, new_height - top + 1)), int(rng.integers(1, new_width - left + 1)))
        interpolation, mirror = ("bilinear", "bicubic")[case % 4 // 2], bool(case % 8 // 4)
        big = random_image(rng, height + 3, width + 2)
        image = big[1 : 1 + height, 2 : 2 + width]  # rows with a gap between them
        expected = np.asarray(Image.fromarray(image).resize((new_width, new_height), MODES[interpolation]))
        expected = expected[top : top + part[2], left : left + part[3]]
        result = native.resize(image, (new_height, new_width), part, interpolation, mirror)
        message = f"{height} x {width} to {new_height} x {new_width}, part {part}, {interpolation}, mirror {mirror}"
        np.testing.assert_array_equal(result, expected[:, ::-1] if mirror else expected, message)


def test_rotations_equal_pillow_on_x86_and_are_the_same_elsewhere():
    """Pillow's wheel for aarch64 fuses multiplications and additions: few of its values differ from x86's, by 1."""
    rng = np.random.default_rng(1)
    ours = hashlib.sha256()
    for case in range(60):
        image = random_image(rng, *rng.integers(1, 120, 2))
        degrees = float(rng.uniform(-400, 400)) if case % 6 else float(rng.integers(-4, 5) * 90)
        result = warp.rotate(image, degrees)
        ours.update(result.tobytes())
        expected = np.asarray(Image.fromarray(image).rotate(degrees, MODES["bicubic"], fillcolor=warp.FILL))
        if platform.machine() == "x86_64":
            np.testing.assert_array_equal(result, expected, f"{degrees} degrees")
        else:
            difference = np.abs(result.astype(int) - expected)
            assert difference.max() <= 1 and (difference > 0).sum() <= max(1, 1e-3 * difference.size), degrees
    assert ours.hexdigest()[:16] == "8711120766371cd7"


def test_pillow_replaces_the_library_without_a_compiler(without_compiler, caplog, monkeypatch):
    image = random_image(np.random.default_rng(2), 51, 70)
    with caplog.at_level(logging.WARNING, "msg_ms"):
        assert native.resize(image, (9, 8), (0, 0, 9, 8), "bicubic", False) is None
        results = [
            resize(image, (9, 8), "bicubic", (2, 1, 5, 6), mirror=True),
            resize_and_crop(image, 32, "random", True),
        ]
        results.append(warp.rotate(image, 20.0))
    (line,) = {record.getMessage() for record in caplog.records}
    assert line.startswith("images are resized with Pillow, slower than native code: no C++ compiler found")
    monkeypatch.delenv("CXX")
    native._library.cache_clear()
    again = [
        resize(image, (9, 8), "bicubic", (2, 1, 5, 6), mirror=True),
        resize_and_crop(image, 32, "random", True),
    ]
    again.append(warp.rotate(image, 20.0))
    for one, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("side", (1, 7, 33, 64))
@pytest.mark.parametrize("weight", (1.0, 0.3))
def test_normalisation_and_blending_equal_opencv(side, weight, without_compiler, monkeypatch):
    rng = np.random.default_rng(3)
    images = [random_image(rng, side, side + 2) for _ in range(5)]
    erasing = [[Erasing(0, 0, 1, 1, np.ones((3, 1, 1), np.float32))], [], [], [], []]
    with_opencv = collate(images, erasing, weight)
    monkeypatch.delenv("CXX")
    native._library.cache_clear()
    np.testing.assert_array_equal(collate(images, erasing, weight), with_opencv)


def test_the_markers_of_damaged_files_are_read_as_in_python():
    rng = np.random.default_rng(4)
    pixels = random_image(rng, 24, 31)
    files = []
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        files.append(cv2.imencode(".jpg", pixels, options)[1].tobytes())
    verdicts = set()
    for case in range(6000):
        content = bytearray(files[case % 3])
        for _ in range(rng.integers(3)):
            content[rng.integers(len(content))] = rng.choice(
                [0, 8, 0xFF, 0xC0, 0xC2, 0xD9, 0xDA, 0xDB, 0xE0, rng.integers(256)]
            )
        encoded = bytes(content[: len(content) if case % 4 else rng.integers(len(content) + 1)])
        verdicts.add(native.scan_jpeg(encoded, Image.MAX_IMAGE_PIXELS))
        assert native.scan_jpeg(encoded, Image.MAX_IMAGE_PIXELS) == scan_jpeg_in_python(encoded), encoded
    assert len(verdicts) >= 3


def test_memory_of_a_batch_is_used_again_once_it_is_free():
    buffers, images = Buffers(2), [np.zeros((4, 4, 3), np.uint8)]
    first, second = collate(images, buffers=buffers), collate(images, buffers=buffers)
    view, address = second[0], first.ctypes.data
    del first, second
    third, fourth = collate(images, buffers=buffers), collate(images, buffers=buffers)
    assert third.ctypes.data == address and len({view.ctypes.data, address, fourth.ctypes.data}) == 3


@pytest.mark.parametrize("seed, epoch", ((0, 0), (5, 299), (2**32 - 1, 1), (2**40, 3)))
def test_generators_of_a_batch_are_numpys(seed, epoch):
    indices = np.array([0, 1, 1_281_166, 2**31, 2**33][: 5 if epoch else 4])
    for rng, index in zip(generators(seed, epoch, indices), indices.tolist(), strict=True):
        assert rng.bit_generator.state == np.random.default_rng((seed, epoch, index)).bit_generator.state


def test_the_form_for_other_processors_equals_pillow():
    """Without AVX-512 the sums have another form; a processor that lacks it runs this form in the other tests."""
    code = (
        "import numpy as np; from PIL import Image; from msg_ms.data.pixels import native; "
        "native.FLAGS += ('-mno-avx512f',); image = np.random.RandomState(0).randint(0, 256, (97, 131, 3), np.uint8); "
        "out = native.resize(image, (55, 66), (0, 0, 55, 66), 'bicubic', False); "
        "print((out == np.asarray(Image.fromarray(image).resize((66, 55), 3))).all())"
    )
    if platform.machine() != "x86_64" or "avx512f" not in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.skip("this processor has no AVX-512, so the other tests run this form")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=100)
    assert done.stdout.split()[-1] == "True", done.stderr
