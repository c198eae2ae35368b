"""Export to ONNX and MindIR; each file is run and compared with the model."""

from .check import INPUT, Reference, output_name
from .detector import export_detector, refuse_onnx
from .files import OLDEST_OPSET, export_mindir, export_onnx, onnx_packages

__all__ = [
    "INPUT",
    "OLDEST_OPSET",
    "Reference",
    "export_detector",
    "export_mindir",
    "export_onnx",
    "onnx_packages",
    "output_name",
    "refuse_onnx",
]
