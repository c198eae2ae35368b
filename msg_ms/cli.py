"""What the command lines share: the paper code's flags, and errors as one line with status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from .config import Config, load_config
from .errors import UserError


def run_command_line(main: Callable[[], int | None]) -> None:
    """Run ``main`` and end the process: a :class:`UserError` becomes one line on stderr and status 2."""
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # who read the output has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)


def model_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of whatever runs a model; :func:`config_from_arguments` reads its result."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML configuration, see configs/")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="replace configuration keys")
    parser.add_argument("--resume", metavar="CKPT", help="checkpoint to start from")
    parser.add_argument("--batch-size", type=int, help="images per device")
    parser.add_argument("--img-size", type=int, metavar="PIXELS", help="side of the model's input (DATA.IMG_SIZE)")
    parser.add_argument("--window-size", type=int, metavar="TOKENS", help="side of a window (MODEL.MSG.WINDOW_SIZE)")
    parser.add_argument("--amp-opt-level", choices=["O0", "O1", "O2"], help="mixed precision (default: O0)")
    parser.add_argument("--device-target", choices=["CPU", "GPU", "Ascend"], help="default: MindSpore's choice")
    return parser


def config_parser(description: str) -> argparse.ArgumentParser:
    """:func:`model_parser` with the flags that train.py and eval.py have beyond it."""
    parser = model_parser(description)
    parser.add_argument("--data-path", help="folder that holds train/ and val/ with one folder per class")
    parser.add_argument("--output", metavar="DIR", help="results go to DIR/<MODEL.NAME>/<tag> (default: output)")
    parser.add_argument("--tag", help="name of this run (default: default)")
    return parser


def train_parser() -> argparse.ArgumentParser:
    """The parser of train.py."""
    parser = config_parser("Train an MSG-Transformer, evaluating after each epoch.")
    parser.add_argument("--accumulation-steps", type=int, help="micro-steps per update")
    parser.add_argument("--pretrained", metavar="CKPT", help="weights to begin from; classes and sizes may differ")
    parser.add_argument("--eval", action="store_true", help="evaluate --resume and end")
    parser.add_argument("--throughput", action="store_true", help="measure inference speed on one batch and end")
    return parser


def config_from_arguments(args: argparse.Namespace) -> Config:
    """The configuration that the flags describe; flags stand above ``--opts``, which stand above the file."""
    given = vars(args)
    return load_config(
        args.cfg,
        args.opts,
        DATA__BATCH_SIZE=args.batch_size,
        DATA__DATA_PATH=given.get("data_path"),
        DATA__IMG_SIZE=args.img_size,
        MODEL__MSG__WINDOW_SIZE=args.window_size,
        MODEL__RESUME=args.resume,
        MODEL__PRETRAINED=given.get("pretrained"),
        OUTPUT=given.get("output"),
        TAG=given.get("tag"),
        DEVICE_TARGET=args.device_target,
        TRAIN__ACCUMULATION_STEPS=given.get("accumulation_steps"),
        AMP_OPT_LEVEL=args.amp_opt_level,
        EVAL_MODE=given.get("eval") or None,
        THROUGHPUT_MODE=given.get("throughput") or None,
    )


def require(value: str, flag: str) -> str:
    """``value`` where it is given; else the error that asks for ``flag``."""
    if not value:
        raise UserError(f"{flag} is missing")
    return value
