"""Export a trained model to ONNX or MindIR and compare the file with the model."""

from __future__ import annotations

import argparse
import sys

from ..checkpoint import config_of_checkpoint
from ..cli import path_argument
from ..deploy import OLDEST_OPSET, ExportOptions
from ..deploy.exporter import CONVOLUTIONS, image_size
from ..engine.device import setup_device
from ..tasks import build_task


def main() -> None:
    """Export the model, and print the file's inputs, outputs and the result of the comparison."""
    args = parse_arguments()
    options = ExportOptions(
        args.output,
        args.batch_size,
        args.dynamic_batch,
        args.softmax,
        image_size(args.img_size) if args.img_size else None,
        args.opset,
        args.convolution,
    )
    config = config_of_checkpoint(args.resume, args.cfg, args.opts, MODEL__MSG__WINDOW_SIZE=args.window_size)
    exporter = build_task(config).exporter()
    setup_device(args.device_target or config.device_target, config.seed)
    exported = exporter.export(args.resume, options, lambda line: print(line, file=sys.stderr))
    print(f"wrote    {args.output}: {args.output.stat().st_size:,} bytes")
    print(f"input    {exported.inputs}")
    print(f"output   {exported.outputs}")
    print(f"checked  {exported.checked}")


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command's flags."""
    parser = argparse.ArgumentParser(
        description="Export a trained model to ONNX or MindIR, and compare it with the model."
    )
    parser.add_argument(
        "--cfg", metavar="FILE", help="the model's configuration (default: the one that the checkpoint stores)"
    )
    parser.add_argument(
        "--opts", nargs="+", action="extend", default=[], metavar="KEY VALUE", help="replace configuration keys"
    )
    parser.add_argument("--resume", required=True, type=path_argument, metavar="CKPT", help="checkpoint to export")
    parser.add_argument("--output", required=True, type=path_argument, metavar="FILE", help="X.onnx or X.mindir")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per run (default: 1)")
    rows.add_argument("--dynamic-batch", action="store_true", help="any number of images per run")
    parser.add_argument("--softmax", action="store_true", help="output probabilities instead of logits")
    parser.add_argument(
        "--img-size", nargs="+", type=int, metavar="PIXELS", help="side, or height and width (default: DATA.IMG_SIZE)"
    )
    parser.add_argument("--window-size", type=int, metavar="TOKENS", help="side of a window (MODEL.MSG.WINDOW_SIZE)")
    parser.add_argument("--opset", type=int, help=f"ONNX operator set (default: {OLDEST_OPSET})")
    parser.add_argument(
        "--convolution",
        choices=CONVOLUTIONS,
        help="convolutions of a MindIR (default: unfold for CPU, conv2d for other devices)",
    )
    parser.add_argument("--device-target", choices=["CPU", "GPU", "Ascend"], help="default: MindSpore's choice")
    return parser.parse_args()
