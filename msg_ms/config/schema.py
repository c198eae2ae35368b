"""The sections of the configuration: frozen dataclasses, the only place of defaults.

Keys are the paper code's (``MODEL.MSG.SHUF_SIZE``); a field ``shuf_size`` of a section is the key ``SHUF_SIZE``.
Where this project adds a key of its own, the field says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .checks import (
    AUTO_AUGMENT,
    BETAS,
    BOX,
    CANVASES,
    ENTRIES,
    FILE_NAME,
    FRACTIONS,
    MAX_SIDE,
    MILESTONES,
    PROBABILITY,
    RANGE,
    RATE,
    SIDE_RANGE,
    SIDES,
    Check,
    above,
    at_least,
    bounded,
    one_of,
    stages,
    within,
)
from .task_keys import KNOWN_TASK


def key(default: Any, check: Check | None = None) -> Any:
    """Return a dataclass field with its default and, if not all values are valid, a check."""
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class DataConfig:
    """Section ``DATA``: images and batches."""

    batch_size: int = key(128, bounded(1, 2**16))  # per device
    data_path: str = key("")  # holds train/ and val/ with one folder per class
    dataset: str = key("imagenet", one_of("imagenet"))
    img_size: int = key(224, bounded(1, 2**14))
    interpolation: str = key("bicubic", one_of("bicubic", "bilinear", "random"))
    pin_memory: bool = key(True)  # accepted for the paper's files; MindSpore has no such switch
    num_workers: int = key(8, bounded(1, 1024))
    # This project's own.
    class_index: str = key("")  # file that lists the class folders in the order of their labels (default: by name)
    val_list: str = key("")  # file that lists the images of a flat val/ with their classes
    max_bad_files: int = key(50, at_least(0))  # training stops where more files than this can't be decoded
    normalize_on_device: bool = key(False)  # images cross the bus as uint8


@dataclass(frozen=True)
class MSGConfig:
    """Section ``MODEL.MSG``: the architecture."""

    patch_size: int = key(4, bounded(1, 1024))
    in_chans: int = key(3, bounded(1, 1024))
    embed_dim: int = key(96, bounded(1, 2**14))
    depths: tuple[int, ...] = key((2, 2, 6, 2), stages(1000))
    num_heads: tuple[int, ...] = key((3, 6, 12, 24), stages(1024))
    window_size: int = key(7, bounded(1, 1024))
    mlp_ratio: float = key(4.0, bounded(1e-4, 64))
    qkv_bias: bool = key(True)
    qk_scale: float | None = key(None, above(0))
    ape: bool = key(False)
    patch_norm: bool = key(True)
    shuf_size: tuple[int, ...] = key((4, 4, 2, 1), stages(1024))
    manip_type: str = key("shuf", one_of("shuf", "none"))


@dataclass(frozen=True)
class RCNNConfig:
    """Section ``MODEL.RCNN``, this project's own: sizes of the detector; the defaults are those of Swin's recipe."""

    masks: bool = key(True)  # False: boxes alone, Cascade R-CNN
    fpn_channels: int = key(256, bounded(1, 2**14))  # of the pyramid and of the heads' convolutions
    fc_channels: int = key(1024, bounded(1, 2**16))  # of the box heads' linear layer
    train_proposals: int = key(2000, bounded(1, 2**14))  # per image; as many anchors of a level enter their NMS
    test_proposals: int = key(1000, bounded(1, 2**14))
    roi_samples: int = key(
        512, bounded(4, 2**14)
    )  # RoIs per image that each cascade stage learns from; a quarter positive
    score_thr: float = key(0.05, PROBABILITY)  # least score of a detection
    max_per_img: int = key(100, bounded(1, 2**12))  # detections per image


@dataclass(frozen=True)
class ModelConfig:
    """Section ``MODEL``: the model and its weights."""

    type: str = key("msg", one_of("msg"))
    name: str = key("msg_tiny_p4_win7_224", FILE_NAME)
    resume: str = key("")
    pretrained: str = key("")  # this project's own: weights to start a new run from
    num_classes: int = key(1000, bounded(1, 2**24))
    drop_rate: float = key(0.0, RATE)
    drop_path_rate: float = key(0.1, RATE)
    label_smoothing: float = key(0.1, RATE)
    msg: MSGConfig = field(default_factory=MSGConfig)
    rcnn: RCNNConfig = field(default_factory=RCNNConfig)


@dataclass(frozen=True)
class SchedulerConfig:
    """Section ``TRAIN.LR_SCHEDULER``: the decay of the learning rate."""

    name: str = key("cosine", one_of("cosine", "linear", "step", "multistep"))
    decay_epochs: int = key(30, bounded(1, 10**6))
    decay_rate: float = key(0.1, within(0, 1))
    milestones: tuple[int, ...] = key((), MILESTONES)  # this project's own: epochs after which multistep decays


@dataclass(frozen=True)
class OptimizerConfig:
    """Section ``TRAIN.OPTIMIZER``."""

    name: str = key("adamw", one_of("adamw", "sgd"))
    eps: float = key(1e-8, above(0))
    betas: tuple[float, float] = key((0.9, 0.999), BETAS)
    momentum: float = key(0.9, RATE)


@dataclass(frozen=True)
class TrainConfig:
    """Section ``TRAIN``: the recipe."""

    start_epoch: int = key(0, bounded(0, 10**6))
    epochs: int = key(300, bounded(1, 10**6))
    warmup_epochs: int = key(20, bounded(0, 10**6))
    warmup_steps: int = key(0, at_least(0))  # this project's own: replaces WARMUP_EPOCHS unless 0
    weight_decay: float = key(0.05, at_least(0))
    # The three learning rates are for BASE_BATCH_SIZE images per step and scale linearly with the real number.
    base_batch_size: int = key(512, at_least(1))  # this project's own; the paper's code fixes 512
    base_lr: float = key(5e-4, above(0))
    warmup_lr: float = key(5e-7, at_least(0))
    min_lr: float = key(5e-6, at_least(0))
    clip_grad: float = key(5.0, at_least(0))  # global norm; 0 switches clipping off
    auto_resume: bool = key(True)
    accumulation_steps: int = key(0, bounded(0, 2**16))
    use_checkpoint: bool = key(False)  # compute the blocks' insides again in the backward pass to save memory
    # This project's own: the learning rate of a layer, in multiples of the next one's; 1 for the same everywhere.
    layer_decay: float = key(1.0, within(1e-3, 1))
    freeze: tuple[str, ...] = key((), ENTRIES)  # this project's own: parts that are not trained, see docs/finetune.md
    ema_decay: float = key(0.0, RATE)  # this project's own: moving average of the weights; 0 keeps none
    early_stopping: int = key(0, at_least(0))  # this project's own: epochs without a better metric; 0 never stops
    lr_scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True)
class AmpConfig:
    """Section ``AMP``, this project's own: the type of AMP_OPT_LEVEL O1 and O2, and the scale of a float16 loss."""

    dtype: str = key("float16", one_of("float16", "bfloat16"))
    loss_scale: float = key(65536.0, bounded(1, 2**64))  # at the beginning, or throughout
    dynamic: bool = key(True)  # halved after an overflow, doubled after WINDOW steps without one
    window: int = key(2000, at_least(1))
    max_skipped: int = key(20, at_least(1))  # consecutive skipped steps that end the run


@dataclass(frozen=True)
class DetectionConfig:
    """Section ``DETECTION``, this project's own: images and ground truth of object detection, see docs/detection.md.

    The defaults are those of Swin Transformer's recipe. Lengths are in pixels.
    """

    short_sides: tuple[int, ...] = key(tuple(range(480, 801, 32)), SIDES)  # of training images, one is drawn
    long_side: int = key(1333, bounded(16, MAX_SIDE))  # most pixels of the long side in training
    flip: float = key(0.5, PROBABILITY)
    crop: float = key(0.5, PROBABILITY)  # share of the images that are resized, cropped and resized again
    first_short_sides: tuple[int, ...] = key((400, 500, 600), SIDES)  # before the crop, one is drawn
    crop_sides: tuple[int, int] = key((384, 600), SIDE_RANGE)  # least and most height and width of the crop
    test_short_side: int = key(800, bounded(16, MAX_SIDE))
    test_long_side: int = key(1333, bounded(16, MAX_SIDE))
    # Heights and widths that images are padded to with zeros; every canvas is a graph.
    canvases: tuple[tuple[int, int], ...] = key(
        ((640, 864), (864, 640), (800, 1088), (1088, 800), (800, 1344), (1344, 800)),
        CANVASES,
    )
    max_gt: int = key(100, bounded(1, 1000))  # most objects of a training image; more are dropped at random


@dataclass(frozen=True)
class AugConfig:
    """Section ``AUG``: the augmentation of training images."""

    color_jitter: float = key(0.4, bounded(0, 100))
    auto_augment: str = key("rand-m9-mstd0.5-inc1", AUTO_AUGMENT)
    reprob: float = key(0.25, PROBABILITY)
    remode: str = key("pixel", one_of("pixel", "const", "rand"))
    recount: int = key(1, bounded(1, 100))
    mixup: float = key(0.8, bounded(0, 1000))
    cutmix: float = key(1.0, bounded(0, 1000))
    cutmix_minmax: tuple[float, float] | None = key(None, BOX)
    mixup_prob: float = key(1.0, PROBABILITY)
    mixup_switch_prob: float = key(0.5, PROBABILITY)
    mixup_mode: str = key("batch", one_of("batch", "pair", "elem"))
    # This project's own; the defaults are timm's, which the paper's code uses.
    crop_scale: tuple[float, float] = key((0.08, 1.0), FRACTIONS)
    crop_ratio: tuple[float, float] = key((3 / 4, 4 / 3), RANGE)
    hflip: float = key(0.5, PROBABILITY)


@dataclass(frozen=True)
class TestConfig:
    """Section ``TEST``: the preprocessing of evaluation images."""

    __test__ = False  # keeps pytest from collecting it
    crop: bool = key(True)


@dataclass(frozen=True)
class Config:
    """The whole configuration; ``load_config`` builds it, ``to_yaml`` writes it."""

    task: str = key("classification", KNOWN_TASK)  # this project's own: the task
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    aug: AugConfig = field(default_factory=AugConfig)
    test: TestConfig = field(default_factory=TestConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    amp: AmpConfig = field(default_factory=AmpConfig)
    amp_opt_level: str = key("", one_of("", "O0", "O1", "O2"))  # empty: O0 on CPU, the paper's O1 on GPU and Ascend
    # This project's own: precision of eval.py, predict.py and --throughput with packed weights, on CPU.
    inference_precision: str = key("float32", one_of("float32", "bfloat16"))
    output: str = key("output")
    tag: str = key("default", FILE_NAME)
    save_freq: int = key(1, at_least(1))  # epochs between two checkpoints
    save_steps: int = key(0, at_least(0))  # this project's own: steps between two checkpoints; 0 saves by epoch
    keep_last: int = key(3, at_least(1))  # this project's own: how many checkpoints to keep, besides the best
    print_freq: int = key(100, at_least(1))
    jit_level: str = key("", one_of("", "O0", "O1", "O2"))  # this project's own: MindSpore's; empty: its choice
    compile_cache: str = key("")  # this project's own: folder for compiled graphs, for faster starts; empty: none
    seed: int = key(0, at_least(0))
    eval_mode: bool = key(False)
    throughput_mode: bool = key(False)
    local_rank: int = key(0, at_least(0))  # accepted for the paper's files; msrun numbers the ranks
    device_target: str = key("", one_of("", "CPU", "GPU", "Ascend"))  # this project's own; empty: MindSpore's choice

    @property
    def training(self) -> bool:
        """Whether the run trains, as opposed to evaluating or measuring speed."""
        return not (self.eval_mode or self.throughput_mode)

    @property
    def run_dir(self) -> Path:
        """The folder of the run's results: ``<OUTPUT>/<MODEL.NAME>/<TAG>``."""
        return Path(self.output) / self.model.name / self.tag

    def without_paths(self) -> Config:
        """Return the configuration without the values that may differ between nodes: paths and the rank."""
        data = replace(self.data, data_path="", val_list="", class_index="")
        return replace(self, output="", compile_cache="", local_rank=0, data=data)
