"""Compile C++ code for this CPU, once, and cache the library."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..files import atomic_write, folder_written_by_others, make_folder, written_by_others

log = logging.getLogger("msg_ms")
COMPILERS = ("g++", "clang++", "c++")
ENVIRONMENT = ("MSG_MS_CACHE", "XDG_CACHE_HOME", "HOME", "CXX")  # the variables that decide on a library
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


def build_library(name: str, sources: Path, flags: tuple[str, ...] = ()) -> Path:
    """Return a compiled library of C++ code, built if the cache has none for these sources, flags, compiler and CPU.

    The cache is the folder ``MSG_MS_CACHE``, else ``msg_ms`` in ``XDG_CACHE_HOME`` (default ``~/.cache``). A library's
    name contains the digest of its content, so a damaged file is detected and rebuilt. Processes that start together
    wait until one of them has built it. Nothing is loaded from a folder or file that another user can write to: the
    kernels are then built in a private folder, and a warning is logged. A finished cache may be read-only.

    Args:
        name: name of the library.
        sources: folder with its code, also in subfolders. Headers are included by their path below it.
        flags: further compiler flags.

    Returns:
        Path of the shared library.

    Raises:
        UserError: there is no compiler, the compilation fails, or the cache can't be written.
    """
    compiler = _compiler()
    flags = (*FLAGS, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native", *flags)
    stem = f"{name}-{_key(compiler, flags, sources)}"
    folder = cache_folder()
    try:
        folder = _safe_folder(folder)
        library = _cached(folder, stem)
        if library is not None:
            return library
        with (folder / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _cached(folder, stem) or _build(folder, stem, sources, [compiler, *flags])
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"can't write the kernels to {folder}: {reason}; set MSG_MS_CACHE to another folder") from None


def loadable_library(name: str, sources: Path, flags: tuple[str, ...] = ()) -> Path:
    """Return ``build_library()``; raises UserError also if this process can't load it."""
    library = build_library(name, sources, flags)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:  # for example from a file system that is mounted noexec
        raise UserError(f"can't load the kernels ({error}); set MSG_MS_CACHE to another folder") from None
    return library


def optional_library(
    name: str, sources: Path, flags: tuple[str, ...], arguments: Mapping[str, Sequence[type]], fallback: str
) -> ctypes.CDLL | None:
    """Return a library of C++ functions, or None with a warning if it can't be built or loaded.

    Args:
        name: Name of the library.
        sources: Folder with its code.
        flags: Further compiler flags.
        arguments: The types of each function's arguments.
        fallback: The consequence of its absence, for the warning.
    """
    try:
        library = ctypes.CDLL(str(loadable_library(name, sources, flags)))
    except UserError as error:
        log.warning("%s: %s", fallback, error)
        return None
    for function, types in arguments.items():
        getattr(library, function).argtypes = types
    return library


def cache_folder() -> Path:
    """Return the folder of compiled kernels; raises UserError if it is the home folder's and there is none."""
    base = os.environ.get("MSG_MS_CACHE")
    try:
        if base:
            return Path(base).expanduser().resolve()
        return _default_cache()
    except RuntimeError:
        reason = "this user has no home folder for the kernels (HOME is not set)"
        raise UserError(f"{reason}; set MSG_MS_CACHE to a folder") from None


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "msg_ms"


def _safe_folder(folder: Path) -> Path:
    """Return ``folder`` if only this user and root can write to it, else another one; creates missing folders."""
    make_folder(folder)
    reason = folder_written_by_others(folder)
    if not reason:
        return folder
    private = _private_folder(folder)
    log.warning("others could change the kernels in %s (%s): using %s instead", folder, reason, private)
    return private


def _private_folder(refused: Path) -> Path:
    """Return the default cache if it is safe, else a folder that is removed when this process ends."""
    with contextlib.suppress(RuntimeError, OSError):
        default = _default_cache()
        if default != refused:
            make_folder(default)
            if not folder_written_by_others(default) and os.access(default, os.W_OK | os.X_OK):
                return default
    folder, process = Path(tempfile.mkdtemp(prefix="msg_ms-kernels-")), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == process else None)
    return folder


def _compiler() -> str:
    requested = os.environ.get("CXX")
    for name in (requested,) if requested else COMPILERS:
        path = shutil.which(name)
        if path:
            return path
    raise UserError(f"no C++ compiler found: {requested or ', '.join(COMPILERS)}; install one or set CXX")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a compiler; its messages are English in every locale, as they are searched for "error"."""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)


def _files(sources: Path) -> list[Path]:
    return sorted(path for path in sources.rglob("*") if path.suffix in (".cc", ".h"))


def _key(compiler: str, flags: tuple[str, ...], sources: Path) -> str:
    version = _run([compiler, "--version"]).stdout
    code = [str(path.relative_to(sources)) + path.read_text("utf-8") for path in _files(sources)]
    text = "\0".join([version, *flags, platform.machine(), _cpu_features(), *code])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cpu_features() -> str:
    """Return the features of this CPU, as several machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _cached(folder: Path, stem: str) -> Path | None:
    """Return the intact library of this stem; None if there is none that only this user or root can have written."""
    for path in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if not written_by_others(path) and path.stem == f"{stem}-{_digest(path)}":
                return path
    return None


def _build(folder: Path, stem: str, sources: Path, command: list[str]) -> Path:
    files = [str(path) for path in _files(sources) if path.suffix == ".cc"]
    for damaged in folder.glob(f"{stem}-*.so"):
        damaged.unlink(missing_ok=True)
    library = folder / f"{stem}.so"
    with atomic_write(library) as partial:
        compilation = _run([*command, "-I", str(sources), *files, "-o", str(partial), "-pthread"])
        if compilation.returncode != 0:
            errors = [line for line in compilation.stderr.splitlines() if "error" in line]
            reason = errors[0] if errors else compilation.stderr.strip()[:200]
            raise UserError(f"{command[0]} can't compile the kernels: {reason}")
    library.chmod(library.stat().st_mode & ~0o022)  # trusted at the next start, under any umask
    return library.replace(folder / f"{stem}-{_digest(library)}.so")
