"""Write the weights of a checkpoint for release, without the rest of a training run.

python tools/export_weights.py --input <run>/best.ckpt --output <folder>
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from dataclasses import fields
from pathlib import Path

from msg_ms.checkpoint import (
    CONFIG_KEY,
    EMA_PREFIX,
    read_checkpoint,
    select_prefix,
    stored_config,
    write_checkpoint,
)
from msg_ms.cli import path_argument, run_command_line
from msg_ms.config import load_config, to_yaml
from msg_ms.config.checks import FILE_NAME
from msg_ms.engine.train_state import TrainState
from msg_ms.errors import UserError
from msg_ms.files import atomic_write

OF_RUN = {field.name for field in fields(TrainState)}


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
    stored = stored_config(args.input, metadata)
    if stored is None and not args.name:
        raise UserError("the checkpoint does not store the model's name; pass --name")
    # The classes and the configuration make the file usable by itself, without the paths and numbers of the run.
    config = load_config(None, stored=stored)
    kept = {key: value for key, value in metadata.items() if key not in OF_RUN}
    if stored is not None:
        kept[CONFIG_KEY] = to_yaml(config)
    name = args.name or config.model.name
    if not FILE_NAME.holds(name):
        raise UserError(f"--name {name}: must be {FILE_NAME.expects}")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "weights.ckpt"
        write_checkpoint(written, weights, kept)
        content = written.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    path = args.output / f"{name}-{digest[:8]}.ckpt"
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    print(f"{path}: {sum(w.size for w in weights.values()):,} parameters, {len(content):,} bytes, sha256 {digest}")


if __name__ == "__main__":
    run_command_line(main)
