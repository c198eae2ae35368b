"""Export of a detector to ONNX or MindIR for images on one canvas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..checkpoint import load_for_inference
from ..config import Config
from ..data.images.class_names import CLASSES_KEY
from ..data.pixels.preprocessing import normalization
from ..errors import UserError, refuse_options
from ..files import atomic_write, readable
from ..models.detection.build import build_detector
from ..models.detection.cascade_rcnn import CascadeMaskRCNN
from ..ops import get_backend, use_backend
from ..version import __version__
from .detector_check import INPUTS, DetectorReference, output_names
from .engines import OLDEST_OPSET, Engine, onnx_packages
from .exporter import Exported, ExportOptions
from .files import first_line, plain_name, save_onnx

CANVAS_UNIT = 32
MISSES = 0.05  # share of detections that rounding may change: near ties of scores, IoU near a threshold


def export_detector_onnx(
    model: CascadeMaskRCNN,
    path: Path,
    canvas: tuple[int, int],
    batch: int | None,
    opset: int = OLDEST_OPSET,
    metadata: Mapping[str, str] = {},
) -> str:
    """Export a detector to ONNX and compare the file with the model on random images.

    Args:
        model: The detector in evaluation mode.
        path: File to write.
        canvas: Height and width of the images with padding.
        batch: Batch size, or None for a dynamic batch.
        opset: ONNX operator set.
        metadata: Entries of the file's metadata.

    Returns:
        A line with the result of the comparison in every installed engine.

    Raises:
        UserError: The detections differ, the model is too large, or a package is missing. No file is left.
    """
    onnx_packages(opset)
    from .onnx_detector import build_onnx_detector, without_threshold

    reference = DetectorReference.of(model, canvas, batch)
    threshold = model.settings.score_threshold

    def check(engine: Engine, file: Path) -> str:
        reference.check(engine.load(str(file)), engine.name, threshold, MISSES)
        return reference.check(engine.load(without_threshold(file)), engine.name, misses=MISSES)

    return save_onnx(model, path, opset, lambda: build_onnx_detector(model, canvas, batch, opset, metadata), check)


def export_detector(
    model: CascadeMaskRCNN, path: Path, canvas: tuple[int, int], batch: int, metadata: Mapping[str, str] = {}
) -> str:
    """Export a detector to MindIR and compare the file with the model on random images.

    Args:
        model: The detector in evaluation mode, built with composed operators.
        path: File to write.
        canvas: Height and width of the images with padding.
        batch: Images per run.
        metadata: Entries of the file's ``user_info``.

    Returns:
        A line with the result of the comparison.

    Raises:
        UserError: The detections differ, or MindSpore can't export the model. No file is left.
    """
    reference = DetectorReference.of(model, canvas, batch)
    rows = np.arange(batch) % len(reference.inputs[0])
    inputs = [Tensor(value[rows]) for value in reference.inputs]

    def finish(proto) -> None:
        proto.user_info.update({**metadata, "msg_ms_version": __version__})

    with atomic_write(path) as final, plain_name(final) as temporary:
        try:
            ms.export(model, *inputs, file_name=str(temporary), file_format="MINDIR", custom_func=finish)
            cell = nn.GraphCell(ms.load(str(temporary)))
            return reference.check(
                lambda values: [output.asnumpy() for output in cell(*map(Tensor, values))],
                f"MindSpore {ms.__version__}",
                model.settings.score_threshold,
            )
        except (RuntimeError, TypeError, ValueError) as error:  # UserError is a ValueError
            raise UserError(f"{path} was not kept: {first_line(error)}") from None


class DetectorExporter:
    """Exports the detector of a configuration for one canvas: ``--img-size``, or the largest one.

    Args:
        config: The whole configuration.
    """

    def __init__(self, config: Config):
        self.config = config

    def export(self, checkpoint: Path, options: ExportOptions, log: Callable[[str], None]) -> Exported:
        """Write the detector; see ``Exporter``."""
        onnx, opset = options.output.suffix == ".onnx", options.opset or OLDEST_OPSET
        refuse_options(options, "softmax", "convolution", reason="is for classifiers")
        if onnx:
            onnx_packages(opset)
        else:
            refuse_options(options, "dynamic_batch", reason="is for classifiers and for .onnx files")
        canvas = options.img_size or max(self.config.detection.canvases, key=lambda c: c[0] * c[1])
        if canvas[0] % CANVAS_UNIT or canvas[1] % CANVAS_UNIT:
            raise UserError(
                f"--img-size {canvas[0]} {canvas[1]}: a canvas has sides that are multiples of {CANVAS_UNIT}"
            )
        with use_backend(get_backend() if onnx else "composed"):
            model = build_detector(self.config.model).set_train(False)
        lines, stored = load_for_inference(model, checkpoint)
        for line in lines:
            log(line)
        batch = None if options.dynamic_batch else options.batch_size
        shape = f"{'batch' if batch is None else batch},{model.backbone.in_chans},{canvas[0]},{canvas[1]}"
        metadata = self._describe(model, checkpoint, stored, shape)
        if onnx:
            line = export_detector_onnx(model, options.output, canvas, batch, opset, metadata)
        else:
            line = export_detector(model, options.output, canvas, options.batch_size, metadata)
        inputs = f"images, float32 {shape}; img_shapes (B, 2); scale_factors (B, 4)"
        return Exported(inputs, ", ".join(output_names(model)), line)

    def _describe(
        self, model: CascadeMaskRCNN, checkpoint: Path, stored: Mapping[str, Any], shape: str
    ) -> dict[str, str]:
        """Return the metadata that the file's user needs: inputs, outputs, preprocessing and origin."""
        config = self.config
        metadata = {
            "model_name": config.model.name,
            "num_classes": config.model.num_classes,
            "classes": stored.get(CLASSES_KEY, "[]"),
            "input_names": ",".join(INPUTS),
            "input_shape": shape,
            "output_names": ",".join(output_names(model)),
            "resize_shorter_edge": config.detection.test_short_side,
            "resize_longer_edge_at_most": config.detection.test_long_side,
            "interpolation": "bilinear",
            "checkpoint": checkpoint.name,
            "msg_ms_version": __version__,
            "mindspore_version": ms.__version__,
            **normalization(model.backbone.in_chans),
        }
        if model.settings.masks:
            metadata["mask_threshold"] = model.settings.mask_threshold
        return {name: readable(str(value)) for name, value in metadata.items()}
