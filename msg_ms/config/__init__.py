"""The configuration: sections with their defaults, replaced by files and flags."""

from .load import KEYS, StoredConfig, flat_items, load_config, stored_items, to_yaml
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
from .task_keys import installed_tasks

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
    "StoredConfig",
    "TestConfig",
    "TrainConfig",
    "flat_items",
    "installed_tasks",
    "load_config",
    "schedule_warnings",
    "stored_items",
    "to_yaml",
]
