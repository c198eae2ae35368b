"""Convert many files in this process, and print a JSON line for each.

    python hostile_worker.py <output file> <input file>...

A line has the status, the text on stderr, the seconds, the forbidden audit events, and the peak of memory in kilobytes
above the memory of the process before. The process ends if a file needs more than ten seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from msg_ms.commands.convert_torch_ckpt import main
from msg_ms.errors import UserError

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
    "webbrowser.open",
    "pickle.find_class",
    "pty.spawn",
    "shutil.",
    "urllib.Request",
    "ctypes.dlopen",
    "code.__new__",
    "builtins.input",
)
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
audited: list[str] = []
watched_folder: Path | None = None


def audit(event: str, arguments: tuple) -> None:
    if watched_folder is None:
        return
    if event.startswith(FORBIDDEN) and not event.startswith("shutil.rmtree"):
        audited.append(f"{event} {arguments!r}"[:200])
    elif event == "import" and arguments[0].split(".")[0] in ("antigravity", "webbrowser", "runpy", "pty", "torch"):
        audited.append(f"import {arguments[0]}")
    writing = (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if (writing or event in CHANGING) and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.abspath(arguments[0])  # noqa: PTH100 (resolve would follow links)
        if not f"{path}{os.sep}".startswith(f"{watched_folder}{os.sep}") and path != os.devnull:
            audited.append(f"{event} {path}")


def memory(field: str) -> int:
    """Return a field of /proc/self/status in kilobytes: VmRSS is the memory in use, VmHWM its peak."""
    return next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text("utf-8").splitlines() if field in line
    )


def reset_peak() -> int:
    """Reset the peak of memory if the system supports it; return the memory to count from."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return memory("VmHWM")
    return memory("VmRSS")


def convert(output: str, source: str) -> dict:
    global watched_folder
    sys.argv = ["convert_torch_ckpt.py", "--input", source, "--output", output]
    if output.endswith(".pth"):
        sys.argv.append("--reverse")
    errors, printed, started, status = io.StringIO(), io.StringIO(), time.process_time(), 0
    audited.clear()
    before = reset_peak()
    watched_folder = Path(output).parent.resolve()
    # Processor time does not depend on other processes. The signal ends a process even inside C code.
    signal.setitimer(signal.ITIMER_PROF, 10)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed):
            main()
    except UserError as error:
        status = 2
        errors.write(" ".join(str(error).split()))
    except BaseException:
        status = 1
        errors.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        watched_folder = None
    printed.getvalue().encode(errors="strict")
    return dict(
        source=source,
        status=status,
        errors=errors.getvalue(),
        seconds=time.process_time() - started,
        audited=list(audited),
        peak_kb=memory("VmHWM") - before,
        left=sorted(os.listdir(Path(output).parent)),
    )


if __name__ == "__main__":
    sys.addaudithook(audit)
    target = sys.argv[1]
    for name in sys.argv[2:]:
        result = convert(target, name)
        Path(target).unlink(missing_ok=True)
        print(json.dumps(result), flush=True)
