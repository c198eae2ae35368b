"""Write the weights of a checkpoint for release, without the rest of a training run.

python tools/export_weights.py --input <run>/best.ckpt --output <folder>
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

import yaml

from msg_ms.checkpoint import EMA_PREFIX, Metadata, read_checkpoint, select_prefix, write_checkpoint
from msg_ms.cli import path_argument, run_command_line
from msg_ms.config.checks import FILE_NAME
from msg_ms.errors import UserError
from msg_ms.files import atomic_write


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Write only the weights of a checkpoint. The file name ends with their hash, as in mindcv."
    )
    parser.add_argument(
        "--input", required=True, type=path_argument, metavar="CKPT", help="checkpoint of a training run"
    )
    parser.add_argument("--output", required=True, type=path_argument, metavar="DIR", help="folder to write to")
    parser.add_argument("--name", help="start of the file name (default: the model's name)")
    parser.add_argument("--ema", action="store_true", help="write the averaged weights (EMA) instead")
    args = parser.parse_args()

    arrays, metadata = read_checkpoint(args.input)
    weights = select_prefix(arrays, EMA_PREFIX if args.ema else "")
    if not weights:
        raise UserError(f"{args.input} has no averaged weights; set TRAIN.EMA_DECAY in training")
    name = args.name or model_name(metadata)
    if not FILE_NAME.holds(name):
        raise UserError(f"--name {name}: must be {FILE_NAME.expects}")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "weights.ckpt"
        write_checkpoint(written, weights)
        content = written.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    path = args.output / f"{name}-{digest[:8]}.ckpt"
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}: {sum(w.size for w in weights.values()):,} parameters, {len(content):,} bytes, sha256 {digest}")


def model_name(metadata: Metadata) -> str:
    """Return ``MODEL.NAME`` of the run that wrote the checkpoint."""
    if "config" not in metadata:
        raise UserError("the checkpoint does not store the model's name; pass --name")
    try:
        return str(yaml.safe_load(str(metadata["config"]))["MODEL"]["NAME"])
    except (yaml.YAMLError, KeyError, TypeError):
        raise UserError("the checkpoint's configuration has no model name; pass --name") from None


if __name__ == "__main__":
    run_command_line(main)
