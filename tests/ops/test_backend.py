"""The kernel library: built once, rebuilt when damaged, replaced by composed operators without a compiler."""

import logging
import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.kernels import Kernels
from support.native import kernel_library

from msg_ms import UserError, ops
from msg_ms.ops import backend

ONES = (np.ones((2, 3)), np.ones((4, 3)))  # every entry of their product is 3


@pytest.fixture
def no_choice(monkeypatch):
    monkeypatch.delenv("MSG_MS_OPS", raising=False)
    monkeypatch.setattr(backend, "_chosen", None)
    monkeypatch.setattr(backend, "_warned", set())


@pytest.fixture
def cache(tmp_path, monkeypatch, no_choice):
    monkeypatch.setenv("MSG_MS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that logs its builds; the fixture is the log file."""
    calls, script = tmp_path / "calls", tmp_path / "c++"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo build >> {calls};; esac\nexec g++ "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return calls


@pytest.mark.slow
def test_several_processes_build_once_and_a_damaged_library_is_rebuilt(cache, compiler):
    code = "import numpy as np; from support.native import kernel_library; from support.kernels import Kernels; "
    code += "x, w = np.ones((2, 3)), np.ones((4, 3)); "
    # Without optimisation the compiler needs a third of the time.
    code += "out, = Kernels(str(kernel_library(('-O0',))))('matmul', [x, w], [(2, 4)]); print(out[1, 2])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", code]
    workers = [subprocess.Popen(line, stdout=subprocess.PIPE, env=environment, encoding="utf-8") for _ in range(4)]
    assert all(float(worker.communicate()[0]) == 3 for worker in workers)
    assert compiler.read_text("utf-8") == "build\n"
    (library,) = cache.glob("*.so")
    content = library.read_bytes()
    library.write_bytes(content[: len(content) // 2])
    (out,) = Kernels(str(kernel_library(("-O0",))))("matmul", ONES, [(2, 4)])
    assert (out == 3).all() and compiler.read_text("utf-8") == "build\nbuild\n"
    assert len(list(cache.glob("*.so"))) == 1 and not list(cache.glob(".partial*"))


def test_other_flags_or_compilers_build_other_libraries(cache, tmp_path, monkeypatch):
    script = tmp_path / "c++"

    def compiler(version: int) -> None:
        script.write_text(
            f'#!/bin/sh\nwhile [ "$1" ]; do [ "$1" = -o ] && echo > "$2"; shift; done; echo {version}\n',
            encoding="utf-8",
        )
        script.chmod(0o755)

    monkeypatch.setenv("CXX", str(script))
    compiler(1)
    first = kernel_library()
    assert kernel_library() == first
    assert kernel_library(("-DOTHER",)) != first
    compiler(2)
    assert kernel_library() != first


def test_without_a_compiler_operators_are_composed_with_a_warning(cache, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.INFO, "msg_ms"):
        cells = [ops.MatMul(), ops.MatMul()]
    assert [record.getMessage() for record in caplog.records] == [
        "using composed operators, slower than native kernels: "
        "no C++ compiler found: no-such-compiler; install one or set CXX"
    ]
    assert (cells[0](Tensor(ONES[0], ms.float32), Tensor(ONES[1], ms.float32)).asnumpy() == 3).all()
    monkeypatch.setenv("MSG_MS_OPS", "native")
    with pytest.raises(UserError, match="compiler found: no-such-compiler"):
        ops.MatMul()


def test_a_failing_compiler_is_reported_and_leaves_no_file(cache, tmp_path, monkeypatch):
    script = tmp_path / "broken"
    script.write_text('#!/bin/sh\necho "fatal error: no space" >&2; exit 1\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(UserError, match="can't compile the kernels: fatal error: no space"):
        kernel_library()
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_backend_is_chosen_by_call_or_environment(no_choice, monkeypatch):
    assert ops.get_backend() == "auto"
    monkeypatch.setenv("MSG_MS_OPS", "composed")
    assert ops.get_backend() == "composed" and ops.MatMul().native is None
    ops.set_backend("native")
    assert ops.get_backend() == "native" and ops.MatMul().native is not None
    with pytest.raises(UserError, match="one of auto, native, composed"):
        ops.set_backend("fast")
    monkeypatch.setattr(backend, "_chosen", None)
    monkeypatch.setenv("MSG_MS_OPS", "fast")
    with pytest.raises(UserError, match="MSG_MS_OPS='fast'"):
        ops.get_backend()


@pytest.mark.parametrize("dtype, epsilon", [(ms.float16, 2**-11), (ms.bfloat16, 2**-8)])
def test_products_in_half_precision_have_sums_in_single(no_choice, dtype, epsilon):
    """3,000 positive terms: in a sum in half precision the last ones would be lost."""
    draws = np.random.RandomState(0)
    x, weight, dy = (
        Tensor(draws.rand(*shape).astype(np.float32)).astype(dtype) for shape in ((3, 3000), (4, 3000), (3, 4))
    )
    product = ops.MatMul()

    def weighted(x):
        return (product(x, weight) * dy).sum()

    y, gradient = product(x, weight), ms.grad(weighted)(x)
    x, weight, dy = (values.astype(ms.float32).asnumpy().astype(np.float64) for values in (x, weight, dy))
    for result, exact in ((y, x @ weight.T), (gradient, dy @ weight)):
        assert result.dtype == dtype
        assert (np.abs(result.astype(ms.float32).asnumpy() - exact) <= 1.01 * epsilon * exact).all()


def test_a_kernel_has_one_gradient(no_choice):
    def gradient(x, out, dout):
        return dout

    ops.MatMul()
    with pytest.raises(ValueError, match="the kernel matmul has two gradients"):
        backend.kernel("matmul", lambda x: x, gradient=gradient)


@pytest.mark.parametrize("requested", [None, "1", "3"])
def test_kernels_use_all_cores_by_default(requested):
    # MindSpore sets OMP_NUM_THREADS=1 in the environment if it is unset.
    code = "import os, msg_ms.ops; msg_ms.ops.MatMul(); print(os.environ['MSG_MS_THREADS'])"
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MSG_MS_THREADS")}
    if requested:
        environment["OMP_NUM_THREADS"] = requested
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment, check=True
    )
    assert done.stdout.split()[-1] == (requested or str(len(os.sched_getaffinity(0))))


def test_a_forked_process_computes_without_its_parents_threads():
    code = "import os, numpy as np; from support.native import kernel_library; from support.kernels import Kernels; "
    code += "x, w = np.ones((999, 300)), np.ones((40, 300)); "
    code += "run = lambda: Kernels(str(kernel_library()))('matmul', [x, w], [(999, 40)]); "
    code += "run(); child = os.fork(); result = run()[0]; assert (result == 300).all(); "
    code += "os._exit(0) if child == 0 else print(os.waitpid(child, 0)[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MSG_MS_THREADS": "2"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment, check=True, timeout=60)
    assert done.stdout.split()[-1] == "0"
