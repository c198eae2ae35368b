"""Image files as training and evaluation batches, for classification and detection."""

from .classification import EvalDataset, TrainDataset
from .coco import CocoSplit, load_coco
from .detection import DetectionEvalDataset, DetectionTrainDataset
from .device_collate import DeviceCollate
from .folder import scan_folder
from .image_folder import ImageFolder
from .image_list import scan_list
from .layouts import scan_images
from .pipeline import EpochOrder, EvalPipeline, Shard, TrainPipeline
from .shards import scan_shards
from .splits import load_folders

__all__ = [
    "CocoSplit",
    "DetectionEvalDataset",
    "DetectionTrainDataset",
    "DeviceCollate",
    "EpochOrder",
    "EvalDataset",
    "EvalPipeline",
    "ImageFolder",
    "Shard",
    "TrainDataset",
    "TrainPipeline",
    "load_coco",
    "load_folders",
    "scan_folder",
    "scan_images",
    "scan_list",
    "scan_shards",
]
