"""MSG-Transformer (CVPR 2022) for MindSpore."""

import os

# MindSpore's own thread pool and OpenMP's spinning workers fight over the same cores; this must stand in the
# environment before MindSpore loads its libraries.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .errors import UserError
from .models.msg_transformer import MSGTransformer
from .models.variants import create_model, list_models
from .version import __version__

__all__ = ["MSGTransformer", "UserError", "__version__", "create_model", "list_models"]
