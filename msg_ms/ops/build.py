"""Compiles the C++ kernels for the CPU at hand, once, and keeps the library in a cache."""

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
# No -ffast-math: a NaN must come out as one. Loops with sums say themselves that they may be reordered (omp simd).
FLAGS = (
    "-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-fPIC", "-shared", "-fvisibility=hidden", "-Wno-psabi",
)  # fmt: skip
SANITIZE = ("-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer")


def kernel_library(flags: tuple[str, ...] = ()) -> Path:
    """The compiled kernels, built where the cache has none for these sources, flags, compiler and CPU.

    The cache is ``MSG_MS_CACHE``, or ``msg_ms`` in ``XDG_CACHE_HOME`` (``~/.cache``). A library carries the digest of
    its content in its name, so that a damaged one is noticed and built again; processes that start together
    wait for one of them to build. Raises UserError where there is no compiler, or it can't.
    """
    compiler = _compiler()
    flags = (*FLAGS, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native", *flags)
    folder = cache_folder()
    key = _key(compiler, flags)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _intact(folder, key) or _build(folder, key, [compiler, *flags])
    except OSError as error:
        raise UserError(f"can't keep kernels in {folder}: {error.strerror or error}; set MSG_MS_CACHE") from None


def cache_folder() -> Path:
    base = os.environ.get("MSG_MS_CACHE")
    if base:
        return Path(base).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "msg_ms"


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else COMPILERS:
        path = shutil.which(name)
        if path:
            return path
    raise UserError(f"no C++ compiler: {wanted or ', '.join(COMPILERS)} not found")


def _sources() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cc", ".h"))


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    parts = [version, *flags, platform.machine(), _cpu(), *(path.name + path.read_text() for path in _sources())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """What this CPU can, for a cache that several machines share."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _intact(folder: Path, key: str) -> Path | None:
    for path in folder.glob(f"kernels-{key}-*.so"):
        if path.stem == f"kernels-{key}-{_digest(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _build(folder: Path, key: str, command: list[str]) -> Path:
    sources = [str(path) for path in _sources() if path.suffix == ".cc"]
    with atomic_write(folder / f"kernels-{key}.so") as library:
        done = subprocess.run([*command, *sources, "-o", str(library), "-pthread"], capture_output=True, text=True)
        if done.returncode != 0:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise UserError(f"{command[0]} can't compile the kernels: {reason}")
    return (folder / f"kernels-{key}.so").replace(folder / f"kernels-{key}-{_digest(folder / f'kernels-{key}.so')}.so")
