"""Weights from the paper's PyTorch code and back: the name table, its strict application, and the files' readers."""

from ..checkpoint.dtypes import cast_weights
from ..checkpoint.resize import adapt_weights
from ..checkpoint.safetensors import check_safetensors, read_safetensors, write_safetensors
from ..checkpoint.types import BrokenCheckpoint, ConversionError, LoadedWeights
from .names import (
    check_buffers,
    check_names_and_shapes,
    convert_state_dict,
    converts,
    dropped_names,
    export_state_dict,
    infer_architecture,
    variant_name,
)
from .torch_reader.file import read_torch_file
from .torch_writer import write_torch_file

__all__ = [
    "BrokenCheckpoint",
    "ConversionError",
    "LoadedWeights",
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
