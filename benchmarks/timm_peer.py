"""The input pipeline of timm and torchvision as in the paper's code, for data benchmarks and comparisons.

It needs torch, torchvision and timm. A torchvision built for another torch fails in the module that registers its
compiled operators. No code here uses these operators, so that module is replaced by an empty one.
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
    """Return the paper's training transform for one image."""
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
    """Return the paper's evaluation transform."""
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


def loader(folder: str, training: bool, batch_size: int, workers: int, epochs: int = 1):
    """Yield batches (images, labels), with mixup in training, as the paper's main.py does."""
    dataset = datasets.ImageFolder(folder, train_transform() if training else eval_transform())
    dataset = torch.utils.data.ConcatDataset([dataset] * epochs) if epochs > 1 else dataset
    batches = torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=training, num_workers=workers, drop_last=training, pin_memory=False
    )
    mix = mixup() if training else None
    for images, labels in batches:
        yield mix(images, labels) if training else (images, labels)
