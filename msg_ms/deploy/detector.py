"""Export of a detector to MindIR for images on one canvas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..files import atomic_write
from ..models.detection.cascade_rcnn import CascadeMaskRCNN
from ..version import __version__
from .check import TOLERANCE
from .files import first_line, plain_name

INPUTS = ("images", "img_shapes", "scale_factors")
OUTPUTS = ("boxes", "scores", "labels", "masks", "used")


def refuse_onnx(path: Path) -> None:
    """Raise UserError for the name of an ONNX file."""
    if path.suffix == ".onnx":
        raise UserError(
            f"--output {path}: a detector can't be an ONNX file. NMSWithMask has no ONNX counterpart of fixed size "
            "of boxes (NonMaxSuppression returns any number), and RoIAlign none over several maps; write X.mindir"
        )


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
        for name, values, own in zip(OUTPUTS, found, expected, strict=True):
            difference = float(np.abs(values.astype(np.float64) - own).max())
            if values.shape != own.shape or not difference <= TOLERANCE * max(1.0, float(np.abs(own).max())):
                raise UserError(f"{path} was not kept: {name} differ from the model's by {difference:.1e}")
    return f"MindSpore {ms.__version__}: all outputs within {TOLERANCE:g} of the model's, batch {batch}"
