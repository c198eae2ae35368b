"""The number of threads: odd values, quotas of control groups, and limits that forbid more threads."""

import logging
import math
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from msg_ms import UserError, ops
from msg_ms.native import threads
from msg_ms.native.threads import cpu_quota, free_threads, thread_count, usable_cores


@pytest.mark.parametrize("value", ("0", "-1", "two", "2.5", "1e3", "2 4", "100000", "9" * 30, "٣", "0x4"))
def test_an_odd_number_of_threads_is_refused(value, monkeypatch):
    monkeypatch.setenv("MSG_MS_THREADS", value)
    monkeypatch.setenv("MSG_MS_OPS", "auto")
    with ops.use_backend("auto"), pytest.raises(UserError) as raised:
        ops.MatMul()
    assert str(raised.value) == f"MSG_MS_THREADS={value}: must be an integer from 1 to 1024"
    with ops.use_backend("composed"):
        ops.MatMul()  # without the kernels it doesn't matter


@pytest.mark.parametrize(
    ("value", "count"), (("", None), (" 3 ", 3), ("3", 3), ("2,4", 2), ("0", None), ("many", None))
)
def test_openmp_s_variable(value, count, monkeypatch, caplog):
    monkeypatch.setenv("MSG_MS_THREADS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with caplog.at_level(logging.WARNING, "msg_ms"):
        assert thread_count() == (count or usable_cores())
    assert len(caplog.records) == (value in ("0", "many"))


def group(root, path, **files):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")


def write_groups(root, cgroup, files):
    if cgroup is not None:
        (root / "cgroup").write_text(cgroup, encoding="utf-8")
    for path, content in files.items():
        group(root / "fs", path, **content)


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    (
        ("0::/job\n", {"job": {"cpu__max": "150000 100000\n"}}, 1.5),
        ("0::/job\n", {"job": {"cpu__max": "max 100000\n"}}, math.inf),
        ("0::/a/b/c\n", {"a": {"cpu__max": "50000 100000\n"}, "a/b": {"cpu__max": "max 100000\n"}}, 0.5),
        ("0::/\n", {".": {"cpu__max": "200000 100000\n"}}, 2),
        # In a container the path is the host's, and the mount shows the container's group.
        ("0::/kubepods/pod1/x\n", {".": {"cpu__max": "100000 100000\n"}}, 1),
        ("4:cpu,cpuacct:/a\n0::/\n", {"cpu,cpuacct/a": {"cpu__cfs_quota_us": "30", "cpu__cfs_period_us": "10"}}, 3),
        ("1:cpu:/x\n", {"cpu": {"cpu__cfs_quota_us": "100000\n", "cpu__cfs_period_us": "50000\n"}}, 2),
        ("1:cpu:/\n", {"cpu": {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}}, math.inf),
        ("2:cpuset:/job\n", {"cpuset/job": {"cpu__cfs_quota_us": "1", "cpu__cfs_period_us": "1"}}, math.inf),
        ("0::/job\n", {"job": {"cpu__max": "nonsense\n"}}, math.inf),
        (None, {}, math.inf),
    ),
)  # fmt: skip
def test_quotas_of_control_groups(cgroup, files, quota, tmp_path):
    write_groups(tmp_path, cgroup, files)
    assert cpu_quota(tmp_path, tmp_path / "fs") == quota


@pytest.mark.parametrize(("quota", "cores"), ((0.5, 1), (1, 1), (math.inf, len(os.sched_getaffinity(0)))))
def test_a_quota_limits_the_cores(quota, cores, monkeypatch):
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert usable_cores() == cores


def test_the_kernels_use_the_threads_that_the_system_grants():
    """The stacks of 63 more threads don't fit the limit of memory, so that the system refuses some of them."""
    code = """
import mmap, os, resource
import numpy as np
from support.kernels import Kernels
from support.native import kernel_library
kernels = Kernels(str(kernel_library()))
x, w = np.ones((999, 300)), np.ones((40, 300))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20), -1))
try:
    mmap.mmap(-1, 200 << 20)
    print("no limit")
except OSError:
    pass
out, = kernels("matmul", [x, w], [(999, 40)])
assert (out == 300).all()
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))  # for the end of Python
print(len(os.listdir("/proc/self/task")))
"""
    environment = {**os.environ, "MSG_MS_THREADS": "512", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    if "no limit" in done.stdout:
        pytest.skip("this system does not limit the memory of a process")  # QEMU's user mode
    assert 1 < int(done.stdout.split()[-1]) < 512


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        (None, {}, math.inf),
        ("0::/job\n", {"job": {"pids__max": "60\n", "pids__current": "7\n"}}, 53),
        ("0::/job/step\n", {"job": {"pids__max": "9", "pids__current": "4"}, "job/step": {"pids__max": "max"}}, 5),
        ("7:pids:/x\n4:cpu:/y\n", {"pids/x": {"pids__max": "50", "pids__current": "0"}}, 50),
    ],
)
def test_threads_that_control_groups_grant(cgroup, files, free, tmp_path):
    write_groups(tmp_path, cgroup, files)
    assert free_threads(tmp_path, tmp_path / "fs") == free


def test_a_limit_on_threads_leaves_some_for_mindspore(monkeypatch, caplog):
    monkeypatch.setattr(threads, "_free_at_first", lambda: 58 - threads.RESERVED)
    monkeypatch.setenv("MSG_MS_THREADS", "64")
    assert thread_count() == 58 - threads.RESERVED
    assert "limits its threads (pids.max)" in caplog.text
    monkeypatch.setattr(threads, "_free_at_first", lambda: -5)
    assert thread_count() == 1
