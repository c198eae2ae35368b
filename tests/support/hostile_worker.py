"""Converts many files one after the other in this process and tells what each did: a JSON line each on stdout.

    python hostile_worker.py <output file> <input file>...

Of each file: the status, the text on stderr, seconds, what was audited, and by how many kilobytes memory peaked above
what the process had before. Ends itself where a file takes longer than ten seconds.
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

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect",
             "socket.getaddrinfo", "webbrowser.open", "pickle.find_class", "pty.spawn", "shutil.", "urllib.Request",
             "ctypes.dlopen", "code.__new__", "builtins.input")  # fmt: skip
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
audited: list[str] = []
watching: Path | None = None


def audit(event: str, arguments: tuple) -> None:
    if watching is None:
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
        if not f"{path}{os.sep}".startswith(f"{watching}{os.sep}") and path != os.devnull:
            audited.append(f"{event} {path}")


def memory(field: str) -> int:
    """Kilobytes of a field of /proc/self/status, VmRSS for what the process has and VmHWM for its peak."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if field in line)


def begin_peak() -> int:
    """Lets the peak of memory begin anew where the system does that; gives what it is counted from."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return memory("VmHWM")
    return memory("VmRSS")


def convert(output: str, source: str) -> dict:
    global watching
    sys.argv = ["convert_torch_ckpt.py", "--input", source, "--output", output]
    if output.endswith(".pth"):
        sys.argv.append("--reverse")
    errors, printed, started, status = io.StringIO(), io.StringIO(), time.process_time(), 0
    audited.clear()
    before = begin_peak()
    watching = Path(output).parent.resolve()
    # Of processor time, which a busy machine doesn't stretch; the signal ends a process even within C code.
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
        watching = None
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
