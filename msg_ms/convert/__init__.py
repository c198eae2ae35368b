"""Weights from the paper's PyTorch code and back: the name table, its strict application, and the file reader."""

from .adapt import adapt_weights
from .apply import (
    ConversionError,
    convert_state_dict,
    dropped_names,
    export_state_dict,
    infer_architecture,
    variant_name,
)
from .torch_file import TorchFileError, model_state, read_torch_file
from .torch_write import write_torch_file

__all__ = [
    "ConversionError",
    "TorchFileError",
    "adapt_weights",
    "convert_state_dict",
    "dropped_names",
    "export_state_dict",
    "infer_architecture",
    "model_state",
    "read_torch_file",
    "variant_name",
    "write_torch_file",
]
