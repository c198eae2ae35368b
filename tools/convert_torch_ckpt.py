"""Convert checkpoints between the paper's PyTorch code and this package, without PyTorch.

    python tools/convert_torch_ckpt.py --input ckpt_epoch_299.pth --output msg_tiny.ckpt
    python tools/convert_torch_ckpt.py --input msg_tiny.ckpt --output msg_tiny.pth --reverse

Nothing in a PyTorch file is run: classes and functions that it names, beyond those that rebuild tensors, are
ignored and listed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from mindspore.nn.utils import no_init_parameters

from msg_ms import MSGTransformer
from msg_ms.cli import run_command_line
from msg_ms.config import load_config
from msg_ms.convert import (
    ConversionError,
    convert_state_dict,
    dropped_names,
    export_state_dict,
    infer_architecture,
    model_state,
    read_torch_file,
    variant_name,
    write_torch_file,
)
from msg_ms.convert.apply import State
from msg_ms.engine.checkpoint import part, read_checkpoint, write_checkpoint
from msg_ms.errors import UserError
from msg_ms.files import written_whole
from msg_ms.models.build import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a checkpoint of the paper's PyTorch code, or back.")
    parser.add_argument("--input", type=Path, required=True, help="checkpoint to read")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write: .ckpt, with --reverse .pth")
    parser.add_argument(
        "--cfg", help="configuration that the checkpoint must fit (default: recognised from its shapes)"
    )
    parser.add_argument("--reverse", action="store_true", help="from MindSpore to PyTorch")
    args = parser.parse_args()
    wanted = (".pth", ".pt") if args.reverse else (".ckpt",)
    if args.output.suffix not in wanted:
        raise UserError(
            f"--output {args.output}: must end in {' or '.join(wanted)}{'' if args.reverse else ' (or pass --reverse)'}"
        )
    if args.output.exists() and args.output.samefile(args.input):
        raise UserError(f"--output {args.output} is the input")
    (to_torch if args.reverse else to_mindspore)(args.input, args.output, args.cfg)


def to_mindspore(source: Path, target: Path, cfg: str | None) -> None:
    file = read_torch_file(source)
    state = model_state(file.content)
    try:
        converted = convert_state_dict(state)
        name, expected = expected_parameters(converted, cfg)
        converted = convert_state_dict(state, expected)
    except ConversionError as error:
        raise UserError(f"{source} doesn't convert: {error}") from None
    write_checkpoint(target, as_float32(converted, source))
    dropped = dropped_names(state)
    print(f"read       {source}: {name}")
    count = sum(value.size for value in converted.values())
    print(f"converted  {len(converted)} parameters, {count:,} values, {describe_types(converted)}")
    for why, count in Counter(dropped.values()).items():
        print(f"dropped    {count} buffers on purpose ({why})")
    if file.ignored:
        print(f"ignored    {', '.join(file.ignored)}: named in the file, neither imported nor run")
    broken = [name for name, value in converted.items() if not np.isfinite(value).all()]
    if broken:
        print(f"warning    infinite or undefined values in {', '.join(broken[:5])}")
    print(f"wrote      {target}")


def to_torch(source: Path, target: Path, cfg: str | None) -> None:
    arrays, _ = read_checkpoint(source)
    weights = part(arrays, "")
    try:
        state = export_state_dict(weights)
        name, expected = expected_parameters(weights, cfg)
        convert_state_dict(state, expected)
    except ConversionError as error:
        raise UserError(f"{source} doesn't convert: {error}") from None
    with written_whole(target) as temporary:
        write_torch_file(temporary, state)
    print(f"read       {source}: {name}")
    print(f"converted  {len(weights)} parameters, and rebuilt {len(state) - len(weights)} buffers")
    print(f"wrote      {target}")


def expected_parameters(weights: State, cfg: str | None) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The model's name and its parameters' shapes, from the configuration or recognised from the weights."""
    with no_init_parameters():
        if cfg is not None:
            config = load_config(cfg)
            name, model = config.model.name, build_model(config.model, config.data.img_size)
        else:
            architecture = infer_architecture(weights)
            name, model = variant_name(architecture), MSGTransformer(**architecture)
    return name, {parameter.name: tuple(parameter.shape) for parameter in model.get_parameters()}


def as_float32(weights: State, source: Path) -> State:
    """The weights in the model's own precision; half precision widens without loss."""
    wrong = [name for name, value in weights.items() if value.dtype.kind != "f"]
    if wrong:
        raise UserError(
            f"{source}: {wrong[0]} holds {weights[wrong[0]].dtype} where weights must be floating-point numbers"
        )
    return {name: value.astype(np.float32) for name, value in weights.items()}


def describe_types(weights: State) -> str:
    types = sorted({str(value.dtype) for value in weights.values()})
    return "float32" if types == ["float32"] else f"{' and '.join(types)} written as float32"


if __name__ == "__main__":
    run_command_line(main)
