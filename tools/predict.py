"""Classify images: python tools/predict.py --cfg F --resume X.ckpt IMAGE|FOLDER... (see docs/predict.md)."""

from msg_ms.cli import run_command_line
from msg_ms.commands.predict import main

if __name__ == "__main__":
    run_command_line(main)
