"""Try a model in the browser: python tools/serve.py <best.ckpt> (see docs/predict.md)."""

from __future__ import annotations

import argparse
import importlib.util

from msg_ms.cli import path_argument, run_command_line
from msg_ms.engine.predictor import SCORE_THR
from msg_ms.errors import UserError
from msg_ms.serve.page import EXTRA, serve
from msg_ms.serve.uploads import Limits
from msg_ms.serve.worker import ModelWorker

LOCAL = ("127.0.0.1", "localhost", "::1")


def main() -> None:
    """Load the model and serve the page until Ctrl-C."""
    args = parse_arguments()
    if importlib.util.find_spec("gradio") is None:  # before the model is loaded
        raise UserError(EXTRA)
    if args.host not in LOCAL:
        print(f"warning: everyone who reaches {args.host} can use the page")
    worker = ModelWorker(args.checkpoint, Limits(args.max_mb, args.max_megapixels), args.cfg, args.device_target)
    try:
        serve(worker, args.host, args.port, args.score_thr)
    finally:
        worker.close()


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command's flags."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="Serve a page in the browser to try a trained model.")
    add = parser.add_argument
    add("checkpoint", type=path_argument, help="best.ckpt of a run")
    add("--cfg", type=path_argument, metavar="FILE", help="configuration (default: the one that the checkpoint stores)")
    add("--host", default=LOCAL[0], help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=int, default=7860, help="port, 0 for any free one (default: %(default)s)")
    add(
        "--score-thr",
        type=float,
        default=SCORE_THR,
        metavar="S",
        help="least score of an object at first (%(default)s)",
    )
    add("--max-mb", type=int, default=limits.megabytes, metavar="N", help="megabytes of a file (%(default)s)")
    add(
        "--max-megapixels",
        type=int,
        default=limits.megapixels,
        metavar="N",
        help="million pixels of an image (%(default)s)",
    )
    add("--device-target", choices=["CPU", "GPU", "Ascend"], help="default: MindSpore's choice")
    args = parser.parse_args()
    for flag, value in (("--max-mb", args.max_mb), ("--max-megapixels", args.max_megapixels)):
        if value < 1:
            raise UserError(f"{flag} {value}: must be at least 1")
    if not 0 <= args.score_thr <= 1:
        raise UserError(f"--score-thr {args.score_thr}: must be between 0 and 1")
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port {args.port}: must be between 0 and {2**16 - 1}")
    return args


if __name__ == "__main__":
    run_command_line(main)
