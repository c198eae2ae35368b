"""Image files as training and evaluation batches, for classification and detection."""

from .classification import EvalDataset, TrainDataset
from .coco.split import CocoSplit, load_coco
from .detection import DetectionEvalDataset, DetectionTrainDataset
from .images.folder import ImageFolder, scan_folder
from .images.image_list import scan_list
from .images.splits import load_folders, scan_images
from .images.tar_folder import scan_tar_files
from .pipeline import EpochOrder, EvalPipeline, Shard, TrainPipeline
from .pixels.device_collate import DeviceCollate

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
    "scan_tar_files",
]
