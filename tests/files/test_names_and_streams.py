"""Temporary folders, closed streams, and names that are not text."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msg_ms import UserError
from msg_ms.files import ESCAPE, PARTIAL, atomic_write, readable, remove_partial, user_path

ROOT = Path(__file__).parents[1]


def test_only_abandoned_temporary_folders_are_removed(tmp_path):
    for name in (".partial-mine", f"{PARTIAL}mine", f"{PARTIAL}abcd1234x", ".partial-abcd1234"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{PARTIAL}abcd0000").write_text("a file", encoding="utf-8")
    (tmp_path / f"{PARTIAL}abcd1111").symlink_to(tmp_path / ".partial-mine")
    (tmp_path / f"{PARTIAL}abcd1234").mkdir()
    (tmp_path / f"{PARTIAL}abcd1234" / "ckpt_00000001.ckpt").touch()
    before = set(os.listdir(tmp_path))
    with atomic_write(tmp_path / "new") as temporary:
        temporary.write_text("x", encoding="utf-8")
        remove_partial(tmp_path)  # as another process would
    assert set(os.listdir(tmp_path)) == before - {f"{PARTIAL}abcd1234"} | {"new"}


def test_two_writers_of_one_file_leave_a_whole_one(tmp_path):
    with atomic_write(tmp_path / "x") as one, atomic_write(tmp_path / "x") as other:
        one.write_text("1" * 1000, encoding="utf-8")
        other.write_text("2" * 1000, encoding="utf-8")
    assert (tmp_path / "x").read_text("utf-8") == "1" * 1000 and os.listdir(tmp_path) == ["x"]


def test_names_that_are_not_text_are_escaped(tmp_path):
    name = os.fsdecode(b"a\xff\xc3\xa9.png")
    assert readable(name) == "a\\xff\u00e9.png" and readable(Path("x\ud800")) == "x\\ud800"
    assert name.encode("ascii", ESCAPE) == b"a\\xff\\xe9.png"
    assert "\u4e2d\U0001f600".encode("ascii", ESCAPE) == b"\\u4e2d\\U0001f600"
    (tmp_path / "log").write_text(name, encoding="utf-8", errors=ESCAPE)
    assert (tmp_path / "log").read_text("utf-8") == readable(name)


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert (user_path("~/x"), user_path("a/~"), user_path("~")) == (Path("/home/me/x"), Path("a/~"), Path("/home/me"))
    with pytest.raises(UserError, match=r"~nobody-here/x: there is no home folder ~nobody-here"):
        user_path("~nobody-here/x")


@pytest.mark.slow
def test_every_combination_of_closed_streams_works():
    code = """
import os, sys
if sys.argv[1] == "close":
    for descriptor in map(int, sys.argv[2]):
        os.close(descriptor)
    os.execv(sys.executable, [sys.executable, __file__, "run"])
import msg_ms.cli
import subprocess
print("out"), print("error", file=sys.stderr), sys.stderr.fileno(), sys.stdin.read()
subprocess.run(["sh", "-c", "echo out; echo error >&2"], check=True)
def fail(): raise msg_ms.UserError("one line")
msg_ms.cli.run_command_line(fail)
"""
    script = Path("script.py")
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for closed in ("0", "1", "2", "012"):
        line = [sys.executable, script, "close", closed]
        done = subprocess.run(line, capture_output=True, encoding="utf-8", env=environment, stdin=subprocess.DEVNULL)
        assert done.returncode == 2, done.stderr
        assert done.stdout.split() == ([] if "1" in closed else ["out", "out"])
        assert done.stderr.splitlines() == ([] if "2" in closed else ["error", "error", "error: one line"])


def test_a_file_that_cannot_be_used_is_one_line():
    code = """
from msg_ms.cli import run_command_line
run_command_line(lambda: open("a" * 300))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and done.stderr == f"error: can't use {'a' * 300}: File name too long\n"


def run(code: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, **options)


def test_a_full_disk_behind_the_output_is_one_line():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "from msg_ms.cli import run_command_line\nrun_command_line(lambda: print('text'))"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        line = [sys.executable, "-c", code]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", env=environment)
    assert (done.returncode, done.stderr) == (2, "error: can't write the output: No space left on device\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_folder_that_is_being_filled_is_removed_by_a_signal(number, tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from msg_ms.files import new_folder
signal.signal({int(number)}, signal.SIG_DFL)  # nohup ignores SIGHUP
with new_folder(Path("new")) as folder:
    (folder / "file").write_text("x")
    os.kill(os.getpid(), {int(number)})
"""
    assert run(code, cwd=tmp_path).returncode == 128 + number and not list(tmp_path.iterdir())


def test_a_folder_that_a_killed_process_left_is_removed_by_the_next(tmp_path):
    (tmp_path / "mine").mkdir()
    code = "import os, signal\nfrom pathlib import Path\nfrom msg_ms.files import new_folder\n"
    killed = code + "with new_folder(Path('new')): os.kill(os.getpid(), signal.SIGKILL)"
    assert run(killed, cwd=tmp_path).returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 2
    assert run(code + "with new_folder(Path('new')): pass", cwd=tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]
