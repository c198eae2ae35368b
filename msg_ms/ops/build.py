"""Compile the C++ kernels for this CPU, once, and cache the library."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from ..errors import UserError
from ..files import atomic_write

SOURCES = Path(__file__).parent / "csrc"
COMPILERS = ("g++", "clang++", "c++")
FLAGS = (
    "-std=c++17",
    "-O3",
    # No -ffast-math: NaN must propagate. Loops that may reorder their sums are marked in the code (omp simd).
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wno-psabi",
)
SANITIZE = ("-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer")


def kernel_library(flags: tuple[str, ...] = ()) -> Path:
    """Return the compiled kernels; build them if the cache has none for these sources, flags, compiler and CPU.

    The cache is the folder ``MSG_MS_CACHE``, else ``msg_ms`` in ``XDG_CACHE_HOME`` (default ``~/.cache``). A library's
    name contains the digest of its content, so a damaged file is detected and rebuilt. Processes that start together
    wait until one of them has built it.

    Args:
        flags: further compiler flags.

    Returns:
        Path of the shared library.

    Raises:
        UserError: there is no compiler, the compilation fails, or the cache can't be written.
    """
    compiler = _compiler()
    flags = (*FLAGS, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native", *flags)
    folder = cache_folder()
    key = _key(compiler, flags)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _cached(folder, key) or _build(folder, key, [compiler, *flags])
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"can't write the kernels to {folder}: {reason}; set MSG_MS_CACHE to another folder") from None


def cache_folder() -> Path:
    """Return the folder of compiled kernels."""
    base = os.environ.get("MSG_MS_CACHE")
    if base:
        return Path(base).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "msg_ms"


def _compiler() -> str:
    requested = os.environ.get("CXX")
    for name in (requested,) if requested else COMPILERS:
        path = shutil.which(name)
        if path:
            return path
    raise UserError(f"no C++ compiler found: {requested or ', '.join(COMPILERS)}; install one or set CXX")


def _sources() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cc", ".h"))


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    sources = [path.name + path.read_text() for path in _sources()]
    text = "\0".join([version, *flags, platform.machine(), _cpu_features(), *sources])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cpu_features() -> str:
    """Return the features of this CPU, as several machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _cached(folder: Path, key: str) -> Path | None:
    """Return the intact library of this key and delete damaged ones."""
    for path in folder.glob(f"kernels-{key}-*.so"):
        if path.stem == f"kernels-{key}-{_digest(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _build(folder: Path, key: str, command: list[str]) -> Path:
    sources = [str(path) for path in _sources() if path.suffix == ".cc"]
    library = folder / f"kernels-{key}.so"
    with atomic_write(library) as partial:
        compilation = subprocess.run(
            [*command, *sources, "-o", str(partial), "-pthread"], capture_output=True, text=True
        )
        if compilation.returncode != 0:
            errors = [line for line in compilation.stderr.splitlines() if "error" in line]
            reason = errors[0] if errors else compilation.stderr.strip()[:200]
            raise UserError(f"{command[0]} can't compile the kernels: {reason}")
    return library.replace(folder / f"kernels-{key}-{_digest(library)}.so")
