"""Run an unmodified mindcv script with this package's models in mindcv's registry.

mindcv's train.py and validate.py know only the models that mindcv registers. This command imports msg_ms first. It then
runs the script in the same process with the script's arguments, like ``python <script> ...``.
"""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import sys
from pathlib import Path

from ..cli import path_argument
from ..errors import UserError, nearest
from ..models.variants import VARIANTS
from ..version import __version__

# PyPI has the oldest one. The newest one is the head of mindcv's repository, without a tag.
OLDEST, NEWEST = "0.3.0", "0.5.0"
REPOSITORY = "https://github.com/mindspore-lab/mindcv"
CHECKOUT = f"git clone --branch v{OLDEST} {REPOSITORY}"


def main() -> None:
    """Check mindcv, the script and its arguments, then run the script."""
    parser = argparse.ArgumentParser(
        description="Run a mindcv script, such as train.py or validate.py, with msg_tiny, msg_small and msg_base."
    )
    parser.add_argument("script", type=path_argument, metavar="SCRIPT", help=f"in a clone of mindcv ({CHECKOUT})")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the script")
    args = parser.parse_args()
    package, version = check_mindcv()
    check_script(args.script, version)
    # As Python does for a script.
    sys.argv = [str(args.script), *args.arguments]
    sys.path.insert(0, str(args.script.resolve().parent))
    check_arguments(args.script, args.arguments)
    print(f"{args.script} with mindcv {version} of {package} and msg_ms {__version__}", flush=True)
    runpy.run_path(str(args.script), run_name="__main__")


def check_mindcv() -> tuple[Path, str]:
    """Return folder and version of the installed mindcv; raises UserError unless it has a supported version."""
    try:
        mindcv = importlib.import_module("mindcv")
    except ModuleNotFoundError as error:
        if error.name != "mindcv":
            raise
        raise UserError(f"mindcv is not installed: pip install mindcv=={OLDEST}") from None
    if not is_supported(mindcv.__version__):
        raise UserError(
            f"mindcv {mindcv.__version__} is installed; {OLDEST} to {NEWEST} are supported: "
            f"pip install mindcv=={OLDEST}"
        )
    return Path(mindcv.__path__[0]), mindcv.__version__


def is_supported(version: str) -> bool:
    """Return whether a version of mindcv is one of the supported range."""
    numbers = re.match(r"\d+\.\d+\.\d+", version)
    oldest, found, newest = (
        tuple(map(int, text.split("."))) for text in (OLDEST, numbers[0] if numbers else "0.0.0", NEWEST)
    )
    return oldest <= found <= newest


def check_script(script: Path, version: str) -> None:
    """Raise UserError unless ``script`` belongs to a clone of mindcv at the installed version."""
    if not script.is_file():
        raise UserError(f"{script} does not exist; mindcv's scripts are in a clone, not in its wheel: {CHECKOUT}")
    file = script.resolve().parent / "mindcv" / "version.py"
    if not file.is_file():
        raise UserError(f"{script} is not in the root of a clone of mindcv: {CHECKOUT}")
    match = re.search(r"""__version__\s*=\s*["'](.+?)["']""", file.read_text(encoding="utf-8"))
    found = match[1] if match else "unknown"
    if found == version:
        return
    remedies = [f"git -C {script.parent} checkout v{version}"]
    if is_supported(found):
        remedies.append(f"pip install --no-deps -e {script.parent}")
    raise UserError(f"{script} belongs to mindcv {found}, but {version} is installed: {' or '.join(remedies)}")


def check_arguments(script: Path, arguments: list[str]) -> None:
    """Raise UserError for missing files, unknown names, and settings that are known to fail.

    mindcv shows a traceback for most of them, but continues with random weights if ``ckpt_path`` does not exist.
    mindcv's own parser reads the arguments, and exits on syntax errors.
    """
    if not re.search(r"^from config import .*parse_args", script.read_text(encoding="utf-8"), re.MULTILINE):
        return  # infer.py and others have other arguments
    config = importlib.import_module("config")
    known, _ = config.create_parser()[0].parse_known_args(arguments)
    if known.config and not Path(known.config).is_file():
        raise UserError(f"--config {known.config} does not exist")
    try:
        args = config.parse_args(arguments)
    except KeyError as error:
        raise UserError(f"{known.config}: {error.args[0]}") from None
    trains = script.stem.startswith("train")
    check_model(args, trains)
    check_settings(args, trains)
    if args.dataset in ("", "imagenet") and not Path(args.data_dir).is_dir():
        raise UserError(f"--data_dir {args.data_dir} is not a directory")


def check_model(args: argparse.Namespace, trains: bool) -> None:
    """Raise UserError if the model or its weights do not exist."""
    models = importlib.import_module("mindcv.models")
    if not models.is_model(args.model):
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, models.list_models())}")
    if args.ckpt_path and not Path(args.ckpt_path).is_file():
        raise UserError(f"--ckpt_path {args.ckpt_path} does not exist; mindcv would continue with random weights")
    if args.ckpt_path and trains and not re.match(r"[^-]*-\d+[-_]", Path(args.ckpt_path).name):
        raise UserError(
            f"--ckpt_path {args.ckpt_path}: mindcv's trainer reads the first epoch from the file name; "
            f"copy the file to {args.model}-0_0.ckpt for epoch 0"
        )


def check_settings(args: argparse.Namespace, trains: bool) -> None:
    """Raise UserError for settings that are known to fail."""
    key = "amp_level" if trains else "val_amp_level"
    level = getattr(args, key)
    if args.model in VARIANTS and level in ("O1", "O2"):
        raise UserError(
            f"--{key} {level}: mindcv's mixed precision replaces layers whose attributes {args.model} uses; "
            f"use O0, or train.py of msg_ms with --amp-opt-level {level}"
        )
    if trains and args.ema and args.val_while_train:
        raise UserError(
            "--ema True with --val_while_train True: mindcv's trainer fails at the end of the first epoch; "
            "evaluate afterwards with validate.py --ema True"
        )
