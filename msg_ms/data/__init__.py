"""Image files as training and evaluation batches."""

from .classification import EvalDataset, Shard, TrainDataset
from .folder import ImageFolder, load_folders, scan_folder, scan_list

__all__ = ["EvalDataset", "ImageFolder", "Shard", "TrainDataset", "load_folders", "scan_folder", "scan_list"]
