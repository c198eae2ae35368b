"""The models that benchmarks compare: the paper's, and ``small``, which only shows that a benchmark works."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from msg_ms import MSGTransformer, create_detector
from msg_ms.models.detection.cascade_rcnn import CascadeMaskRCNN
from msg_ms.models.detection.settings import DetectorSettings
from msg_ms.models.detection.variants import DETECTORS
from msg_ms.models.variants import VARIANTS

SMALL_CLASSIFIER = dict(
    **dict(embed_dim=16, depths=(1, 1, 1), num_heads=(1, 2, 4), window_size=4, shuffle_size=(4, 2, 1)),
    **dict(img_size=64, num_classes=10),
)
SMALL_DETECTOR = dict(
    **dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, shuffle_size=(2, 2, 1, 1)),
    **dict(fpn_channels=16, fc_channels=24, test_candidates=60, test_proposals=40, max_detections=20),
)
CLASSIFIERS: dict[str, dict[str, Any]] = {**VARIANTS, "small": SMALL_CLASSIFIER}
BENCHMARK_DETECTORS: dict[str, dict[str, Any]] = {
    **DETECTORS,
    "small": SMALL_DETECTOR,
    "small_boxes": {**SMALL_DETECTOR, "masks": False},
}
WITH_MASKS = [name for name, arguments in BENCHMARK_DETECTORS.items() if arguments.get("masks", True)]


def classifier(name: str, **changes: Any) -> MSGTransformer:
    """Return one of ``CLASSIFIERS`` with random weights."""
    return MSGTransformer(**{**CLASSIFIERS[name], **changes})


def detector(name: str, **changes: Any) -> CascadeMaskRCNN:
    """Return one of ``BENCHMARK_DETECTORS`` with random weights."""
    return create_detector(next(iter(DETECTORS)), **{**BENCHMARK_DETECTORS[name], **changes})


def detector_arguments(name: str) -> tuple[dict[str, Any], DetectorSettings]:
    """Return the arguments of the backbone and the settings of a detector."""
    own = {field.name for field in fields(DetectorSettings)}
    arguments = BENCHMARK_DETECTORS[name]
    settings = DetectorSettings(**{key: value for key, value in arguments.items() if key in own})
    return {key: value for key, value in arguments.items() if key not in own}, settings
