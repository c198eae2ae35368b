"""Export of a classifier to ONNX or MindIR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore.nn.utils import no_init_parameters

from ..checkpoint import load_for_inference
from ..config import Config
from ..data.pixels.preprocessing import Preprocessing, normalization
from ..files import readable
from ..models.build import build_model
from ..models.layers import PatchConv
from ..models.msg_transformer import MSGTransformer
from ..ops import use_backend
from ..version import __version__
from .check import INPUT, Reference, output_name
from .engines import OLDEST_OPSET, onnx_packages
from .exporter import Exported, ExportOptions
from .files import export_mindir, export_onnx


class ClassifierExporter:
    """Exports the classifier of a configuration.

    Args:
        config: The whole configuration.
    """

    def __init__(self, config: Config):
        self.config = config

    def export(self, checkpoint: Path, options: ExportOptions, log: Callable[[str], None]) -> Exported:
        """Write the classifier; see ``Exporter``."""
        onnx, softmax = options.output.suffix == ".onnx", options.softmax
        opset = OLDEST_OPSET if options.opset is None else options.opset
        if onnx:
            onnx_packages(opset)
        batch = None if options.dynamic_batch else options.batch_size
        size = options.img_size or (self.config.data.img_size,) * 2
        model, lines = self._load(size, checkpoint)
        for line in lines:
            log(line)
        reference = Reference.of(model, softmax, batch)
        metadata = self._describe(model, checkpoint, softmax, batch)
        if onnx:
            line = export_onnx(model, options.output, reference, batch, opset, softmax, metadata)
        else:
            with use_backend("composed"):
                model, _ = self._load(size, checkpoint)
            if options.convolution is not None:
                choose_convolution(model, options.convolution)
            line = export_mindir(model, options.output, reference, batch, softmax, metadata)
        inputs, outputs = (
            f"{metadata[f'{side}_name']}, float32 {metadata[f'{side}_shape']}" for side in ("input", "output")
        )
        return Exported(inputs, outputs, line)

    def _load(self, size: tuple[int, int], checkpoint: Path) -> tuple[MSGTransformer, list[str]]:
        """Return the model with the checkpoint's weights, and a line for each weight resampled to another size."""
        with no_init_parameters():
            model = build_model(self.config.model, size).set_train(False)
        return model, load_for_inference(model, checkpoint)[0]

    def _describe(self, model: MSGTransformer, checkpoint: Path, softmax: bool, batch: int | None) -> dict[str, str]:
        """Return the metadata that the file's user needs: inputs, outputs, preprocessing and origin."""
        config, rows, (height, width) = self.config, "batch" if batch is None else batch, model.img_size
        metadata = {
            "model_name": config.model.name,
            "num_classes": config.model.num_classes,
            "input_name": INPUT,
            "input_shape": f"{rows},{model.in_chans},{height},{width}",
            "output_name": output_name(model, softmax),
            "output_shape": f"{rows},{config.model.num_classes}",
            "checkpoint": readable(checkpoint.name),
            "msg_ms_version": __version__,
            "mindspore_version": ms.__version__,
        }
        metadata |= normalization(model.in_chans)
        if height == width:
            metadata |= Preprocessing(height, config.test.crop, config.data.interpolation).as_metadata()
        return {name: readable(str(value)) for name, value in metadata.items()}


def choose_convolution(model: MSGTransformer, convolution: str) -> None:
    """Build patch convolutions from ``unfold`` and a matrix product, or from ``conv2d``."""
    for _, cell in model.cells_and_names():
        if isinstance(cell, PatchConv):
            cell.unfold = convolution == "unfold"
