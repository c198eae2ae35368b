"""A run that takes seconds: its configuration, and images of three colours to learn."""

from pathlib import Path

import cv2
import numpy as np

CONFIG = """
MODEL:
  NAME: small
  NUM_CLASSES: 3
  DROP_PATH_RATE: 0.3
  MSG: {EMBED_DIM: 16, DEPTHS: [1, 1], NUM_HEADS: [1, 2], WINDOW_SIZE: 4, SHUF_SIZE: [2, 1]}
DATA: {IMG_SIZE: 32, BATCH_SIZE: 4, NUM_WORKERS: 1}
TRAIN: {EPOCHS: 2, WARMUP_EPOCHS: 0}
AUG: {AUTO_AUGMENT: none, COLOR_JITTER: 0.0, REPROB: 0.0, MIXUP: 0.0, CUTMIX: 0.0}
"""
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def write_images(folder: Path) -> None:
    """``data/train`` with four noisy images of each colour, ``data/val`` with three."""
    draws = np.random.RandomState(0)
    for part, count in (("train", 4), ("val", 3)):
        for label, color in enumerate(COLORS):
            (folder / "data" / part / str(label)).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(draws.randn(36, 40, 3) * 20 + color, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / "data" / part / str(label) / f"{i}.png"), pixels)
