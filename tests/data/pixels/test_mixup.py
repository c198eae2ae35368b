"""Mixing and soft labels, by their definition."""

import numpy as np
import pytest

from msg_ms import UserError
from msg_ms.config import load_config
from msg_ms.data.pixels.collate import collate
from msg_ms.data.pixels.mixup import Mixup, build_mixup, soft_labels
from msg_ms.data.pixels.transforms import color_jitter, erasing_fill

# Each value differs from the value at the same position in the mirrored batch.
IMAGES = [np.full((6, 8, 3), 60 * i, np.uint8) + np.arange(3, dtype=np.uint8) for i in range(4)]


def test_mixup_blends_with_the_mirrored_batch():
    weight, box = Mixup(0.8, 0.0, None, 1.0, 0.5).draw(6, 8, np.random.default_rng(0))
    assert 0 < weight < 1 and box is None
    plain, mixed = collate(IMAGES), collate(IMAGES, weight=weight)
    assert np.allclose(mixed, plain * weight + plain[::-1] * (1 - weight), atol=1e-5)


def test_cutmix_exchanges_a_box_with_the_mirrored_batch():
    plain = collate(IMAGES)
    for seed in range(20):
        weight, box = Mixup(0.0, 1.0, None, 1.0, 0.5).draw(6, 8, np.random.default_rng(seed))
        mixed = collate(IMAGES, weight=weight, box=box)
        pasted = (mixed == plain[::-1]) & (mixed != plain)
        assert ((mixed == plain) | pasted).all()
        assert np.isclose(pasted[0, 0].mean(), 1 - weight)
        rows, columns = np.nonzero(pasted[0, 0])
        if len(rows):  # one rectangle, the same for all channels and images
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert (pasted == pasted[0, 0]).all()


def test_probability_zero_mixes_nothing():
    assert Mixup(0.8, 1.0, None, 0.0, 0.5).draw(6, 8, np.random.default_rng(0)) == (1.0, None)


def test_minmax_bounds_the_sides_of_the_box():
    mix = Mixup(0.0, 1.0, (0.25, 0.75), 1.0, 0.5)
    for seed in range(50):
        _, (top, bottom, left, right) = mix.draw(100, 200, np.random.default_rng(seed))
        assert 25 <= bottom - top < 75 and 50 <= right - left < 150 and top >= 0 and right <= 200


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (7, 224), (1, 2)])
def test_boxes_are_timms(height, width):
    """timm's rand_bbox and rand_bbox_minmax, with the same draws."""
    for seed in range(200):
        ours = Mixup(0.0, 1.0, None, 1.0, 0.5).draw(height, width, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()
        ratio = np.sqrt(1 - rng.beta(1.0, 1.0))
        cut_h, cut_w = int(height * ratio), int(width * ratio)
        cy, cx = rng.integers(0, height), rng.integers(0, width)
        yl, yh = np.clip(cy - cut_h // 2, 0, height), np.clip(cy + cut_h // 2, 0, height)
        xl, xh = np.clip(cx - cut_w // 2, 0, width), np.clip(cx + cut_w // 2, 0, width)
        assert ours == (1 - (yh - yl) * (xh - xl) / (height * width), (yl, yh, xl, xh))
        if min(height, width) < 10:
            continue
        _, ours = Mixup(0.0, 1.0, (0.2, 1.0), 1.0, 0.5).draw(height, width, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random(), rng.beta(1.0, 1.0)
        cut_h = rng.integers(int(height * 0.2), int(height * 1.0))
        cut_w = rng.integers(int(width * 0.2), int(width * 1.0))
        yl, xl = rng.integers(0, height - cut_h), rng.integers(0, width - cut_w)
        assert ours == (yl, yl + cut_h, xl, xl + cut_w)


def test_soft_labels_are_smoothed_and_mixed():
    soft = soft_labels(np.array([0, 1, 2]), 4, 0.1, 0.7)
    assert np.allclose(soft.sum(1), 1)
    assert np.allclose(soft[0], [0.7 * 0.925 + 0.3 * 0.025, 0.025, 0.7 * 0.025 + 0.3 * 0.925, 0.025])
    assert np.allclose(soft[1], [0.025, 0.925, 0.025, 0.025])  # the middle image is mixed with itself


def test_configuration():
    def aug(*opts):
        return load_config(None, opts).aug

    assert build_mixup(aug()) == Mixup(0.8, 1.0, None, 1.0, 0.5)
    assert build_mixup(aug("AUG.MIXUP", "0", "AUG.CUTMIX", "0")) is None
    assert build_mixup(aug("AUG.CUTMIX", "0", "AUG.CUTMIX_MINMAX", "[0.2,0.8]")).minmax == (0.2, 0.8)
    with pytest.raises(UserError, match=r"AUG.MIXUP_MODE='elem': only 'batch'"):
        build_mixup(aug("AUG.MIXUP_MODE", "elem"))


@pytest.mark.parametrize(("mode", "kinds"), [("pixel", 3 * 5 * 7), ("rand", 3), ("const", 1)])
def test_fill_of_an_erased_box(mode, kinds):
    fill = np.broadcast_to(erasing_fill(mode, 5, 7, np.random.default_rng(0)), (3, 5, 7))
    assert len(np.unique(fill)) == kinds and (mode != "const" or not fill.any())


def test_color_jitter_keeps_within_its_strength():
    image = np.full((4, 4, 3), 100, np.uint8)
    means = [int(color_jitter(image, 0.4, np.random.default_rng(i)).mean()) for i in range(200)]
    assert min(means) >= 59 and max(means) <= 140 and np.ptp(means) > 60
    assert (color_jitter(image, 0.0, np.random.default_rng(0)) == 100).all()
