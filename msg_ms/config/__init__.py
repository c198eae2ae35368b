"""The configuration: its sections with their defaults, and how files and flags replace those."""

from .load import KEYS, flat_items, load_config, to_yaml
from .schema import (
    AmpConfig,
    AugConfig,
    Config,
    DataConfig,
    ModelConfig,
    MSGConfig,
    OptimizerConfig,
    SchedulerConfig,
    TestConfig,
    TrainConfig,
)

__all__ = [
    "KEYS",
    "AmpConfig",
    "AugConfig",
    "Config",
    "DataConfig",
    "MSGConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SchedulerConfig",
    "TestConfig",
    "TrainConfig",
    "flat_items",
    "load_config",
    "to_yaml",
]
