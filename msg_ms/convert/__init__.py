"""Weights from the paper's PyTorch code and back: the name table, its strict application, and the files' readers."""

from .adapt import adapt_weights
from .apply import (
    ConversionError,
    check_buffers,
    check_names_and_shapes,
    convert_state_dict,
    converts,
    dropped_names,
    export_state_dict,
    infer_architecture,
    variant_name,
)
from .precision import cast_weights
from .safetensors_file import check_safetensors, read_safetensors, write_safetensors
from .torch_file import TorchFile, TorchFileError, read_torch_file
from .torch_write import write_torch_file

__all__ = [
    "ConversionError",
    "TorchFile",
    "TorchFileError",
    "adapt_weights",
    "cast_weights",
    "check_buffers",
    "check_names_and_shapes",
    "check_safetensors",
    "convert_state_dict",
    "converts",
    "dropped_names",
    "export_state_dict",
    "infer_architecture",
    "read_safetensors",
    "read_torch_file",
    "variant_name",
    "write_safetensors",
    "write_torch_file",
]
