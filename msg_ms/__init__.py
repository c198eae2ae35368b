"""MSG-Transformer (CVPR 2022) for MindSpore."""

# ruff: noqa: E402

import os
from typing import TYPE_CHECKING, Any

# Idle OpenMP threads must sleep: spinning ones would block the cores for MindSpore's own threads and the kernels'. The
# variable must be set before MindSpore loads its libraries.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .files import open_standard_streams

open_standard_streams()  # MindSpore's libraries can't be loaded while one of them is closed

from .errors import UserError
from .framework.quiet_end import end_quietly

end_quietly()

from .models.detection.variants import create_detector, list_detectors
from .models.features import MSGFeatures
from .models.inference import optimize_for_inference
from .models.msg_transformer import MSGTransformer
from .models.variants import create_model, list_models
from .version import __version__

if TYPE_CHECKING:
    from .api import Run, TrainedModel, load, train

try:
    from .models import mindcv_registry  # noqa: F401
except ModuleNotFoundError as error:  # without mindcv only its registry is missing
    if error.name is None or error.name.split(".")[0] != "mindcv":
        raise

__all__ = [
    "MSGFeatures",
    "MSGTransformer",
    "Run",
    "TrainedModel",
    "UserError",
    "__version__",
    "create_detector",
    "create_model",
    "list_detectors",
    "list_models",
    "load",
    "optimize_for_inference",
    "train",
]
LAZY = ("Run", "TrainedModel", "load", "train")  # of ``msg_ms.api``, which imports the data pipelines and all tasks


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
