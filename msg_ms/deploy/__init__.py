"""The model as a file for other programs: ONNX and MindIR, each run and compared before it is kept."""

from .check import INPUT, Reference, output_name
from .files import export_mindir, export_onnx

__all__ = ["INPUT", "Reference", "export_mindir", "export_onnx", "output_name"]
