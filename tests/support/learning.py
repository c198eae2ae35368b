"""The data and settings of the learning comparison, the same for both sides: no framework in here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

STEPS, BATCH, SIZE, CLASSES = 300, 32, 32, 10
MODEL = dict(
    img_size=SIZE, embed_dim=32, depths=(1, 2), num_heads=(2, 4), window_size=4, shuffle_size=(2, 1),
    num_classes=CLASSES, drop_path_rate=0.0,
)  # fmt: skip
RATE, WARMUP_STEPS, WEIGHT_DECAY, CLIP, SMOOTHING = 5e-4, 20, 0.05, 5.0, 0.1


def rate_at(k: int) -> float:
    """Linear warm-up, then constant."""
    return RATE * min(1.0, (k + 1) / WARMUP_STEPS)


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's digits, enlarged to 32 x 32: float32 (32, 3, 32, 32) and int64 (32,), in one fixed order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    draws = np.random.RandomState(5)
    for _ in range(STEPS):
        chosen = draws.randint(0, len(digits.target), BATCH)
        images = (digits.images[chosen] / 8 - 1).repeat(4, 1).repeat(4, 2).astype(np.float32)
        yield np.ascontiguousarray(np.broadcast_to(images[:, None], (BATCH, 3, SIZE, SIZE))), digits.target[chosen]


def initial_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights under PyTorch's names, drawn in the names' order as the paper's code initialises them."""
    draws = np.random.RandomState(6)
    weights = {}
    for name in sorted(shapes):
        values = draws.standard_normal(shapes[name]).astype(np.float32)
        if "norm" in name:
            weights[name] = np.full(shapes[name], float(name.endswith("weight")), np.float32)
        elif name.endswith(".bias"):
            weights[name] = np.zeros(shapes[name], np.float32)
        else:
            fan_in = np.prod(shapes[name][1:])
            deviation = fan_in**-0.5 if len(shapes[name]) == 4 and "weight" in name else 0.02
            weights[name] = (deviation * values).astype(np.float32)
    return weights
