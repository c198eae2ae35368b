"""Convert weights between the paper's PyTorch code and this package; PyTorch is not needed.

1. ``.torch_reader`` reads a PyTorch file as data; nothing in the file is run.
2. ``.names`` renames the parameters by the table in ``.rules``, and reports every name without a rule.
3. ``.model_shapes`` finds the model by its shapes, adapts weights to requested sizes, and checks every shape.
4. ``.weight_files`` writes the file in the format of its suffix, and reads it back to compare every bit.
5. The other direction is the same with ``.torch_writer`` at the end.
6. ``msg_ms.commands.convert_torch_ckpt`` is the command that runs these steps.
"""

from ..checkpoint.types import BrokenCheckpoint, ConversionError
from .model_shapes import infer_architecture, variant_name
from .names import check_buffers, check_names_and_shapes, convert_state_dict, converts, dropped_names, export_state_dict
from .torch_reader.file import read_torch_file
from .torch_writer import write_torch_file

__all__ = [
    "BrokenCheckpoint",
    "ConversionError",
    "check_buffers",
    "check_names_and_shapes",
    "convert_state_dict",
    "converts",
    "dropped_names",
    "export_state_dict",
    "infer_architecture",
    "read_torch_file",
    "variant_name",
    "write_torch_file",
]
