"""RandAugment's operations against timm's on Pillow, and its configuration strings."""

import math

import cv2
import numpy as np
import pytest
from support.reference import FIXTURES

from msg_ms import UserError
from msg_ms.data.pixels.rand_augment import RandAugment, operations, parse_rand_augment

SHIFTS = {"ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


class Sign:
    """A generator that makes each operation draw the given sign."""

    def __init__(self, name: str):
        self.value = 0.9 if name == "neg" else 0.1

    def random(self) -> float:
        return self.value


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "randaug_ops.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def image():
    return cv2.cvtColor(cv2.imread(str(FIXTURES / "images" / "randaug_input_96x80.png")), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("name", operations(increasing=True))
def test_operation_matches_timm(name, image, reference):
    cases = [key for key in reference if key.startswith(f"{name}/")]
    assert len(cases) == 6
    for key in cases:
        _, magnitude, sign = key.split("/")
        output = operations(increasing=True)[name](image, float(magnitude[1:]), Sign(sign))
        difference = np.abs(output.astype(int) - reference[key])
        if name in SHIFTS:  # OpenCV's interpolation in place of Pillow's
            assert difference.mean() < 1.0, key
        else:
            assert difference.max() == 0, key


def test_flat_images_do_not_break_histogram_operations():
    flat = np.full((5, 7, 3), 77, np.uint8)
    for name in ("AutoContrast", "Equalize", "ContrastIncreasing"):
        assert (operations(increasing=True)[name](flat, 9.0, Sign("pos")) == 77).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment(9, 2, 0.5, 0.5, 10, True)),
        ("rand-m7-n3-mstd0.5", RandAugment(7, 3, 0.5, 0.5, 10, False)),
        ("rand-m5-p0.25-mmax20-mstd101", RandAugment(5, 2, 0.25, math.inf, 20, False)),
        ("rand", RandAugment()),
        ("none", None),
    ],
)
def test_configuration_strings(text, expected):
    assert parse_rand_augment(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("original", "must be 'none' or start with 'rand'"),
        ("rand-m9-mst0.5", r"unknown section 'mst0.5'; did you mean 'mstd'\?"),
        ("rand-m", "unknown section 'm'"),
        ("rand-n0", "'n0' needs an integer of at least 1"),
        ("rand-p2", "p must be between 0 and 1"),
        ("rand-tweights", "unknown section 'tweights'"),
    ],
)
def test_wrong_strings_are_named(text, message):
    with pytest.raises(UserError, match=f"AUG.AUTO_AUGMENT='{text}': .*{message}"):
        parse_rand_augment(text)
