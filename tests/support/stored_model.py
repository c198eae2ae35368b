"""A checkpoint with random weights that stores its configuration and classes."""

from pathlib import Path

from msg_ms.checkpoint import parameters_by_name, to_numpy, write_checkpoint
from msg_ms.config import load_config, to_yaml
from msg_ms.ops import use_backend
from msg_ms.tasks import build_task


def write_model(path: Path, text: str, classes: str) -> None:
    """Write a checkpoint with random weights and its configuration."""
    (path.parent / "model.yaml").write_text(text, encoding="utf-8")
    config = load_config(path.parent / "model.yaml", AMP_OPT_LEVEL="O0")
    with use_backend("composed"):
        model = build_task(config).build_model()
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    if "head.weight" in arrays:
        arrays["head.weight"] = arrays["head.weight"] * 100  # so that the images differ
    write_checkpoint(path, arrays, {"config": to_yaml(config), "classes": classes})
