"""timm's and torchvision's own pipeline, as the paper's code drives it: the peer of data benchmarks and statistics.

Needs torch, torchvision and timm. A torchvision that was built for another torch lacks its compiled operators and
then fails in a module that only registers them; nothing here uses those, so that module is left out.
"""

from __future__ import annotations

import sys
import types

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

import torch  # noqa: E402
from timm.data import Mixup, create_transform  # noqa: E402
from torchvision import datasets, transforms  # noqa: E402

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train_transform(img_size: int = 224):
    """The paper's training recipe for one picture."""
    return create_transform(
        input_size=img_size,
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        interpolation="bicubic",
    )


def eval_transform(img_size: int = 224):
    """The paper's evaluation crop."""
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [
            transforms.Resize(int(256 / 224 * img_size), interpolation=bicubic),
            transforms.CenterCrop(img_size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def mixup(num_classes: int = 1000) -> Mixup:
    return Mixup(0.8, 1.0, None, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.1, num_classes=num_classes)


def loader(folder: str, training: bool, batch_size: int, workers: int):
    """Batches of (images, labels), mixed in training; as main.py iterates over them."""
    dataset = datasets.ImageFolder(folder, train_transform() if training else eval_transform())
    batches = torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=training, num_workers=workers, drop_last=training, pin_memory=False
    )
    mix = mixup() if training else None
    for images, labels in batches:
        yield mix(images, labels) if training else (images, labels)
