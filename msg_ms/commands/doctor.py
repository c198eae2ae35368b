"""What this machine has for training: python -m msg_ms.doctor ends with status 1, and advice, where it can't train."""

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
TRY = """
import sys
import mindspore as ms
ms.set_device(sys.argv[1])
ones = ms.Tensor([[1.0, 2.0]], getattr(ms, sys.argv[2]))
assert float(ms.ops.matmul(ones, ones.T).asnumpy()[0, 0]) == 5.0
"""
ADVICE = {
    "GPU": "the wheel's part for it needs CUDA 11.6 or 11.1, cuDNN 8 and their nvcc: docs/devices.md",
    "Ascend": "it needs the driver, CANN and its set_env.sh sourced: docs/devices.md",
    "CPU": "reinstall: pip install -e . in a new environment, with numpy below 2",
}


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    show("machine", f"{platform.machine()}, {os.cpu_count()} cores, {memory():.0f} GB memory, {platform.system()}")
    show("python", f"{platform.python_version()} in {sys.prefix}")
    for package in PACKAGES:
        show(package, version(package))
    show("compiler", tool("g++", "--version") or "none")
    show("native kernels", kernels())
    show("CUDA", tool("nvcc", "--version", "release") or "no nvcc")
    show("NVIDIA driver", tool("nvidia-smi", "-L") or "none")
    show("CANN", cann() or "none found")
    devices = sorted(path.name for path in Path("/dev").glob("davinci[0-9]*"))
    show("Ascend devices", ", ".join(devices) or "none")

    usable = []
    for target in TARGETS:
        reason = try_product(target, "float32")
        if not reason:
            usable.append(target)
            half = [name for name in ("float16", "bfloat16") if not try_product(target, name)]
            show(target, f"works; mixed precision in {' and '.join(half) or 'nothing'}")
        else:
            show(target, f"does not: {reason} ({ADVICE[target]})")
    if not usable:
        print("Training can't run here: see the lines above.", file=sys.stderr)
        return 1
    print(f"Training runs on {', '.join(usable)}; --device-target chooses.")
    return 0


def kernels() -> str:
    """Where the native kernels for CPU lie, or why there are none."""
    from msg_ms.ops.build import kernel_library

    try:
        return str(kernel_library())
    except ValueError as error:
        return f"none, composed operators instead: {error}"


def show(name: str, value: str) -> None:
    print(f"{name:24}{value}")


def memory() -> float:
    """Of the machine, in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def tool(name: str, flag: str, word: str = "") -> str:
    """The first line that ``name flag`` prints, or the first with ``word`` in it; empty where there is no such tool."""
    path = shutil.which(name)
    if path is None:
        return ""
    lines = subprocess.run([path, flag], capture_output=True, text=True).stdout.splitlines()
    return next((line.strip() for line in lines if word in line), "")


def cann() -> str:
    """Where CANN is, and its version."""
    home = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    folder = Path(home or "/usr/local/Ascend/ascend-toolkit/latest")
    for file in (folder / "version.cfg", folder / "version.info"):
        if file.is_file():
            return f"{folder}: {file.read_text(errors='replace').splitlines()[0]}"
    return str(folder) if folder.is_dir() else ""


def try_product(target: str, dtype: str) -> str:
    """Why a product of two matrices fails on ``target``; empty where it doesn't.

    In a process of its own, as MindSpore keeps to the first device it is given, and may not survive a failure.
    """
    done = subprocess.run([sys.executable, "-c", TRY, target, dtype], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.partition(":")[0].endswith("Error")]
    return errors[-1].split(". ")[0] if errors else f"status {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
