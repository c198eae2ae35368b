"""Run the paper's own PyTorch training code on CPU, with a configuration of this project.

    git clone https://github.com/hustvl/MSG-Transformer
    python benchmarks/paper_code.py MSG-Transformer configs/digits_p4_win4_64.yaml demo/digits output/paper --seed 0

The code is written for CUDA, NCCL, apex and timm 0.3.2. This program replaces these parts from outside: operations on
CUDA do nothing, one process is a group of Gloo, and names that timm has changed since are passed on. It also passes
on the settings that the paper's configuration has no key for: the crop, the flip and the number of classes.
"""

from __future__ import annotations

import argparse
import os
import runpy
import socket
import sys
import types
from functools import partial
from pathlib import Path

# A torchvision built for another torch fails in the module that registers its compiled operators.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

import timm.data  # noqa: E402
import timm.data.transforms  # noqa: E402
import timm.scheduler.cosine_lr  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

UNKNOWN_KEYS = ("HFLIP", "CROP_SCALE", "CROP_RATIO")


def train_on_cpu() -> None:
    """Replace the calls of CUDA and NCCL."""
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.cuda.set_device = torch.cuda.synchronize = lambda *_: None
    torch.cuda.max_memory_allocated = lambda *_: 0
    start, wrap = torch.distributed.init_process_group, torch.nn.parallel.DistributedDataParallel
    torch.distributed.init_process_group = lambda backend, **options: start("gloo", **options)
    torch.nn.parallel.DistributedDataParallel = lambda module, device_ids, **options: wrap(module, **options)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def adapt_timm(augmentation: dict) -> None:
    """Accept the names of timm 0.3.2, and pass on the settings of the crop and the flip."""
    timm.data.transforms._pil_interp = timm.data.transforms.str_to_pil_interp
    schedule = timm.scheduler.cosine_lr.CosineLRScheduler

    class CosineLRScheduler(schedule):
        def __init__(self, *arguments, t_mul: float, **options) -> None:
            super().__init__(*arguments, cycle_mul=t_mul, **options)

    timm.scheduler.cosine_lr.CosineLRScheduler = CosineLRScheduler
    timm.data.create_transform = partial(
        timm.data.create_transform,
        hflip=augmentation["HFLIP"],
        scale=tuple(augmentation["CROP_SCALE"]),
        ratio=tuple(augmentation["CROP_RATIO"]),
    )


def count_classes() -> None:
    """Use the number of class folders; the paper's code always has 1,000 classes."""
    import data.build

    build = data.build.build_dataset

    def build_dataset(is_train, config):
        dataset, _ = build(is_train, config)
        return dataset, len(dataset.classes)

    data.build.build_dataset = build_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("code", type=Path, help="checkout of the paper's code")
    parser.add_argument("config", type=Path, help="configuration of this project")
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("output", type=Path, help="folder for the log, the configuration and the checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    config = yaml.safe_load(arguments.config.read_text("utf-8"))
    adapt_timm(config["AUG"])
    config["AUG"] = {key: value for key, value in config["AUG"].items() if key not in UNKNOWN_KEYS}
    # yacs accepts no text such as 16e-3, which YAML 1.1 does not read as a number.
    config["TRAIN"] = {key: float(value) if isinstance(value, str) else value for key, value in config["TRAIN"].items()}
    config["DATA"]["PIN_MEMORY"] = False
    config["SEED"] = arguments.seed
    output.mkdir(parents=True, exist_ok=True)
    known = output / "paper.yaml"
    known.write_text(yaml.safe_dump(config), "utf-8")
    line = ["--cfg", known, "--data-path", arguments.data.resolve(), "--output", output, "--amp-opt-level", "O0"]
    sys.argv = ["main.py", "--local_rank", "0", *map(str, line)]
    train_on_cpu()
    os.chdir(arguments.code)
    sys.path.insert(0, str(Path.cwd()))
    count_classes()
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main()
