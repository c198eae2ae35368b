"""MSG-Transformer (CVPR 2022) for MindSpore."""

import os

# Threads of OpenMP that spin for work would take the cores from MindSpore's own and from the kernels'; this must stand
# in the environment before MindSpore loads its libraries.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .errors import UserError
from .models.features import MSGFeatures
from .models.inference import optimize_for_inference
from .models.msg_transformer import MSGTransformer
from .models.variants import create_model, list_models
from .version import __version__

try:
    from .models import mindcv_registry as in_mindcv  # noqa: F401
except ModuleNotFoundError as error:  # everything but mindcv's registry works without it
    if error.name is None or error.name.split(".")[0] != "mindcv":
        raise

__all__ = [
    "MSGFeatures",
    "MSGTransformer",
    "UserError",
    "__version__",
    "create_model",
    "list_models",
    "optimize_for_inference",
]
