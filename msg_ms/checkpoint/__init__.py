"""Checkpoint files: read and write them, load them strictly into models, adapt weights to other models."""

from .configuration import CONFIG_KEY, config_of_checkpoint, stored_config
from .dtypes import cast_weights
from .files import (
    EMA_PREFIX,
    OPTIMIZER_PREFIX,
    SCALER_PREFIX,
    parameters_by_name,
    read_checkpoint,
    read_metadata,
    select_prefix,
    to_numpy,
    write_checkpoint,
)
from .load import load_for_inference, load_parameters, load_pretrained, load_weights
from .resize import adapt_weights
from .safetensors import check_safetensors, read_safetensors, write_safetensors
from .types import Arrays, BrokenCheckpoint, ConversionError, LoadedWeights, Metadata

__all__ = [
    "CONFIG_KEY",
    "EMA_PREFIX",
    "OPTIMIZER_PREFIX",
    "SCALER_PREFIX",
    "Arrays",
    "BrokenCheckpoint",
    "ConversionError",
    "LoadedWeights",
    "Metadata",
    "adapt_weights",
    "cast_weights",
    "check_safetensors",
    "config_of_checkpoint",
    "load_for_inference",
    "load_parameters",
    "load_pretrained",
    "load_weights",
    "parameters_by_name",
    "read_checkpoint",
    "read_metadata",
    "read_safetensors",
    "select_prefix",
    "stored_config",
    "to_numpy",
    "write_checkpoint",
    "write_safetensors",
]
