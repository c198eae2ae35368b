"""msg-ms-doctor: facts about the machine, and usable devices."""

import subprocess
import sys

from msg_ms.commands.doctor import ADVICE, cann, tool


def test_it_shows_usable_devices_and_reasons_for_the_others():
    done = subprocess.run([sys.executable, "-m", "msg_ms.commands.doctor"], capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "Training can run on CPU" in done.stdout, done.stdout + done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    assert rows["CPU"] == "works; mixed precision: float16 and bfloat16"
    for target in ("GPU", "Ascend"):
        assert rows[target].startswith("works") or ADVICE[target] in rows[target]


def test_versions_of_tools(tmp_path, monkeypatch):
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho banner\necho release 11.6\n", encoding="utf-8")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert tool("nvcc", "--version", "release") == "release 11.6" and tool("no-such-tool", "-v") == ""
    (tmp_path / "version.cfg").write_text("version=8.0\n", encoding="utf-8")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    assert cann() == f"{tmp_path}: version=8.0"
