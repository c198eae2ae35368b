"""MSG-Transformer (CVPR 2022) for MindSpore."""

import os

# Threads of OpenMP that spin for work would take the cores from MindSpore's own and from the kernels'; this must stand
# in the environment before MindSpore loads its libraries.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .errors import UserError
from .models.msg_transformer import MSGTransformer
from .models.variants import create_model, list_models
from .version import __version__

__all__ = ["MSGTransformer", "UserError", "__version__", "create_model", "list_models"]
