"""Export a trained model to ONNX or MindIR and compare the file with the model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mindspore as ms
from mindspore.nn.utils import no_init_parameters

from ..checkpoint import config_of_checkpoint, load_for_inference
from ..cli import path_argument
from ..config import Config
from ..data.images.class_names import CLASSES_KEY
from ..data.pixels.preprocessing import NORMALIZATION, Preprocessing
from ..deploy import (
    INPUT,
    OLDEST_OPSET,
    Reference,
    export_detector,
    export_mindir,
    export_onnx,
    onnx_packages,
    output_name,
    refuse_onnx,
)
from ..deploy.detector import INPUTS as DETECTOR_INPUTS
from ..deploy.detector import OUTPUTS as DETECTOR_OUTPUTS
from ..engine.device import setup_device
from ..errors import UserError
from ..files import readable
from ..models.build import build_model
from ..models.detection.build import build_detector
from ..models.layers import PatchConv
from ..models.msg_transformer import MSGTransformer
from ..ops import use_backend
from ..version import __version__

CONVOLUTIONS = ("unfold", "conv2d")
CANVAS_UNIT = 32


def main() -> None:
    """Export the model, and print the file's inputs, outputs and the result of the comparison."""
    args = parse_arguments()
    config = config_of_checkpoint(args.resume, args.cfg, args.opts, MODEL__MSG__WINDOW_SIZE=args.window_size)
    {"classification": classifier, "detection": detector}[config.task](args, config)


def classifier(args: argparse.Namespace, config: Config) -> None:
    """Export a classifier."""
    size = image_size(args.img_size or [config.data.img_size])
    opset = OLDEST_OPSET if args.opset is None else args.opset
    if args.output.suffix == ".onnx":
        onnx_packages(opset)
    batch = None if args.dynamic_batch else args.batch_size
    setup_device(args.device_target or config.device_target, config.seed)

    model, lines = load_model(config, size, args.resume)
    for line in lines:
        print(line, file=sys.stderr)
    reference = Reference.of(model, args.softmax, batch)
    metadata = describe(config, model, args, batch)
    if args.output.suffix == ".onnx":
        line = export_onnx(model, args.output, reference, batch, opset, args.softmax, metadata)
    else:
        with use_backend("composed"):
            model, _ = load_model(config, size, args.resume)
        if args.convolution:
            choose_convolution(model, args.convolution)
        line = export_mindir(model, args.output, reference, batch, args.softmax, metadata)
    print(f"wrote    {args.output}: {args.output.stat().st_size:,} bytes")
    print(f"input    {metadata['input_name']}, float32 {metadata['input_shape']}")
    print(f"output   {metadata['output_name']}, float32 {metadata['output_shape']}")
    print(f"checked  {line}")


def detector(args: argparse.Namespace, config: Config) -> None:
    """Export a detector to MindIR for one canvas: --img-size, or the largest in the configuration."""
    refuse_onnx(args.output)
    for flag, value in (("--dynamic-batch", args.dynamic_batch), ("--softmax", args.softmax)):
        if value:
            raise UserError(f"{flag} is for classifiers")
    canvas = image_size(args.img_size) if args.img_size else max(config.detection.canvases, key=lambda c: c[0] * c[1])
    if canvas[0] % CANVAS_UNIT or canvas[1] % CANVAS_UNIT:
        raise UserError(f"--img-size {canvas[0]} {canvas[1]}: a canvas has sides that are multiples of {CANVAS_UNIT}")
    setup_device(args.device_target or config.device_target, config.seed)
    with use_backend("composed"):
        model = build_detector(config.model).set_train(False)
    lines, stored = load_for_inference(model, args.resume)
    for line in lines:
        print(line, file=sys.stderr)
    shape = f"{args.batch_size},3,{canvas[0]},{canvas[1]}"
    metadata = {
        "model_name": config.model.name,
        "num_classes": config.model.num_classes,
        "classes": stored.get(CLASSES_KEY, "[]"),
        "input_names": ",".join(DETECTOR_INPUTS),
        "input_shape": shape,
        "output_names": ",".join(DETECTOR_OUTPUTS),
        "checkpoint": args.resume.name,
        "mindspore_version": ms.__version__,
        **NORMALIZATION,
    }
    metadata = {name: readable(str(value)) for name, value in metadata.items()}
    line = export_detector(model, args.output, canvas, args.batch_size, metadata)
    print(f"wrote    {args.output}: {args.output.stat().st_size:,} bytes")
    print(f"inputs   images, float32 {shape}; img_shapes (B, 2); scale_factors (B, 4)")
    print(f"outputs  {', '.join(DETECTOR_OUTPUTS)}")
    print(f"checked  {line}")


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
    args = parser.parse_args()
    suffix = args.output.suffix
    if suffix not in (".onnx", ".mindir"):
        raise UserError(f"--output {args.output}: must end in .onnx or .mindir")
    for flag, value, kind in (("--opset", args.opset, ".onnx"), ("--convolution", args.convolution, ".mindir")):
        if value is not None and suffix != kind:
            raise UserError(f"{flag} is for {kind} files, but --output is {args.output}")
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: must be at least 1; --dynamic-batch allows any number")
    return args


def image_size(sides: list[int]) -> tuple[int, int]:
    """Return (height, width) from the values of --img-size."""
    if len(sides) > 2:
        raise UserError(f"--img-size {' '.join(map(str, sides))}: expected the side of a square, or height and width")
    return sides[0], sides[-1]


def load_model(config: Config, size: tuple[int, int], checkpoint: Path) -> tuple[MSGTransformer, list[str]]:
    """Return the model with the checkpoint's weights, and a line for each weight resampled to another size."""
    with no_init_parameters():
        model = build_model(config.model, size).set_train(False)
    return model, load_for_inference(model, checkpoint)[0]


def choose_convolution(model: MSGTransformer, convolution: str) -> None:
    """Build patch convolutions from ``unfold`` and a matrix product, or from ``conv2d``."""
    for _, cell in model.cells_and_names():
        if isinstance(cell, PatchConv):
            cell.unfold = convolution == "unfold"


def describe(config: Config, model: MSGTransformer, args: argparse.Namespace, batch: int | None) -> dict[str, str]:
    """Return the metadata that the file's user needs: inputs, outputs, preprocessing and origin."""
    rows, (height, width) = "batch" if batch is None else batch, model.img_size
    metadata = {
        "model_name": config.model.name,
        "num_classes": config.model.num_classes,
        "input_name": INPUT,
        "input_shape": f"{rows},{model.in_chans},{height},{width}",
        "output_name": output_name(model, args.softmax),
        "output_shape": f"{rows},{config.model.num_classes}",
        "checkpoint": readable(args.resume.name),
        "msg_ms_version": __version__,
        "mindspore_version": ms.__version__,
    }
    if model.in_chans == 3:
        metadata |= NORMALIZATION
    if height == width:
        metadata |= Preprocessing(height, config.test.crop, config.data.interpolation).as_metadata()
    return {name: readable(str(value)) for name, value in metadata.items()}
