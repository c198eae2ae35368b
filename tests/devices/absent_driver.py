"""Stub libraries that replace a missing GPU or Ascend driver, so that MindSpore's plugin loads.

MindSpore's wheel contains its GPU and Ascend plugins, with the code that selects a kernel for every operator of a
graph. On a machine without the device only the vendor's libraries are missing. Here every function that a plugin needs
from them exists and returns "success"; the few that return handles or sizes return plausible ones. A graph can then be
compiled for the device, and its kernels are selected by the same code as on the device. Nothing can run.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import mindspore

LIB = Path(mindspore.__file__).parent / "lib"
PLUGIN = LIB / "plugin"

HANDLE = "(void **h) { *h = malloc(64); return 0; }"

CUDA_LIBRARIES = (
    "libcublas.so.11", "libcurand.so.10", "libcudnn.so.8", "libcudart.so.11.0", "libcuda.so.1",
    "libcusolver.so.11", "libcufft.so.10", "libcusparse.so.11", "libnvrtc.so.11.2",
)  # fmt: skip
CUDA_SYMBOLS = r"cu[A-Zbrdsf]\w+|cuda[A-Z]\w+|__cuda\w+|nvrtc\w+"
CUDA_FUNCTIONS = {
    "cudaGetDeviceCount": "(int *n) { *n = 1; return 0; }",
    "cudaGetDevice": "(int *n) { *n = 0; return 0; }",
    "cudaMemGetInfo": "(size_t *free, size_t *all) { *free = *all = 8ul << 30; return 0; }",
    "cudaMalloc": "(void **p, size_t n) { *p = calloc(n, 1); return 0; }",
    "cudaHostAlloc": "(void **p, size_t n) { *p = calloc(n, 1); return 0; }",
    "cudaDeviceGetAttribute": "(int *value, int id) { *value = id == 75 ? 8 : id == 76 ? 0 : 1024; return 0; }",
    # cudaDeviceProp: memory at byte 288, warp size at 308, compute capability 8.0 at 360.
    "cudaGetDeviceProperties": (
        "(char *p) { memset(p, 0, 640); for (int i = 296; i < 640; i += 4) *(int *)(p + i) = 1024;"
        " *(long *)(p + 288) = 8l << 30; *(int *)(p + 308) = 32;"
        " *(int *)(p + 360) = 8; *(int *)(p + 364) = 0; return 0; }"
    ),
    "cudaRuntimeGetVersion": "(int *v) { *v = 11060; return 0; }",
    "cudaDriverGetVersion": "(int *v) { *v = 11060; return 0; }",
    "cudnnGetVersion": "(void) { return 8400; }",
    **dict.fromkeys(
        ("cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaEventCreate", "cudaEventCreateWithFlags",
         "cublasCreate_v2", "cusolverDnCreate", "cusparseCreate", "cudnnCreate"), HANDLE),
    **dict.fromkeys(
        ("cudaGetErrorString", "cudaGetErrorName", "cudnnGetErrorString"), '(void) { return (long)"absent driver"; }'),
}  # fmt: skip

CANN_LIBRARIES = (
    "libascendcl.so", "libge_runner.so", "libgraph.so", "libmsprofiler.so", "libhccl.so", "libprofapi.so",
    "libacl_tdt_channel.so", "libacl_op_compiler.so", "libruntime.so", "libplatform.so", "libc_sec.so",
    "libnnopbase.so", "libascend_hal.so", "libopapi.so",
)  # fmt: skip
CANN_SYMBOLS = r"acl\w+|rt[A-Z]\w+|smem_\w+|hal[A-Z]\w+|Msprof\w+|H(?:ccl|com)[A-Z]\w+|_ZNK?2ge\w+"
CANN_FUNCTIONS = {
    "aclrtGetDeviceCount": "(unsigned *n) { *n = 1; return 0; }",
    "aclrtGetDevice": "(int *n) { *n = 0; return 0; }",
    "aclrtGetSocName": '(void) { return (long)"Ascend910B1"; }',
    "aclrtGetMemInfo": "(int kind, size_t *free, size_t *all) { *free = *all = 16ul << 30; return 0; }",
    # MindSpore reserves nearly all memory at once and never touches it here.
    "aclrtMalloc": "(void **p, size_t n) { *p = malloc(n < 1 << 20 ? n : 64 << 20); return 0; }",
    "aclrtMallocHost": "(void **p, size_t n) { *p = malloc(n); return 0; }",
    "aclrtGetStreamId": "(void *stream, int *id) { *id = 0; return 0; }",
    "aclrtGetVersion": "(int *major, int *minor, int *patch) { *major = 1; *minor = *patch = 0; return 0; }",
    "aclrtProcessReport": "(void) { usleep(100000); return 0; }",
    "aclGetRecentErrMsg": '(void) { return (long)"absent driver"; }',
    # An empty std::map<unsigned, std::string>.
    "_ZN2ge13StatusFactory8InstanceEv": (
        "(void) { static void *map[8]; if (!map[3]) map[3] = map[4] = map + 1; return (long)map; }"
    ),
    **dict.fromkeys(
        ("aclrtCreateStream", "aclrtCreateStreamWithConfig", "aclrtCreateContext", "aclrtGetCurrentContext",
         "aclrtCreateEvent", "aclrtCreateEventWithFlag", "aclrtCreateEventExWithFlag"), HANDLE),
    **dict.fromkeys(
        ("aclCreateScalar", "aclCreateTensor", "aclCreateIntArray", "aclCreateFloatArray", "aclCreateBoolArray",
         "aclCreateTensorList", "aclCreateScalarList", "acltdtCreateChannelWithCapacity"),
        "(void) { return (long)malloc(64); }"),
}  # fmt: skip


def cuda_environment(folder: Path) -> dict[str, str]:
    """Build the stub of CUDA 11.6 under ``folder``; return the variables with which MindSpore finds it."""
    wanted = _undefined([PLUGIN / "libmindspore_gpu.so.11.6", PLUGIN / "gpu" / "libcuda_ops.so.11"], CUDA_SYMBOLS)
    _build(folder, CUDA_LIBRARIES, wanted, CUDA_FUNCTIONS)
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "Cuda compilation tools, release 11.6, V11.6.124"\n', encoding="utf-8")
    nvcc.chmod(0o755)
    return {"CUDA_HOME": str(folder), "LD_LIBRARY_PATH": str(folder)}


def cann_environment(folder: Path) -> dict[str, str]:
    """Do the same for CANN. Functions that MindSpore looks up by name at run time are among its plugin's strings."""
    libraries = [
        PLUGIN / "libmindspore_ascend.so.2",
        PLUGIN / "libmindspore_ops_ascend.so",
        PLUGIN / "ascend" / "libmindspore_ascend_res_manager.so",
        PLUGIN / "ascend" / "libd_collective.so",
        *(PLUGIN / "ascend").glob("**/libshmem.so"),
    ]
    wanted = _undefined(libraries, CANN_SYMBOLS) | dict.fromkeys(CANN_FUNCTIONS, "")
    for library in libraries:
        for name in re.findall(
            rb"\0((?:acl(?:rt|op|mdl|prof|tdt|dump|nn)?|Hccl|Hcom)[A-Z]\w{2,60})(?=\0)", library.read_bytes()
        ):
            wanted.setdefault(name.decode(), "")
            if name.startswith(b"aclnn"):
                wanted.setdefault(name.decode() + "GetWorkspaceSize", "")
    home = folder / "cann"
    (home / "lib64").mkdir(parents=True)
    _build(home / "lib64", CANN_LIBRARIES, wanted, CANN_FUNCTIONS)
    return {"LD_LIBRARY_PATH": str(home / "lib64")}


def _undefined(libraries: list[Path], pattern: str) -> dict[str, str]:
    """Return the undefined names that match ``pattern`` and that none of ``libraries`` defines, with their versions."""
    wanted, present = {}, set()
    for library in libraries:
        listing = subprocess.run(
            ["readelf", "--dyn-syms", "-W", library], capture_output=True, encoding="utf-8", check=True
        )
        for section, name, version in re.findall(r" (UND|\d+) (\w+)(?:@+(\S+))?(?: \(\d+\))?$", listing.stdout, re.M):
            if section != "UND":
                present.add(name)
            elif re.fullmatch(pattern, name):
                wanted[name] = version
    return {name: version for name, version in wanted.items() if name not in present}


def _build(folder: Path, libraries: tuple[str, ...], wanted: dict[str, str], functions: dict[str, str]) -> None:
    """Build one library with every function of ``wanted``, and copy it to each name that the plugin links against."""
    lines = ["#include <stdlib.h>", "#include <string.h>", "#include <unistd.h>"]
    lines += [f"long {name}{functions.get(name, '(void) { return 0; }')}" for name in sorted(wanted)]
    (folder / "driver.c").write_text("\n".join(lines) + "\n", encoding="utf-8")
    versions = {version for version in wanted.values() if version}
    nodes = [f"{v} {{ {' '.join(n + ';' for n in wanted if wanted[n] == v)} }};" for v in sorted(versions)]
    (folder / "versions.map").write_text("\n".join(nodes) + "\n", encoding="utf-8")
    command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "driver.c"]
    if versions:
        command.append("-Wl,--version-script=versions.map")
    for library in libraries:
        if library == libraries[0]:
            subprocess.run([*command, "-o", library], cwd=folder, check=True)
        else:
            # Copies and not links: the loader would treat two names of one file as one library.
            (folder / library).write_bytes((folder / libraries[0]).read_bytes())


def environment(target: str, folder: Path) -> dict[str, str]:
    """Return the environment in which ``ms.set_device(target)`` works and MindSpore logs the kernels it selects."""
    build = {"GPU": cuda_environment, "Ascend": cann_environment}[target]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "ASCEND", "LD_LIBRARY"))}
    return kept | build(folder) | {"GLOG_v": "1"}
