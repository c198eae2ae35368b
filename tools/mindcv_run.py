"""Run a mindcv script with this package's models: python tools/mindcv_run.py <mindcv>/train.py --config F ..."""

from msg_ms.cli import run_command_line
from msg_ms.commands.mindcv_run import main

if __name__ == "__main__":
    run_command_line(main)
