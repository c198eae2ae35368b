"""Export of a detector to MindIR for images on one canvas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

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
from ..ops import use_backend
from ..version import __version__
from .check import TOLERANCE
from .exporter import Exported, ExportOptions
from .files import first_line, plain_name

INPUTS = ("images", "img_shapes", "scale_factors")
OUTPUTS = ("boxes", "scores", "labels", "masks", "used")  # masks if the detector has them
CANVAS_UNIT = 32


def output_names(model: CascadeMaskRCNN) -> tuple[str, ...]:
    """Return the names of a detector's outputs."""
    return OUTPUTS if model.settings.masks else tuple(name for name in OUTPUTS if name != "masks")


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
        UserError: The outputs differ, or MindSpore can't export the model. No file is left.
    """
    height, width = canvas
    draws = np.random.RandomState(0)
    images = Tensor(draws.standard_normal((batch, 3, height, width)).astype(np.float32))
    sizes = Tensor(np.full((batch, 2), canvas, np.float32))
    inputs = (images, sizes, Tensor(np.ones((batch, 4), np.float32)))
    expected = [output.asnumpy() for output in model(*inputs)]

    def finish(proto) -> None:
        proto.user_info.update({**metadata, "msg_ms_version": __version__})

    with atomic_write(path) as final, plain_name(final) as temporary:
        try:
            ms.export(model, *inputs, file_name=str(temporary), file_format="MINDIR", custom_func=finish)
            found = [output.asnumpy() for output in nn.GraphCell(ms.load(str(temporary)))(*inputs)]
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{path} was not kept: {first_line(error)}") from None
        for name, values, own in zip(output_names(model), found, expected, strict=True):
            difference = float(np.abs(values.astype(np.float64) - own).max())
            if values.shape != own.shape or not difference <= TOLERANCE * max(1.0, float(np.abs(own).max())):
                raise UserError(f"{path} was not kept: {name} differ from the model's by {difference:.1e}")
    return f"MindSpore {ms.__version__}: all outputs within {TOLERANCE:g} of the model's, batch {batch}"


class DetectorExporter:
    """Exports the detector of a configuration for one canvas: ``--img-size``, or the largest one.

    Args:
        config: The whole configuration.
    """

    def __init__(self, config: Config):
        self.config = config

    def export(self, checkpoint: Path, options: ExportOptions, log: Callable[[str], None]) -> Exported:
        """Write the detector; see ``Exporter``."""
        _refuse_onnx(options.output)
        refuse_options(options, "dynamic_batch", "softmax", "convolution", reason="is for classifiers")
        canvas = options.img_size or max(self.config.detection.canvases, key=lambda c: c[0] * c[1])
        if canvas[0] % CANVAS_UNIT or canvas[1] % CANVAS_UNIT:
            raise UserError(
                f"--img-size {canvas[0]} {canvas[1]}: a canvas has sides that are multiples of {CANVAS_UNIT}"
            )
        with use_backend("composed"):
            model = build_detector(self.config.model).set_train(False)
        outputs = output_names(model)
        lines, stored = load_for_inference(model, checkpoint)
        for line in lines:
            log(line)
        shape = f"{options.batch_size},3,{canvas[0]},{canvas[1]}"
        metadata = {
            "model_name": self.config.model.name,
            "num_classes": self.config.model.num_classes,
            "classes": stored.get(CLASSES_KEY, "[]"),
            "input_names": ",".join(INPUTS),
            "input_shape": shape,
            "output_names": ",".join(outputs),
            "checkpoint": checkpoint.name,
            "mindspore_version": ms.__version__,
            **normalization(model.backbone.in_chans),
        }
        metadata = {name: readable(str(value)) for name, value in metadata.items()}
        line = export_detector(model, options.output, canvas, options.batch_size, metadata)
        return Exported(f"images, float32 {shape}; img_shapes (B, 2); scale_factors (B, 4)", ", ".join(outputs), line)


def _refuse_onnx(path: Path) -> None:
    """Raise UserError for the name of an ONNX file."""
    if path.suffix == ".onnx":
        raise UserError(
            f"--output {path}: a detector can't be an ONNX file. NMSWithMask has no ONNX counterpart of fixed size "
            "of boxes (NonMaxSuppression returns any number), and RoIAlign none over several maps; write X.mindir"
        )
