"""Shared parts of the command lines: the paper code's flags, and errors as one line with status 2."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .checkpoint import config_of_checkpoint
from .config import Config, load_config
from .errors import UserError
from .files import ESCAPE, user_path

OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)  # of a stream without a name

UTF8_HINT = "set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8"


def run_command_line(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit; a ``UserError`` or a file that can't be used becomes one line on stderr and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be text, and the encoding may be ASCII
            stream.reconfigure(errors=ESCAPE)
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except UnicodeEncodeError as error:
        if error.encoding != sys.getfilesystemencoding() or error.encoding == "utf-8":
            raise
        print(
            f"error: {_name_of(error)!r} can't be a file name: this locale's encoding is {error.encoding}; {UTF8_HINT}",
            file=sys.stderr,
        )
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of the output has exited, as head does
        _discard_output()
        status = 141
    except OSError as error:
        if error.filename is not None:
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
            print(f"error: can't use {name}: {error.strerror}", file=sys.stderr)
        elif error.errno in OUTPUT_ERRORS:
            _discard_output()
            print(f"error: can't write the output: {error.strerror}", file=sys.stderr)
        else:  # not a file of the user
            raise
        status = 2
    sys.exit(status)


def _name_of(error: UnicodeEncodeError) -> str:
    """Return the file name that can't be encoded; lists of names are joined by zeros."""
    names, before = error.object.split("\0"), error.object[: error.start].count("\0")
    return names[before]


def _discard_output() -> None:
    """Send the rest of the standard output nowhere, so that Python does not try to write it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def path_argument(text: str) -> Path:
    """Return the path in a command-line argument, with ``~`` expanded; the shell does not for ``--flag=~/x``."""
    try:
        return user_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def model_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the flags of every command that runs a model, for ``config_from_arguments``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--cfg", metavar="FILE", help="YAML configuration, see configs/ (default: the one that the checkpoint stores)"
    )
    parser.add_argument(
        "--opts", nargs="+", action="extend", default=[], metavar="KEY VALUE", help="replace configuration keys"
    )
    parser.add_argument("--resume", metavar="CKPT", help="checkpoint to start from")
    parser.add_argument("--batch-size", type=int, help="images per device")
    parser.add_argument("--img-size", type=int, metavar="PIXELS", help="side of the model's input (DATA.IMG_SIZE)")
    parser.add_argument("--window-size", type=int, metavar="TOKENS", help="side of a window (MODEL.MSG.WINDOW_SIZE)")
    parser.add_argument(
        "--amp-opt-level", choices=["O0", "O1", "O2"], help="mixed precision (default: O0 on CPU, else O1)"
    )
    parser.add_argument(
        "--inference-precision",
        choices=["float32", "bfloat16"],
        help="precision of inference on CPU, without training (default: float32)",
    )
    parser.add_argument("--device-target", choices=["CPU", "GPU", "Ascend"], help="default: MindSpore's choice")
    return parser


def config_parser(description: str) -> argparse.ArgumentParser:
    """Return ``model_parser`` with the further flags of train.py and eval.py."""
    parser = model_parser(description)
    parser.add_argument("--data-path", help="folder of the data set: class folders, or COCO's layout")
    parser.add_argument("--output", metavar="DIR", help="results go to DIR/<MODEL.NAME>/<tag> (default: output)")
    parser.add_argument("--tag", help="name of this run (default: default)")
    return parser


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of train.py."""
    parser = config_parser("Train a model; evaluate it after each epoch.")
    parser.add_argument("--accumulation-steps", type=int, help="batches per optimizer step")
    parser.add_argument(
        "--pretrained", metavar="CKPT", help="weights to start a run from; classes and sizes may differ"
    )
    parser.add_argument("--eval", action="store_true", help="evaluate --resume and exit")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the paper's launcher passes it
    parser.add_argument(
        "--profile", type=int, metavar="N", help="profile N steps, after the first one, and continue training"
    )
    parser.add_argument("--throughput", action="store_true", help="measure inference speed on one batch and exit")
    return parser


def config_from_arguments(args: argparse.Namespace, **overrides: object) -> Config:
    """Return the configuration that the flags describe.

    Flags override ``--opts``, which override the file, which overrides the configuration of a checkpoint.

    Args:
        args: The parsed flags.
        overrides: Further keys, with ``__`` for the dots, that override the flags.
    """
    flags = vars(args)
    keys = dict(
        DATA__BATCH_SIZE=args.batch_size,
        DATA__DATA_PATH=flags.get("data_path"),
        DATA__IMG_SIZE=args.img_size,
        MODEL__MSG__WINDOW_SIZE=args.window_size,
        MODEL__RESUME=args.resume,
        MODEL__PRETRAINED=flags.get("pretrained"),
        OUTPUT=flags.get("output"),
        TAG=flags.get("tag"),
        DEVICE_TARGET=args.device_target,
        TRAIN__ACCUMULATION_STEPS=flags.get("accumulation_steps"),
        AMP_OPT_LEVEL=args.amp_opt_level,
        INFERENCE_PRECISION=args.inference_precision,
        EVAL_MODE=flags.get("eval") or None,
        THROUGHPUT_MODE=flags.get("throughput") or None,
    )
    keys |= overrides
    trains = not (keys["EVAL_MODE"] or keys["THROUGHPUT_MODE"])
    if trains and args.cfg is not None:  # --pretrained accepts other classes and sizes, --resume names the differences
        return load_config(args.cfg, args.opts, **keys)
    options = dict(zip(args.opts[::2], args.opts[1::2]))  # noqa: B905 (load_config refuses an odd number)
    names = ("RESUME", "PRETRAINED") if trains else ("RESUME",)
    checkpoint = next(filter(None, (keys[f"MODEL__{name}"] or options.get(f"MODEL.{name}") for name in names)), None)
    if checkpoint:
        return config_of_checkpoint(user_path(checkpoint), args.cfg, args.opts, **keys)
    if args.cfg is None:
        raise UserError("--cfg is missing; only a checkpoint (--resume, --pretrained) stores a configuration")
    return load_config(args.cfg, args.opts, **keys)


def profile_steps(args: argparse.Namespace, config: Config) -> int:
    """Return the number of steps to profile, 0 without ``--profile``; raise UserError if there can't be a profile."""
    if args.profile is None:
        return 0
    if args.profile < 1:
        raise UserError(f"--profile {args.profile}: must be at least 1 step")
    if config.eval_mode or config.throughput_mode:
        raise UserError("--profile is for training, not for --eval or --throughput")
    return int(args.profile)


def require(value: str, flag: str) -> str:
    """Return ``value``; raise UserError that asks for ``flag`` if it is empty."""
    if not value:
        raise UserError(f"{flag} is missing")
    return value
