"""Export to ONNX and MindIR: write, run and compare a file, and keep it only if the outputs match."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..files import atomic_write, readable
from ..models.inference import require_trainable
from ..models.msg_transformer import MSGTransformer
from ..version import __version__
from .check import Reference, Run, with_output

OLDEST_OPSET = 17  # the first with a LayerNormalization operator; most engines support it
ONNX_BYTES, MINDIR_BYTES = 2**31, 2**30  # limit of the ONNX format; MindSpore splits a larger MindIR


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


def export_onnx(
    model: MSGTransformer,
    path: Path,
    reference: Reference,
    batch: int | None,
    opset: int,
    softmax: bool = False,
    metadata: Mapping[str, str] = {},
) -> str:
    """Export a model to ONNX and compare the file with the model in ONNX Runtime.

    Args:
        model: The trained model.
        path: File to write.
        reference: Images and expected outputs.
        batch: Batch size, or None for a dynamic batch.
        opset: ONNX operator set.
        softmax: Whether to append a softmax.
        metadata: Entries of the file's metadata.

    Returns:
        A line with the result of the comparison.

    Raises:
        UserError: The outputs differ, the model is too large, or a package is missing. No file is left.
    """
    onnx, onnxruntime = onnx_packages(opset)
    from .onnx_model import build_onnx

    _check(model, path, ONNX_BYTES)
    with atomic_write(path) as final, plain_name(final) as temporary:
        onnx.save(build_onnx(model, batch, opset, softmax, metadata), temporary)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
            run = _onnx_runner(onnxruntime, temporary)
        except Exception as error:  # both libraries have their own errors, direct subclasses of Exception
            raise UserError(f"{path} was not kept: {first_line(error)}; try --opset {OLDEST_OPSET}") from None
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
    metadata: Mapping[str, str] = {},
) -> str:
    """Export a model to MindIR and compare the file with the model in MindSpore.

    Args:
        model: The trained model, built with composed operators (``msg_ms.ops.use_backend``). Native kernels run only
            on the machine that compiled them.
        path: File to write.
        reference: Images and expected outputs.
        batch: Batch size, or None for a dynamic batch.
        softmax: Whether to append a softmax.
        metadata: Entries of the file's ``user_info``.

    Returns:
        A line with the result of the comparison.

    Raises:
        UserError: The outputs differ, the model is too large, or it contains native kernels. No file is left.
    """
    _check(model, path, MINDIR_BYTES)
    cell = with_output(model, softmax).set_train(False)
    images = Tensor(shape=(batch, model.in_chans, *model.img_size), dtype=ms.float32)
    if batch is not None:
        images = Tensor(np.zeros(images.shape, np.float32))
    operators: set[str] = set()

    # MindSpore calls it before it writes the file.
    def finish(proto) -> None:
        operators.update(node.op_type for graph in (proto.graph, *proto.functions) for node in graph.node)
        proto.user_info.update({**metadata, "msg_ms_version": __version__})

    with atomic_write(path) as final, plain_name(final) as temporary:
        cell.set_inputs(images)
        ms.export(cell, images, file_name=str(temporary), file_format="MINDIR", custom_func=finish)
        if any("Custom" in name for name in operators):
            raise UserError(f"{path} was not kept: it contains native kernels; build the model with composed operators")
        return _compare(reference, _mindir_runner(temporary), path, f"MindSpore {ms.__version__}")


@contextlib.contextmanager
def plain_name(path: Path) -> Iterator[Path]:
    """Yield another name for ``path``, of letters that every library accepts in file names."""
    with tempfile.TemporaryDirectory() as folder:
        inner, target = Path(folder) / "folder", path.parent.resolve()
        if readable(target) == str(target):
            inner.symlink_to(target)  # the file is written in its place
        else:  # MindSpore resolves links, and then reads only UTF-8
            inner.mkdir()
        plain = inner / f"model{path.suffix}"
        yield plain
        shutil.move(plain, path)


def _mindir_runner(path: Path) -> Run:
    cell = nn.GraphCell(ms.load(str(path)))
    return lambda images: cell(Tensor(images)).asnumpy()


def _compare(reference: Reference, run: Run, path: Path, engine: str) -> str:
    try:
        return reference.check(run, engine)
    except (UserError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} was not kept: {first_line(error)}") from None


def _check(model: MSGTransformer, path: Path, limit: int) -> None:
    require_trainable(model, "an export")
    size = sum(parameter.size * 4 for parameter in model.get_parameters())
    if size >= limit:
        raise UserError(f"{path}: {size:,} bytes of weights; the limit of a {path.suffix} file is {limit:,}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
