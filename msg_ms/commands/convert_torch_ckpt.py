"""Convert checkpoints between the paper's PyTorch code and this package, without PyTorch.

Nothing in a PyTorch file is run: classes and functions that it names, beyond those that rebuild tensors, are ignored
and listed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint.dtypes import KEEP, TYPES, finite
from ..convert import cast_weights, check_buffers, convert_state_dict, dropped_names, export_state_dict
from ..convert.model_shapes import Changes, fit_weights
from ..convert.names import ConversionError, State
from ..convert.weight_files import (
    OUR_SUFFIXES,
    TORCH_SUFFIXES,
    compare_with_file,
    read_our_weights,
    read_torch_weights,
    write_weights,
)
from ..errors import UserError, printable
from ..files import atomic_write


@dataclass(frozen=True)
class Options:
    """How files are converted; the fields are the command's flags."""

    reverse: bool = False
    cfg: str | None = None
    key: str | None = None
    dtype: str | None = None
    verify: bool = False
    changes: Changes = field(default_factory=Changes)
    seed: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """How the names of files to read end."""
        return OUR_SUFFIXES if self.reverse else (*TORCH_SUFFIXES, ".pth.tar")

    @property
    def outputs(self) -> tuple[str, ...]:
        """How the names of files to write may end, the usual ending first."""
        return TORCH_SUFFIXES if self.reverse else OUR_SUFFIXES


def main() -> int:
    args = parser().parse_args()
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must not be negative")
    changes = Changes(args.num_classes, args.img_size, args.window_size)
    options = Options(args.reverse, args.cfg, args.key, args.dtype, args.verify, changes, args.seed)
    if args.input.is_dir():
        return convert_folder(args.input, args.output, options, args.format)
    if args.format is not None:
        raise UserError(f"--format {args.format}: for a folder; a single file's format is how --output ends")
    convert(args.input, args.output, options)
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Convert checkpoints of the paper's PyTorch code, or back.")
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="PATH", help="checkpoint to read, or a folder of them")
    add(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help=f"file to write ({' '.join(OUR_SUFFIXES)}; with --reverse {' '.join(TORCH_SUFFIXES)}), or a folder",
    )
    add("--reverse", action="store_true", help="from MindSpore to PyTorch")
    add("--cfg", help="configuration that the result must fit (default: recognised from the weights' shapes)")
    add("--key", help="where in the checkpoint the weights are, e.g. model_ema or a.b (default: model or state_dict; "
        "with --reverse model, or ema for the average that a training checkpoint keeps)")  # fmt: skip
    add("--dtype", choices=[*TYPES, KEEP], help="type to write (default: float32; with --reverse keep)")
    add("--verify", action="store_true", help="read the written file again and compare every bit")
    add("--num-classes", type=int, metavar="N", help="another number of classes: the head is drawn anew; 0: no head")
    add("--img-size", type=int, metavar="S", help="resample position embeddings (MODEL.MSG.APE) to images of S pixels")
    add("--window-size", type=int, metavar="W", help="resample the position-bias tables to windows of W tokens")
    add("--seed", type=int, default=0, help="of the new head (default: 0)")
    add("--format", help="ending of the files in the output folder (default: ckpt; with --reverse pth)")
    return parser


def convert_folder(source: Path, target: Path, options: Options, ending: str | None) -> int:
    """Convert every checkpoint in ``source``; each failure is a line on stderr, and the status then 2."""
    suffix = f".{ending.removeprefix('.')}" if ending else options.outputs[0]
    if suffix not in options.outputs:
        raise UserError(f"--format {ending}: must be {' or '.join(s[1:] for s in options.outputs)}")
    if target.exists() and not target.is_dir():
        raise UserError(f"--output {target}: must be a folder, as --input is one")
    try:
        files = [p for p in source.iterdir() if p.is_file() and not p.name.startswith(".")]
    except OSError as error:
        raise UserError(f"can't read --input {source}: {error.strerror or error}") from None
    found = sorted(path for path in files if path.name.endswith(options.inputs))
    if not found:
        raise UserError(f"--input {source}: no {' '.join(options.inputs)} in it")
    taken = {path.resolve(): path for path in found}
    failed = 0
    for path in found:
        output = target / f"{Path(path.name.removesuffix('.tar')).stem}{suffix}"
        try:
            if (other := taken.setdefault(output.resolve(), path)) is not path or output.resolve() == path.resolve():
                raise UserError(f"{path}: its result {output} would take the place of {other}")
            convert(path, output, options)
        except UserError as error:
            failed += 1
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    print(f"{len(found) - failed} of {len(found)} checkpoints converted")
    return 2 if failed else 0


def convert(source: Path, target: Path, options: Options) -> None:
    """Convert one file, and print what was done."""
    if target.suffix not in options.outputs or target.is_dir():
        other = "" if options.reverse else " (or pass --reverse)"
        raise UserError(f"--output {target}: must be a file that ends in {' or '.join(options.outputs)}{other}")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"--output {target} is the input")
    try:
        state, lines = (to_torch if options.reverse else to_mindspore)(source, options)
    except ConversionError as error:
        raise UserError(f"{source} doesn't convert: {error}") from None
    except MemoryError:
        raise UserError(f"{source}: needs more memory than there is") from None
    with atomic_write(target) as temporary:
        write_weights(temporary, state, options.reverse)
        if options.verify:
            compare_with_file(temporary, state, options.reverse)
            lines.append(f"verified   {target}: all {len(state)} tensors read back bit for bit")
    print("\n".join(lines))
    print(f"wrote      {target}")


def to_mindspore(source: Path, options: Options) -> tuple[State, list[str]]:
    """The weights under our names, and lines on what was done to them."""
    file = read_torch_weights(source, options.key)
    converted = convert_state_dict(file.state)
    check_buffers(file.state, converted)
    name, weights, lines = changed(source, converted, options)
    dropped = Counter(dropped_names(file.state).values())
    lines += [f"dropped    {count} buffers on purpose ({why})" for why, count in dropped.items()]
    if file.ignored:
        shown = printable(", ".join(file.ignored))
        lines.append(f"ignored    {shown}: named in the file, neither imported nor run")
    return weights, [f"read       {source}: {name}", *lines]


def to_torch(source: Path, options: Options) -> tuple[State, list[str]]:
    """The weights and the rebuilt buffers under PyTorch's names, and lines on what was done to them."""
    name, weights, lines = changed(source, read_our_weights(source, options.key), options)
    state = export_state_dict(weights)
    lines.append(f"rebuilt    {len(state) - len(weights)} buffers")
    return state, [f"read       {source}: {name}", *lines]


def changed(source: Path, weights: State, options: Options) -> tuple[str, State, list[str]]:
    """The model's name, the weights in the shapes and the type that were asked for, and lines on that."""
    try:
        weights, types = cast_weights(weights, options.dtype or (KEEP if options.reverse else "float32"))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    name, weights, lines = fit_weights(weights, options.cfg, options.changes, options.seed)
    lines = [f"adapted    {line}" for line in lines]
    count = sum(value.size for value in weights.values())
    lines.insert(0, f"converted  {len(weights)} parameters, {count:,} values, {types}")
    broken = [name for name, value in weights.items() if not finite(value)]
    if broken:
        lines.append(f"warning    infinite or undefined values in {', '.join(broken[:5])}")
    return name, weights, lines
