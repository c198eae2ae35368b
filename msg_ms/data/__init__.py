"""Image files as training and evaluation batches, for classification and detection."""

from .classification import EvalDataset, TrainDataset
from .coco import CocoSplit, load_coco
from .detection import DetectionEvalDataset, DetectionTrainDataset
from .device_collate import DeviceCollate
from .folder import ImageFolder, scan_folder
from .image_list import scan_list
from .pipeline import EpochOrder, EvalPipeline, Shard, TrainPipeline
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
    "scan_list",
]
