"""Image folders as training and evaluation batches."""

from .dataset import build_eval_dataset, build_train_dataset
from .folder import ImageFolder, check_classes, scan_folder

__all__ = ["ImageFolder", "build_eval_dataset", "build_train_dataset", "check_classes", "scan_folder"]
