"""Entry point of the processes that msrun starts: end with the launcher, and receive signals.

The launcher starts msrun with the stop signals blocked, and its children inherit that. Some process trackers of Slurm
signal every process of a job: msrun and MindSpore's scheduler must not end before the workers have saved. Workers
unblock the signals here; one that came earlier ends them now. This file imports nothing of the package: its import
takes seconds, in which a process would outlive its launcher.
"""

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
MARK = "MSG_MS_JOB"  # in the environment of all processes of a launcher


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends; exit if that has happened already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        variables = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        orphan = f"{MARK}={os.environ.get(MARK)}".encode() not in variables
    except OSError:  # gone, or another user's: the process that adopts orphans
        orphan = Path("/proc/self").exists()
    if orphan:
        os._exit(1)


def unblock_signals() -> None:
    """Unblock all blocked signals with their default effect; ignored ones, as under nohup, stay so."""
    for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))


if __name__ == "__main__":
    end_with_parent()
    if os.environ.get("MS_ROLE") == "MS_WORKER":
        unblock_signals()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
