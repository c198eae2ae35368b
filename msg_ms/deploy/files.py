"""Export to ONNX and MindIR: write, run and compare a file, and keep it only if the outputs match."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..errors import UserError
from ..files import atomic_write, readable
from ..models.inference import require_trainable
from ..models.msg_transformer import MSGTransformer
from ..version import __version__
from .check import Reference, Run, with_output
from .engines import OLDEST_OPSET, Engine, onnx_engines, onnx_packages

if TYPE_CHECKING:
    import onnx

ONNX_BYTES, MINDIR_BYTES = 2**31, 2**30  # limit of the ONNX format; MindSpore splits a larger MindIR


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
    onnx_packages(opset)
    from .onnx_model import build_onnx

    def check(engine: Engine, file: Path) -> str:
        run = engine.load(str(file))
        return reference.check(lambda images: run([images])[0], engine.name)

    return save_onnx(model, path, opset, lambda: build_onnx(model, batch, opset, softmax, metadata), check)


def save_onnx(
    model: nn.Cell,
    path: Path,
    opset: int,
    build: Callable[[], onnx.ModelProto],
    check: Callable[[Engine, Path], str],
) -> str:
    """Write an ONNX file and keep it if every installed engine returns the model's outputs.

    Args:
        model: The trained model.
        path: File to write.
        opset: ONNX operator set.
        build: Returns the file's content.
        check: Compares a written file with the model in an engine, and returns a line with the result.

    Returns:
        The engines' lines.

    Raises:
        UserError: A comparison failed, the model is too large, or a package is missing. No file is left.
    """
    onnx, onnxruntime = onnx_packages(opset)
    _check(model, path, ONNX_BYTES)
    with atomic_write(path) as final, plain_name(final) as temporary:
        onnx.save(build(), temporary)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
            return "; ".join(check(engine, temporary) for engine in onnx_engines(onnxruntime))
        except UserError as error:
            raise UserError(f"{path} was not kept: {first_line(error)}") from None
        except Exception as error:  # the libraries have their own errors, direct subclasses of Exception
            raise UserError(f"{path} was not kept: {first_line(error)}; try --opset {OLDEST_OPSET}") from None


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


def _check(model: nn.Cell, path: Path, limit: int) -> None:
    require_trainable(model, "an export")
    size = sum(parameter.size * 4 for parameter in model.get_parameters())
    if size >= limit:
        raise UserError(f"{path}: {size:,} bytes of weights; the limit of a {path.suffix} file is {limit:,}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
