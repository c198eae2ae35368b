"""Convert checkpoints between the paper's PyTorch code and this package, without PyTorch.

Nothing in a PyTorch file is run. Classes and functions that it names are ignored and listed, except those that rebuild
tensors.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint.dtypes import DTYPES, KEEP, cast_weights, is_finite
from ..checkpoint.types import Arrays, ConversionError
from ..cli import path_argument
from ..convert.detector_shapes import fit_detector, is_detector, rules_for
from ..convert.model_shapes import Changes, fit_weights
from ..convert.names import check_buffers, convert_state_dict, dropped_names, export_state_dict
from ..convert.parts import INDEX_SUFFIX, is_index, part_files
from ..convert.weight_files import (
    OUR_SUFFIXES,
    TORCH_SUFFIXES,
    compare_with_file,
    read_our_weights,
    read_torch_weights,
    write_weights,
)
from ..errors import UserError, printable, shorten
from ..files import atomic_write


@dataclass(frozen=True)
class Options:
    """Options of a conversion; the fields are the command's flags."""

    reverse: bool = False
    cfg: str | None = None
    key: str | None = None
    dtype: str | None = None
    verify: bool = False
    changes: Changes = field(default_factory=Changes)
    seed: int = 0

    @property
    def input_suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files to read in a folder."""
        return OUR_SUFFIXES if self.reverse else (*TORCH_SUFFIXES, ".pth.tar", INDEX_SUFFIX)

    @property
    def output_suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that can be written, the default first."""
        return TORCH_SUFFIXES if self.reverse else OUR_SUFFIXES


def main() -> int:
    """Run the command line and return the exit status."""
    args = parser().parse_args()
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must not be negative")
    changes = Changes(args.num_classes, args.img_size, args.window_size)
    options = Options(args.reverse, args.cfg, args.key, args.dtype, args.verify, changes, args.seed)
    if args.input.is_dir():
        return convert_folder(args.input, args.output, options, args.format)
    if args.format is not None:
        raise UserError(f"--format {args.format}: only for folders; the suffix of --output selects a file's format")
    convert(args.input, args.output, options)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = argparse.ArgumentParser(
        description="Convert checkpoints of the paper's PyTorch code to MindSpore, or back. PyTorch is not needed."
    )
    add = parser.add_argument
    add(
        "--input",
        type=path_argument,
        required=True,
        metavar="PATH",
        help="checkpoint to read, or a folder of checkpoints",
    )
    add(
        "--output",
        type=path_argument,
        required=True,
        metavar="PATH",
        help=f"file to write ({' '.join(OUR_SUFFIXES)}; with --reverse {' '.join(TORCH_SUFFIXES)}), or a folder",
    )
    add("--reverse", action="store_true", help="convert from MindSpore to PyTorch")
    add("--cfg", help="configuration that the result must fit (default: infer the model from the weights)")
    add(
        "--key",
        help="location of the weights in the checkpoint, such as model_ema or a.b (default: model or state_dict); "
        "with --reverse: model (default), or ema for the averaged weights of a training checkpoint",
    )
    add("--dtype", choices=[*DTYPES, KEEP], help="type of the written weights (default: float32; with --reverse keep)")
    add("--verify", action="store_true", help="read the written file again and compare every bit")
    add("--num-classes", type=int, metavar="N", help="number of classes of a re-initialised head; 0 removes the head")
    add("--img-size", type=int, metavar="S", help="resample position embeddings (MODEL.MSG.APE) to images of S pixels")
    add("--window-size", type=int, metavar="W", help="resample the position bias tables to windows of W x W tokens")
    add("--seed", type=int, default=0, help="seed of a re-initialised head (default: 0)")
    add("--format", help="suffix of the files in the output folder (default: ckpt; with --reverse pth)")
    return parser


def convert_folder(source: Path, target: Path, options: Options, suffix: str | None) -> int:
    """Convert every checkpoint in a folder; report each failure in a line on stderr.

    Args:
        source: Folder to read.
        target: Folder to write to.
        options: Options of the conversion.
        suffix: Suffix of the files to write, None for the default.

    Returns:
        The exit status: 2 if a file failed, else 0.
    """
    output_suffix = f".{suffix.removeprefix('.')}" if suffix else options.output_suffixes[0]
    if output_suffix not in options.output_suffixes:
        raise UserError(f"--format {suffix}: must be {' or '.join(s[1:] for s in options.output_suffixes)}")
    if target.exists() and not target.is_dir():
        raise UserError(f"--output {target}: must be a folder, because --input is one")
    try:
        files = [p for p in source.iterdir() if p.is_file() and not p.name.startswith(".")]
    except OSError as error:
        raise UserError(f"can't read --input {source}: {error.strerror or error}") from None
    parts = set().union(*(part_files(path) for path in files if is_index(path) and not options.reverse))
    checkpoints = sorted(path for path in files if path.name.endswith(options.input_suffixes) and path not in parts)
    if not checkpoints:
        raise UserError(f"--input {source}: the folder has no {' '.join(options.input_suffixes)} files")
    owners = {path.resolve(): path for path in checkpoints}
    failed = 0
    for path in checkpoints:
        output = target / f"{Path(path.name.removesuffix('.tar').removesuffix(INDEX_SUFFIX)).stem}{output_suffix}"
        try:
            if (owner := owners.setdefault(output.resolve(), path)) is not path or output.resolve() == path.resolve():
                raise UserError(f"{path}: its output {output} would replace that of {owner}")
            convert(path, output, options, replace=False)
        except UserError as error:
            failed += 1
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    print(f"{len(checkpoints) - failed} of {len(checkpoints)} checkpoints converted")
    return 2 if failed else 0


def convert(source: Path, target: Path, options: Options, replace: bool = True) -> None:
    """Convert one file and print a summary.

    Args:
        source: File to read.
        target: File to write.
        options: Options of the conversion.
        replace: Whether an existing target with other weights is replaced.

    Raises:
        UserError: If a file is unreadable, does not convert, or cannot be written. No new file is left then.
    """
    if target.suffix not in options.output_suffixes or target.is_dir():
        hint = "" if options.reverse else " (or pass --reverse)"
        raise UserError(f"--output {target}: must be a file that ends in {' or '.join(options.output_suffixes)}{hint}")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"--output {target} is the same file as --input")
    try:
        state, lines = (to_torch if options.reverse else to_mindspore)(source, options)
    except ConversionError as error:
        raise UserError(f"can't convert {source}: {error}") from None
    except MemoryError:
        raise UserError(f"{source}: not enough memory to convert it") from None
    if not replace and os.path.lexists(target):
        check_equal(target, state, options)
        print("\n".join([*lines, f"unchanged  {target}"]))
        return
    lines.append(f"wrote      {target}")
    with atomic_write(target) as temporary:
        write_weights(temporary, state, options.reverse)
        if options.verify:
            compare_with_file(temporary, state, options.reverse)
            lines.append(f"verified   {target}: all {len(state)} tensors read back bit for bit")
    print("\n".join(lines))


def check_equal(target: Path, state: Arrays, options: Options) -> None:
    """Raise UserError unless an existing file holds exactly these weights."""
    try:
        compare_with_file(target, state, options.reverse)
    except UserError:
        raise UserError(f"{target} exists with other content: move it, or name another folder") from None


def to_mindspore(source: Path, options: Options) -> tuple[Arrays, list[str]]:
    """Return the weights of a PyTorch file by our names, and the lines of the summary."""
    file = read_torch_weights(source, options.key)
    rules = rules_for(file.state)
    converted = convert_state_dict(file.state, rules=rules)
    check_buffers(file.state, converted, rules)
    name, weights, lines = adjust_weights(source, converted, options)
    dropped = Counter(dropped_names(file.state, rules).values())
    lines += [f"dropped    {count} buffers ({reason})" for reason, count in dropped.items()]
    lines += file.notes
    if file.ignored:
        names = printable(", ".join(file.ignored))
        lines.append(f"ignored    {names}: named in the file, neither imported nor called")
    return weights, [f"read       {source}: {name}", *lines]


def to_torch(source: Path, options: Options) -> tuple[Arrays, list[str]]:
    """Return the weights and the rebuilt buffers by PyTorch's names, and the lines of the summary."""
    name, weights, lines = adjust_weights(source, read_our_weights(source, options.key), options)
    state = export_state_dict(weights, rules=rules_for(weights))
    lines.append(f"rebuilt    {len(state) - len(weights)} buffers")
    return state, [f"read       {source}: {name}", *lines]


def adjust_weights(source: Path, weights: Arrays, options: Options) -> tuple[str, Arrays, list[str]]:
    """Cast and adapt the weights as requested; return the model's name, the weights, and lines of the summary."""
    try:
        weights, types = cast_weights(weights, options.dtype or (KEEP if options.reverse else "float32"))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    fit = fit_detector if is_detector(weights) else fit_weights
    name, weights, changes = fit(weights, options.cfg, options.changes, options.seed)
    count = sum(value.size for value in weights.values())
    lines = [f"converted  {len(weights)} parameters, {count:,} values, {types}"]
    lines += [f"adapted    {change}" for change in changes]
    not_finite = [name for name, value in weights.items() if not is_finite(value)]
    if not_finite:
        lines.append(f"warning    infinite or NaN values in {shorten(not_finite)}")
    return name, weights, lines
