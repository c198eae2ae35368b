"""Show hardware, packages and usable devices; exit with status 1 if training is not possible.

Installed as ``msg-ms-doctor``; in a clone ``python -m msg_ms.commands.doctor``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

TARGETS = ("CPU", "GPU", "Ascend")
PACKAGES = ("mindspore", "mindcv", "numpy", "opencv-python-headless", "pillow", "pyyaml", "safetensors", "tqdm")
PROBE = """
import sys
import mindspore as ms
ms.set_device(sys.argv[1])
ones = ms.Tensor([[1.0, 2.0]], getattr(ms, sys.argv[2]))
assert float(ms.ops.matmul(ones, ones.T).asnumpy()[0, 0]) == 5.0
"""
ADVICE = {
    "GPU": "needs CUDA 11.6 or 11.1 with nvcc, and cuDNN 8: docs/devices.md",
    "Ascend": "needs the driver, CANN, and its set_env.sh sourced: docs/devices.md",
    "CPU": "reinstall: pip install -e . in a new environment, with numpy below 2",
}


def main() -> int:
    """Print one line per fact; returns the exit status."""
    argparse.ArgumentParser(prog="msg-ms-doctor", description=__doc__.splitlines()[0]).parse_args()
    show("machine", f"{platform.machine()}, {cores()}, {memory():.0f} GB memory, {platform.system()}")
    show("python", f"{platform.python_version()} in {sys.prefix}")
    for package in PACKAGES:
        show(package, version(package))
    show("compiler", tool("g++", "--version") or "none")
    native = kernels()
    show("native kernels", native)
    show("CUDA", tool("nvcc", "--version", "release") or "no nvcc")
    show("NVIDIA driver", tool("nvidia-smi", "-L") or "none")
    show("CANN", cann() or "none found")
    devices = sorted(path.name for path in Path("/dev").glob("davinci[0-9]*"))
    show("Ascend devices", ", ".join(devices) or "none")

    usable = []
    for target in TARGETS:
        reason = try_matmul(target, "float32")
        if not reason:
            usable.append(target)
            half = half_types(target, not native.startswith("none"))
            show(target, f"works; mixed precision: {' and '.join(half) or 'none'}")
        else:
            show(target, f"does not work: {reason} ({ADVICE[target]})")
    if not usable:
        print("Training cannot run here; see the lines above.", file=sys.stderr)
        return 1
    print(f"Training can run on {', '.join(usable)}; choose with --device-target.")
    return 0


def kernels() -> str:
    """Return the path of the native CPU kernels and their threads, or the reason for their absence."""
    from msg_ms.native.build import loadable_library
    from msg_ms.native.threads import thread_count
    from msg_ms.ops.backend import LIBRARY, SOURCES

    try:
        library = loadable_library(LIBRARY, SOURCES)
    except ValueError as error:
        return f"none, MindSpore operators are used instead: {error}"
    try:
        return f"{library}, {thread_count()} threads"
    except ValueError as error:
        return f"{library}, but {error}"


def half_types(target: str, native: bool) -> list[str]:
    """Return the types of mixed precision on ``target``; on CPU the native kernels have both."""
    return [name for name in ("float16", "bfloat16") if (native and target == "CPU") or not try_matmul(target, name)]


def cores() -> str:
    """Return the machine's cores, and those that this process may use if they are fewer."""
    from msg_ms.native.threads import usable_cores

    total, usable = os.cpu_count() or 1, usable_cores()
    return f"{total} cores" if usable == total else f"{total} cores ({usable} usable here)"


def show(name: str, value: str) -> None:
    """Print one line."""
    print(f"{name:24}{value}")


def memory() -> float:
    """Return the machine's memory in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def version(package: str) -> str:
    """Return the installed version of a package, or ``missing``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def tool(name: str, flag: str, word: str = "") -> str:
    """Return the first line with ``word`` in the output of ``name flag``, empty if the tool is not installed."""
    path = shutil.which(name)
    if path is None:
        return ""
    lines = subprocess.run([path, flag], capture_output=True, encoding="utf-8", errors="replace").stdout.splitlines()
    return next((line.strip() for line in lines if word in line), "")


def cann() -> str:
    """Return the folder and version of CANN, empty if there is none."""
    home = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    folder = Path(home or "/usr/local/Ascend/ascend-toolkit/latest")
    for file in (folder / "version.cfg", folder / "version.info"):
        if file.is_file():
            return f"{folder}: {file.read_text(errors='replace', encoding='utf-8').splitlines()[0]}"
    return str(folder) if folder.is_dir() else ""


def try_matmul(target: str, dtype: str) -> str:
    """Multiply two matrices on ``target`` and return the error, empty if it works.

    This needs its own process: MindSpore cannot change its device, and a failure may end the process.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE, target, dtype], capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.partition(":")[0].endswith("Error")]
    return errors[-1].split(". ")[0] if errors else f"status {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
