"""Export to ONNX and MindIR; each file is run and compared with the model."""

from .check import INPUT, Reference, output_name
from .classifier import ClassifierExporter
from .detector import DetectorExporter, export_detector, export_detector_onnx
from .engines import OLDEST_OPSET, onnx_packages
from .exporter import Exported, Exporter, ExportOptions
from .files import export_mindir, export_onnx

__all__ = [
    "INPUT",
    "OLDEST_OPSET",
    "ClassifierExporter",
    "DetectorExporter",
    "ExportOptions",
    "Exported",
    "Exporter",
    "Reference",
    "export_detector",
    "export_detector_onnx",
    "export_mindir",
    "export_onnx",
    "onnx_packages",
    "output_name",
]
