"""Export to ONNX and MindIR; each file is run and compared with the model."""

from .check import INPUT, Reference, output_name
from .files import OLDEST_OPSET, export_mindir, export_onnx, onnx_packages

__all__ = ["INPUT", "OLDEST_OPSET", "Reference", "export_mindir", "export_onnx", "onnx_packages", "output_name"]
