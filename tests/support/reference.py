"""Reference cases: what the paper's own code computed, as arrays under PyTorch's names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from msg_ms import MSGTransformer
from msg_ms.convert import convert_state_dict, export_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"
EXTRA = Path(os.environ["MSG_MS_REFERENCE"]) if "MSG_MS_REFERENCE" in os.environ else None
# Constructor arguments of a model that compiles in seconds.
SMALL = dict(
    img_size=32,
    embed_dim=16,
    depths=(1, 1),
    num_heads=(1, 2),
    window_size=4,
    shuffle_size=(2, 1),
    num_classes=3,
)
NAMES = ("options_win4_64", "no_shuffle_win4_64", "narrow_win7_224", "narrow_win12_384")


@dataclass(frozen=True)
class Case:
    """One case on disk; ``seed`` is None where inputs and parameters are stored and not drawn."""

    path: Path

    @cached_property
    def description(self) -> dict[str, Any]:
        return json.loads(self.path.with_suffix(".json").read_text("utf-8"))

    @property
    def arguments(self) -> dict[str, Any]:
        return self.description.get("arguments", self.description)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.path) as file:
            return dict(file)

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Two images and their labels."""
        if "x" in self.arrays:
            return self.arrays["x"], self.arrays["y"].astype(np.int32)
        size = self.arguments["img_size"]
        sides = (size, size) if isinstance(size, int) else tuple(size)
        draws = np.random.RandomState(self.description["seed"] + 1000)
        x = draws.standard_normal((2, self.arguments.get("in_chans", 3), *sides)).astype(np.float32)
        return x, draws.randint(0, self.arguments["num_classes"], 2).astype(np.int32)

    def model(self, **changes: Any) -> MSGTransformer:
        """The case's model with its parameters, in evaluation mode; ``changes`` replace constructor arguments."""
        arguments = {**self.arguments, **changes}
        if isinstance(arguments["img_size"], list):
            arguments["img_size"] = tuple(arguments["img_size"])
        model = MSGTransformer(**arguments)
        set_parameters(model, self.parameters(model))
        return model.set_train(False)

    def parameters(self, model: MSGTransformer) -> dict[str, np.ndarray]:
        """The parameters under PyTorch's names."""
        stored = {name[6:]: value for name, value in self.arrays.items() if name.startswith("param/")}
        if stored:
            return stored
        own = {p.name: np.empty(p.shape, np.bool_) for p in model.get_parameters()}
        shapes = {name: value.shape for name, value in export_state_dict(own, buffers=False).items()}
        draws = np.random.RandomState(self.description["seed"])
        return {name: _draw(draws, name, shapes[name]) for name in self.description["parameters"]}

    def gradient_error(self, name: str, gradient: np.ndarray) -> float:
        """Largest difference to the reference gradient, over the tolerance: 1e-3 of its largest value, or 1e-6."""
        wanted = self.arrays[f"grad/{name}"]
        largest = self.arrays[f"gradmax/{name}"] if f"gradmax/{name}" in self.arrays else np.abs(wanted).max()
        if gradient.size != wanted.size:
            gradient = gradient.ravel()[:: -(-gradient.size // 1024)]
        return float(np.abs(gradient.ravel() - wanted.ravel()).max() / max(1e-3 * largest, 1e-6))


def _draw(draws: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = draws.standard_normal(shape).astype(np.float32)
    if "norm" in name and name.endswith("weight"):
        return (1 + 0.1 * values).astype(np.float32)
    if len(shape) >= 2 and name.endswith("weight"):
        return (values / np.sqrt(np.prod(shape[1:])).astype(np.float32)).astype(np.float32)
    return (0.1 * values).astype(np.float32)


def set_parameters(model: MSGTransformer, torch_state: dict[str, np.ndarray]) -> None:
    """Load weights with PyTorch names, all of them and nothing else."""
    parameters = {p.name: p for p in model.get_parameters()}
    expected = {name: tuple(p.shape) for name, p in parameters.items()}
    for name, value in convert_state_dict(torch_state, expected).items():
        parameters[name].set_data(Tensor(value.astype(np.float32)))


def random_weights(model: MSGTransformer) -> MSGTransformer:
    """The model with weights as the cases have them, drawn so that logits are about 1, in evaluation mode."""
    draws = np.random.RandomState(7)
    for parameter in model.get_parameters():
        name = parameter.name.replace("gamma", "weight").replace("beta", "bias")
        parameter.set_data(Tensor(_draw(draws, name, tuple(parameter.shape))))
    return model.set_train(False)


def cases() -> list[Case]:
    """The committed cases, and those of MSG_MS_REFERENCE."""
    folders = [FIXTURES] if EXTRA is None else [FIXTURES, EXTRA]
    return [Case(folder / f"{name}.npz") for folder in folders for name in NAMES]
