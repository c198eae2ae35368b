"""Print the share of padded pixels for sets of canvases: python benchmarks/canvases.py.

The images have the sizes that are most frequent in COCO, with roughly their shares. mmdetection's share is that of
batches of two, grouped by orientation and padded to the larger image.
"""

from __future__ import annotations

import numpy as np
from coco_scale import SIZES

from msg_ms.config import DetectionConfig
from msg_ms.data.canvases import by_area, choose_canvases
from msg_ms.data.pixels.detection_transforms import DRAWS, draw_transforms, rescaled

IMAGES = 40_000
LANDSCAPE = (
    ((800, 1344),),
    ((704, 960), (800, 1344)),
    ((640, 864), (800, 1088), (800, 1344)),
    ((608, 768), (704, 960), (800, 1088), (800, 1344)),
)


def main() -> None:
    rng, config = np.random.default_rng(0), DetectionConfig()
    shares = np.array([share for *_, share in SIZES])
    sizes = np.array([size for *size, _ in SIZES])[rng.choice(len(SIZES), IMAGES, p=shares / shares.sum())]
    training = draw_transforms(sizes, rng.random((IMAGES, DRAWS)), config).sizes
    evaluation = rescaled(sizes, config.test_short_side, config.test_long_side)
    for landscape in LANDSCAPE:
        canvases = by_area([*landscape, *(canvas[::-1] for canvas in landscape)])
        padded = [f"{padded_share(images, canvases):.1%}" for images in (training, evaluation)]
        print(f"{landscape} and mirrored: {padded[0]} of the pixels are padded in training, {padded[1]} in evaluation")
    print(f"mmdetection, batches of two: {pair_share(sizes, training):.1%} in training")


def padded_share(sizes: np.ndarray, canvases: np.ndarray) -> float:
    """Return 1 - pixels of images / pixels of their canvases."""
    return 1 - sizes.prod(1).sum() / canvases[choose_canvases(sizes, canvases)].prod(1).sum()


def pair_share(originals: np.ndarray, sizes: np.ndarray) -> float:
    """Return the padded share of batches of two of the same orientation."""
    padded = pixels = 0
    for group in (originals[:, 1] > originals[:, 0], originals[:, 1] <= originals[:, 0]):
        pairs = sizes[group]
        pairs = pairs[: len(pairs) // 2 * 2].reshape(-1, 2, 2)
        padded += 2 * (-(-pairs // 32) * 32).max(1).prod(1).sum()
        pixels += pairs.prod(2).sum()
    return 1 - pixels / padded


if __name__ == "__main__":
    main()
