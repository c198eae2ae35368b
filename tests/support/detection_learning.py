"""The data, settings and initial weights of the detector's learning comparison, the same for both sides.

No framework in here: the batches are NumPy arrays. ``python -m support.detection_learning FILE`` in ``tests`` writes
all inputs of the PyTorch side, ``benchmarks/torch_detector_training.py``, to a file. With ``--boxes`` at the end they
are those of a detector without masks.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msg_ms.boxes.batches import DetectionBatch
from msg_ms.config import DataConfig, DetectionConfig
from msg_ms.data.coco.split import for_training, read_split
from msg_ms.data.detection import DetectionTrainDataset
from msg_ms.data.pipeline import arrays_of

from .coco import write_split

STEPS, BATCH, CLASSES, SCENES, MAX_GT, ANCHORS = 100, 4, 10, 24, 4, 128
CANVAS = (128, 160)
NAMES = (  # of a batch's arrays, for the PyTorch side
    *("images", "img_shapes", "gt", "gt_labels", "gt_valid", "gt_masks", "gt_frames"),
    *("rpn_indices", "rpn_labels", "rpn_weights", "rpn_deltas", "draws0", "draws1", "draws2"),
)
OF_MASKS = ("gt_masks", "gt_frames")
BACKBONE = dict(
    embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2), window_size=4, shuffle_size=(2, 2, 2, 1),
    drop_path_rate=0.0,
)  # fmt: skip
SETTINGS = dict(
    fpn_channels=24, fc_channels=48, box_size=5, mask_size=7, train_candidates=40, train_proposals=120,
    test_candidates=20, test_proposals=20, roi_samples=124, roi_positives=100,
)  # fmt: skip
FIRST_STEPS, FIRST_RATE = 100, 1e-3  # before the comparison
RATE, WARMUP_STEPS, WEIGHT_DECAY, BETAS, EPSILON = 1e-4, 20, 0.05, (0.9, 0.999), 1e-8


def names(masks: bool = True) -> list[str]:
    """Return the names of a batch's arrays, with masks or without."""
    return [name for name in NAMES if masks or name not in OF_MASKS]


def rate_at(k: int, rate: float = RATE) -> float:
    """Linear warm-up from 0.001 of the rate, then constant."""
    return rate * min(1.0, 0.001 + 0.999 * k / WARMUP_STEPS)


def write_scenes(folder: Path) -> None:
    """Write scenes of scikit-learn's digits as COCO data. Only whole numbers are drawn: every machine has the same."""
    from sklearn.datasets import load_digits

    digits, draws = load_digits(), np.random.RandomState(3)
    images, annotations, pixels = [], [], {}
    for number in range(1, SCENES + 1):
        height, width = (int(side) for side in draws.randint((84, 104), (101, 121)))
        scene = draws.randint(190, 230, (height, width, 3)).astype(np.uint8)
        # One digit in each column, as large as the enlargement has it.
        for x in (2, width // 2 + 1)[: draws.randint(1, 3)]:
            index, factor = draws.randint(len(digits.target)), draws.randint(4, 7)
            scan = digits.images[index].repeat(factor, 0).repeat(factor, 1).astype(int)
            top, left = draws.randint(0, height - len(scan) + 1), x + draws.randint(0, max(width // 2 - len(scan), 1))
            part = scene[top : top + len(scan), left : left + len(scan)]
            scan = scan[:, : part.shape[1]]
            part[:] = part - part * scan[..., None] // 20
            ink = np.zeros((height, width), bool)
            ink[top : top + len(scan), left : left + scan.shape[1]] = scan >= 6
            annotations.append(_annotation(len(annotations) + 1, number, int(digits.target[index]) + 1, ink))
        name = f"{number:04d}.png"
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        pixels[name] = scene
    categories = [{"id": label + 1, "name": str(label)} for label in range(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_split(folder, "train2017", content, pixels)


def _annotation(number: int, image: int, category: int, ink: np.ndarray) -> dict:
    """Return an annotation with the mask as an uncompressed run-length encoding."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = [int(v) for v in (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])]
    flat = ink.T.ravel()  # by columns
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *([0] if flat[0] else []), *ends, len(flat)]).tolist()
    mask = {"size": list(ink.shape), "counts": counts}
    common = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    return {**common, "bbox": box, "area": int(ink.sum()), "segmentation": mask}


def batches(masks: bool = True) -> Iterator[DetectionBatch]:
    """The arrays of ``DetectionTrainDataset`` for every step, without noise: there is no stochastic depth."""
    detection = DetectionConfig(
        short_sides=(96, 112, 128), long_side=CANVAS[1], crop=0.0, canvases=(CANVAS,), max_gt=MAX_GT
    )
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder))
        split = for_training(read_split(Path(folder), "train2017", masks=masks))
        counts = {"proposals": SETTINGS["train_proposals"], "rois": SETTINGS["roi_samples"], "anchors": ANCHORS}
        data = DetectionTrainDataset(split, DataConfig(batch_size=BATCH), detection, 0, 1, **counts, masks=masks)
        yield from data.batches(0, STEPS // (SCENES // BATCH) + 1)


def checksum(batch: DetectionBatch) -> int:
    """Return a checksum of a batch's bytes."""
    value = 0
    for array in arrays_of(batch):
        value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
    return value


def initial_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights under mmdetection's names, drawn in the names' order much as mmdetection initialises them."""
    draws, weights = np.random.RandomState(6), {}
    fixed = {"fc_cls": 0.05, "fc_reg": 0.005, "rpn_cls": 0.1, "rpn_reg": 0.02}
    for name in sorted(shapes):
        shape = shapes[name]
        values = draws.standard_normal(shape).astype(np.float32)
        layer = name.split(".")[-2] if "." in name else name
        if "norm" in name or ".bn." in name:
            weights[name] = np.full(shape, float(name.endswith(("weight", "running_var"))), np.float32)
        elif name.endswith(".bias"):
            # The first layer's normalisation amplifies rounding where its input is zero: in the padding, without bias.
            weights[name] = (values * (0.5 if name.startswith("backbone.patch_embed") else 0.02)).astype(np.float32)
        elif layer in fixed:
            weights[name] = (fixed[layer] * values).astype(np.float32)
        else:
            wide = name.endswith("weight") and not name.startswith("backbone.layers")
            deviation = (2 / np.prod(shape[1:])) ** 0.5 if wide else 0.02
            weights[name] = (deviation * values).astype(np.float32)
    return weights


def torch_shapes(masks: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the shapes of our detector's parameters and statistics under mmdetection's names."""
    from msg_ms.convert import export_state_dict
    from msg_ms.convert.detection_rules import DETECTION_RULES

    own = {p.name: np.empty(p.shape, np.bool_) for p in detector(masks).get_parameters()}
    return {name: value.shape for name, value in export_state_dict(own, buffers=False, rules=DETECTION_RULES).items()}


def detector(masks: bool = True):
    """Return our detector with random weights, with mask heads or without."""
    from msg_ms import create_detector

    return create_detector("cascade_mask_rcnn_msg_tiny", CLASSES, **BACKBONE, **SETTINGS, masks=masks)


def main(file: str, masks: bool) -> None:
    """Write the inputs of the PyTorch side."""
    arrays = {f"state/{name}": values for name, values in initial_weights(torch_shapes(masks)).items()}
    for k, batch in zip(range(STEPS), batches(masks), strict=False):
        arrays[f"checksum/{k}"] = np.array(checksum(batch), np.uint32)
        arrays |= {f"batch/{k}/{name}": values for name, values in zip(names(masks), arrays_of(batch), strict=True)}
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], "--boxes" not in sys.argv)
