"""The choice between native kernels (C++, CPU) and composed operators (MindSpore, any device)."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import mindspore as ms
from mindspore import ops
from mindspore.ops import signature

from ..errors import UserError, shown
from ..native.build import ENVIRONMENT, loadable_library
from ..native.threads import thread_count

LIBRARY, SOURCES = "kernels", Path(__file__).parent / "csrc"
CHOICES = ("auto", "native", "composed")
# For each device, the operators of this package for which MindSpore has a fused operator with kernels of the output and
# of the gradient. tests/devices checks them. The GPU has none of the three.
FUSED = {"Ascend": {"gelu": "GeluExt", "layer_norm": "LayerNormExt", "residual": "AddcmulExt"}}

log = logging.getLogger("msg_ms")
_chosen: str | None = None
_warned: set[str] = set()
_gradients: dict[str, CodeType] = {}  # by the name of the kernel


def set_backend(choice: str) -> None:
    """Choose the form of the operators in models built from now on.

    Without a call the environment variable ``MSG_MS_OPS`` decides; its default is "auto".

    Args:
        choice: "auto" uses the native kernels if the device target is CPU and a compiler is available, and logs a
            warning if not. On other devices it uses their fused operators, see ``FUSED``. "native" requires the
            kernels. "composed" uses neither.

    Raises:
        UserError: ``choice`` is none of the three. With "native", building a model raises it if the kernels are not
            available.
    """
    global _chosen
    _chosen = _valid(choice, "backend")


@contextlib.contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Choose the form of the operators inside a ``with`` block and restore the previous choice after it.

    Args:
        choice: as in ``set_backend``.

    Yields:
        None.

    Raises:
        UserError: as in ``set_backend``.
    """
    global _chosen
    previous = _chosen
    set_backend(choice)
    try:
        yield
    finally:
        _chosen = previous


def get_backend() -> str:
    """Return the current choice.

    Returns:
        "auto", "native" or "composed".

    Raises:
        UserError: the environment variable ``MSG_MS_OPS`` is none of the three.
    """
    return _chosen or _valid(os.environ.get("MSG_MS_OPS") or "auto", "MSG_MS_OPS")


def _valid(choice: str, name: str) -> str:
    if not isinstance(choice, str) or choice not in CHOICES:
        raise UserError(f"{name}={shown(choice)}: must be one of {', '.join(CHOICES)}")
    return choice


def device_target() -> str:
    """Return "CPU", "GPU" or "Ascend"."""
    return ms.get_context("device_target")


def composed_dtype(dtype: ms.Type) -> ms.Type:
    """Return the type in which MindSpore's operators are to compute: on CPU many of them lack bfloat16.

    Args:
        dtype: the type that was asked for.

    Returns:
        ``dtype``, or float32 in place of bfloat16 on CPU.
    """
    return ms.float32 if dtype == ms.bfloat16 and device_target() == "CPU" else dtype


def has_fused(name: str) -> bool:
    """Return whether one of MindSpore's fused operators is to replace the operator ``name`` of this package."""
    return get_backend() == "auto" and name in FUSED.get(device_target(), ())


def native_library() -> Path | None:
    """Return the compiled kernels, or None if operators are to be composed."""
    choice = get_backend()
    target = device_target()
    if choice == "composed":
        return None
    if target != "CPU":
        if choice == "native":
            raise UserError(f"the native kernels are for CPU, and the device target is {target}; use auto or composed")
        return None
    os.environ["MSG_MS_THREADS"] = str(thread_count())
    library = _library_or_error(*map(os.environ.get, ENVIRONMENT))
    if isinstance(library, Path):
        return library
    if choice == "native":
        raise library
    if str(library) not in _warned:
        _warned.add(str(library))
        log.warning("using composed operators, slower than native kernels: %s", library)
    return None


@functools.cache
def _library_or_error(*environment: str | None) -> Path | UserError:
    """Build and load the library once for all operators; return it, or the error that prevents it."""
    try:
        return loadable_library(LIBRARY, SOURCES)
    except UserError as error:
        return error


class Kernel(ops.Custom):
    """A native kernel as an operator. It has no state, so copies of a Cell share it."""

    def __deepcopy__(self, memo: dict) -> Kernel:
        return self


# A Kernel, or None where operators are composed. Cells decide once, in their constructor or while a graph is compiled,
# and a checker of types can't follow that.
Operator = Any


def kernel(name: str, shapes: Callable, outputs: int = 1, gradient: Callable | None = None) -> Operator:
    """Return a native kernel as an operator.

    Args:
        name: the kernel's name in ``csrc``.
        shapes: function from the inputs' shapes to those of the outputs; all are float32.
        outputs: number of outputs.
        gradient: the operator's ``bprop``.

    Returns:
        The operator, or None if operators are to be composed.

    Raises:
        ValueError: Another kernel of this name has another gradient. In graph mode one of them would serve both.
    """
    library = native_library()
    if library is None:
        return None
    if gradient is not None and _gradients.setdefault(name, gradient.__code__) is not gradient.__code__:
        raise ValueError(f"the kernel {name} has two gradients; it needs a second name")
    dtypes = ms.float32 if outputs == 1 else (ms.float32,) * outputs
    return Kernel(f"{library}:{name}", shapes, lambda *_: dtypes, "aot", bprop=gradient)


def in_place_kernel(name: str, shapes: Callable, writes: int, reads: int) -> Operator:
    """Return a native kernel that changes parameters in place, as an operator.

    Args:
        name: as in ``kernel``.
        shapes: as in ``kernel``.
        writes: number of parameters that it changes, its first inputs.
        reads: number of the other inputs.

    Returns:
        The operator, or None if operators are to be composed.
    """
    custom = kernel(name, shapes)
    if custom is not None:
        # As in MindSpore's optimizers, so that the compiler keeps the order of reads and writes of the parameters.
        custom.add_prim_attr("side_effect_mem", True)
        written = [signature.make_sig(f"written{i}", signature.sig_rw.RW_WRITE) for i in range(writes)]
        custom.set_signatures((*written, *(signature.make_sig(f"read{i}") for i in range(reads))))
    return custom
