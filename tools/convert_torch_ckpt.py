"""Convert checkpoints between the paper's PyTorch code and this package, without PyTorch; see docs/convert.md.

python tools/convert_torch_ckpt.py --input ckpt_epoch_299.pth --output msg_tiny.ckpt
python tools/convert_torch_ckpt.py --input msg_tiny.ckpt --output msg_tiny.pth --reverse
"""

from msg_ms.cli import run_command_line
from msg_ms.commands.convert_torch_ckpt import main

if __name__ == "__main__":
    run_command_line(main)
