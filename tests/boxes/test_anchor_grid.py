"""The fast assignment of anchors equals the plain one, bit for bit."""

import numpy as np
import pytest

from msg_ms.boxes.anchor_assigner import AssignRule, assign_anchors
from msg_ms.boxes.anchor_grid import AnchorGrid
from msg_ms.boxes.anchor_sampler import sampled_targets
from msg_ms.boxes.anchors import inside_flags

RULES = (AssignRule(0.7, 0.3, True, 0.3), AssignRule(0.5, 0.4, True, 0.1))


def random_boxes(rng: np.random.Generator, height: int, width: int, whole: bool) -> np.ndarray:
    """Boxes from a pixel to the whole image; whole multiples of 8 tie with anchors."""
    count = int(rng.integers(0, 25))
    centres, sides = rng.random((count, 2)) * [width, height], np.exp(rng.uniform(0, 6.5, (count, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    boxes = np.round(boxes / 8) * 8 if whole else boxes
    return np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)


@pytest.mark.parametrize("canvas", [(160, 96), (384, 512)])
@pytest.mark.parametrize("rule", RULES, ids=("rpn", "other"))
def test_targets_equal_those_of_all_anchors(canvas, rule):
    rng, grid, positives = np.random.default_rng(0), AnchorGrid(*canvas), 0
    for seed in range(25):
        shape = tuple(int(rng.integers(side // 2, side + 1)) for side in canvas)
        boxes = random_boxes(rng, *shape, whole=seed % 3 == 0)
        inside = inside_flags(grid.anchors, shape)
        assigned = np.full(len(inside), -1, np.int32)
        assigned[inside] = assign_anchors(grid.anchors[inside], boxes, rule)[0]
        plain = sampled_targets(grid.anchors, assigned, boxes, np.random.default_rng(seed), 64, 32)
        fast = grid.targets(boxes, shape, np.random.default_rng(seed), 64, 32, rule)
        assert all(map(np.array_equal, fast, plain))
        positives += int(plain.labels.sum())
    assert positives > 50


def test_an_image_smaller_than_all_anchors_has_no_samples():
    targets = AnchorGrid(64, 96).targets(np.float32([[2, 2, 12, 12]]), (16, 20), np.random.default_rng(0))
    assert not targets.weights.any() and not targets.indices.any()
