"""The model as a file for other programs: ONNX and MindIR, each run and compared before it is kept."""

from .check import INPUT, Reference, output_name
from .files import OLDEST_OPSET, export_mindir, export_onnx, onnx_packages

__all__ = ["INPUT", "OLDEST_OPSET", "Reference", "export_mindir", "export_onnx", "onnx_packages", "output_name"]
