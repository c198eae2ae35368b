"""Exported files: written, run, compared with the model, and kept only where they agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..files import atomic_write
from ..models.inference import require_trainable
from ..models.msg_transformer import MSGTransformer
from ..version import __version__
from .check import Reference, Run, with_output

OLDEST_OPSET = 17  # the first with LayerNormalization as one operator, and so what most engines read
ONNX_BYTES, MINDIR_BYTES = 2**31, 2**30  # ONNX's own limit for one file; MindSpore cuts a larger MindIR into several


def onnx_packages(opset: int) -> tuple[ModuleType, ModuleType]:
    """onnx and onnxruntime; raises UserError where they are not installed, or can't write ``opset``."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX files need {error.name}: pip install 'msg-ms[export]'") from None
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(f"--opset {opset}: the installed onnx writes {OLDEST_OPSET} to {newest}")
    return onnx, onnxruntime


def export_onnx(
    model: MSGTransformer,
    path: Path,
    reference: Reference,
    batch: int | None,
    opset: int,
    softmax: bool = False,
    notes: Mapping[str, str] = {},
) -> str:
    """Write ``model`` to ``path`` as ONNX for ``batch`` images, or with None any number; gives a line on the check.

    ``notes`` become the file's metadata. Raises UserError, and leaves no file, where ONNX Runtime doesn't give what
    ``reference`` holds, or onnx and onnxruntime are not installed.
    """
    onnx, onnxruntime = onnx_packages(opset)
    from .onnx_model import build_onnx

    _check(model, path, ONNX_BYTES)
    with atomic_write(path) as temporary:
        onnx.save(build_onnx(model, batch, opset, softmax, notes), temporary)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
            run = _onnx_runner(onnxruntime, temporary)
        except Exception as error:  # both libraries raise their own, straight below Exception
            raise UserError(f"{path} was not kept: {_first_line(error)}; try --opset {OLDEST_OPSET}") from None
        return _compare(reference, run, path, f"ONNX Runtime {onnxruntime.__version__}")


def _onnx_runner(onnxruntime, path: Path) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def export_mindir(
    model: MSGTransformer,
    path: Path,
    reference: Reference,
    batch: int | None,
    softmax: bool = False,
    notes: Mapping[str, str] = {},
) -> str:
    """As :func:`export_onnx`, as MindIR; ``notes`` go into its ``user_info``.

    ``model`` must be built of composed operators (``msg_ms.ops.use_backend``): a kernel compiled for this machine would
    not run elsewhere, and raises UserError.
    """
    _check(model, path, MINDIR_BYTES)
    cell = with_output(model, softmax).set_train(False)
    images = Tensor(shape=(batch, model.in_chans, *model.img_size), dtype=ms.float32)
    if batch is not None:
        images = Tensor(np.zeros(images.shape, np.float32))
    operators: set[str] = set()

    def finish(proto) -> None:
        """Called by MindSpore on what it is about to write."""
        operators.update(node.op_type for graph in (proto.graph, *proto.functions) for node in graph.node)
        proto.user_info.update({**notes, "msg_ms_version": __version__})

    with atomic_write(path) as temporary:
        cell.set_inputs(images)
        ms.export(cell, images, file_name=str(temporary), file_format="MINDIR", custom_func=finish)
        if any("Custom" in name for name in operators):
            raise UserError(f"{path} was not kept: it holds native kernels; build the model with composed operators")
        return _compare(reference, _mindir_runner(temporary), path, f"MindSpore {ms.__version__}")


def _mindir_runner(path: Path) -> Run:
    cell = nn.GraphCell(ms.load(str(path)))
    return lambda images: cell(Tensor(images)).asnumpy()


def _compare(reference: Reference, run: Run, path: Path, engine: str) -> str:
    try:
        return reference.check(run, engine)
    except (UserError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} was not kept: {_first_line(error)}") from None


def _check(model: MSGTransformer, path: Path, limit: int) -> None:
    require_trainable(model, "an export")
    size = sum(parameter.size * 4 for parameter in model.get_parameters())
    if size >= limit:
        raise UserError(f"{path}: {size:,} bytes of weights; a {path.suffix} file holds fewer than {limit:,}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
