"""The front door for Python: load a trained model, and train one."""

from .loaded import TrainedModel, load
from .training import Run, train

__all__ = ["Run", "TrainedModel", "load", "train"]
