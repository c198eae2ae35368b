"""The configuration: sections with their defaults, replaced by files and flags."""

from .load import KEYS, flat_items, load_config, to_yaml
from .relations import schedule_warnings
from .schema import (
    AmpConfig,
    AugConfig,
    Config,
    DataConfig,
    DetectionConfig,
    ModelConfig,
    MSGConfig,
    OptimizerConfig,
    RCNNConfig,
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
    "DetectionConfig",
    "MSGConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RCNNConfig",
    "SchedulerConfig",
    "TestConfig",
    "TrainConfig",
    "flat_items",
    "load_config",
    "schedule_warnings",
    "to_yaml",
]
