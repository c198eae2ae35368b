"""The C++ operations on pixels against Pillow, bit for bit, and their absence."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from msg_ms.data import native, warp
from msg_ms.data.transforms import resize, resize_and_crop

MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")


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


def test_rotations_equal_pillow():
    rng = np.random.default_rng(1)
    for case in range(60):
        image = random_image(rng, *rng.integers(1, 120, 2))
        degrees = float(rng.uniform(-400, 400)) if case % 6 else float(rng.integers(-4, 5) * 90)
        expected = Image.fromarray(image).rotate(degrees, MODES["bicubic"], fillcolor=warp.FILL)
        np.testing.assert_array_equal(warp.rotate(image, degrees), np.asarray(expected), f"{degrees} degrees")


def test_pillow_replaces_the_library_without_a_compiler(without_compiler, caplog):
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
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("CXX")
        again = [
            resize(image, (9, 8), "bicubic", (2, 1, 5, 6), mirror=True),
            resize_and_crop(image, 32, "random", True),
        ]
        again.append(warp.rotate(image, 20.0))
    for one, other in zip(results, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_form_for_other_processors_equals_pillow():
    """Without AVX-512 the sums have another form; a processor that lacks it runs this form in the other tests."""
    code = (
        "import numpy as np; from PIL import Image; from msg_ms.data import native; "
        "native.FLAGS += ('-mno-avx512f',); image = np.random.RandomState(0).randint(0, 256, (97, 131, 3), np.uint8); "
        "out = native.resize(image, (55, 66), (0, 0, 55, 66), 'bicubic', False); "
        "print((out == np.asarray(Image.fromarray(image).resize((66, 55), 3))).all())"
    )
    if "avx512f" not in (ROOT / "/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX-512, so the other tests run this form")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.split()[-1] == "True", done.stderr
