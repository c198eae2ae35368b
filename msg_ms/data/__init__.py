"""Image files as training and evaluation batches."""

from .classification import EvalDataset, TrainDataset
from .folder import ImageFolder, scan_folder
from .image_list import scan_list
from .pipeline import EpochOrder, EvalPipeline, Shard, TrainPipeline
from .splits import load_folders

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
