"""Image files as training and evaluation batches."""

from .classification import EvalDataset, TrainDataset
from .folder import ImageFolder, load_folders, scan_folder, scan_list
from .pipeline import EpochOrder, EvalPipeline, Shard, TrainPipeline

__all__ = [
    "EpochOrder",
    "EvalDataset",
    "EvalPipeline",
    "ImageFolder",
    "Shard",
    "TrainDataset",
    "TrainPipeline",
    "load_folders",
    "scan_folder",
    "scan_list",
]
