"""Image folders as training and evaluation batches."""

from .dataset import EvalDataset, TrainDataset
from .folder import ImageFolder, check_classes, scan_folder

__all__ = ["EvalDataset", "ImageFolder", "TrainDataset", "check_classes", "scan_folder"]
