"""Export a trained model: python tools/export.py --cfg F --resume X.ckpt --output model.onnx (or model.mindir)."""

from msg_ms.cli import run_command_line
from msg_ms.commands.export import main

if __name__ == "__main__":
    run_command_line(main)
