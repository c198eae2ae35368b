"""The inference engines that run an ONNX file: ONNX Runtime, and OpenVINO where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..errors import UserError

OLDEST_OPSET = 17  # the first with a LayerNormalization operator; most engines support it

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Engine:
    """An inference engine in single precision on CPU.

    Attributes:
        name: Name and version.
        load: Returns a function from inputs to outputs for a file's name, or for its content.
    """

    name: str
    load: Callable[[str | bytes], Run]


def onnx_packages(opset: int) -> tuple[ModuleType, ModuleType]:
    """Import the packages that ONNX export needs.

    Args:
        opset: ONNX operator set to write.

    Returns:
        The modules onnx and onnxruntime.

    Raises:
        UserError: A package is not installed, or does not support ``opset``.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX files need {error.name}: pip install 'msg-ms[export]'") from None
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(f"--opset {opset}: the installed onnx writes {OLDEST_OPSET} to {newest}")
    return onnx, onnxruntime


def onnx_engines(onnxruntime: ModuleType) -> list[Engine]:
    """Return the installed engines, ONNX Runtime first."""

    def load_onnxruntime(model: str | bytes) -> Run:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    engines = [Engine(f"ONNX Runtime {onnxruntime.__version__}", load_onnxruntime)]
    try:
        import openvino
    except ImportError:
        return engines

    def load_openvino(model: str | bytes) -> Run:
        core = openvino.Core()
        # Without the hint it computes in bfloat16 where the CPU has it.
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda inputs: [np.array(output) for output in compiled(list(inputs)).to_tuple()]

    return [*engines, Engine(f"OpenVINO {openvino.__version__.partition('-')[0]}", load_openvino)]
